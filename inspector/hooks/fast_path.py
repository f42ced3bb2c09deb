"""Where PyTorch's fused transformer path could run: it is left as soon as a torch function mode is active, so that
watching for attention there would change the model's own values in the last bits. Such calls are not watched."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


class FastPaths:
    """For each chosen module: itself and the modules inside it that are not asked on their own, where these may fuse."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        asked = {id(module) for module in modules.values()}
        self.inside = {path: _fusing(path, module, asked) for path, module in modules.items()}

    def in_the_way(self, path: str) -> str | None:
        """Why a call of this module is not watched now, or None where it may be."""
        for name, module in self.inside[path]:
            if may_fuse(module):
                kind, inner = type(module).__name__, nn.MultiheadAttention.__name__
                cure = f"choose the {inner} modules inside it too" if name != path else "run it with gradients"
                return (
                    f"watching it would switch off the fused path of {name or '(model)'} ({kind}) and change its last bits; "
                    f"{cure}, or call torch.backends.mha.set_fastpath_enabled(False) first"
                )
        return None


def may_fuse(module: nn.Module) -> bool:
    """Whether the module's next call could take the fused path."""
    if module.training or not torch.backends.mha.get_fastpath_enabled():
        return False
    asked = module.layers[0] if isinstance(module, nn.TransformerEncoder) else module  # it decides by its first layer
    return not (torch.is_grad_enabled() and any(p.requires_grad for p in asked.parameters()))


def _fusing(path: str, module: nn.Module, asked: set[int], above: tuple[int, ...] = ()) -> list[tuple[str, nn.Module]]:
    """Fusing modules that run inside this one with no chosen module between."""
    found: list[tuple[str, nn.Module]] = [(path, module)] if isinstance(module, _FUSED) else []
    above = (*above, id(module))
    for name, child in module.named_children():
        if id(child) not in asked and id(child) not in above:
            found += _fusing(f"{path}.{name}" if path else name, child, asked, above)
    return found
