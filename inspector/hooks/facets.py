"""What fused modules compute and never hand out: attention weights per head, and the gates of LSTM and GRU.

Both are recomputed from what a call was given and gave back, off the graph, so the model's own run stays as it is.
A call that has none gets None and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from inspector.hooks.attention_edit import edited, forget_edited
from inspector.hooks.attention_weights import is_stock, mha_weights
from inspector.hooks.fast_path import FastPaths
from inspector.hooks.frame import Frame
from inspector.hooks.gates import gates_of, random_state_of
from inspector.hooks.watch import Watch
from inspector.sites import Kind

_NO_ATTENTION = (
    "it computes no attention that can be seen: no nn.MultiheadAttention, no scaled_dot_product_attention in its own forward"
)


class Facet(NamedTuple):
    value: Any
    why: str = ""  # why the value is None


class Facets:
    """Asked at the beginning and the end of each call, from inside the hooks; ``close`` when the block ends, also where an
    interrupt ended calls without their end.

    attention: (batch, heads, target, source) before dropout, as ``mha_weights`` and ``sdpa_weights`` say; where one call
    computes several, a tuple in order. gates: a mapping, as ``gates_of`` says. Always detached, also with ``keep=live``.
    """

    def __init__(self, modules: Mapping[str, nn.Module], kinds: tuple[Kind, ...]) -> None:
        self.attention, self.gates = "attention" in kinds, "gates" in kinds
        self.fast_paths = FastPaths(modules)
        self.watch = Watch()

    def begin(self, frame: Frame) -> None:
        forget_edited()  # what is left there belongs to another call
        outer = self.watch.begin(self._watched(frame)) if self.attention else None
        frame.facets = outer, random_state_of(frame.module) if self.gates else None

    def end(self, frame: Frame, output: Any) -> dict[Kind, Facet]:
        """The facets of the call that ends now; empty where it raised."""
        if frame.facets is None:  # it raised before it could begin
            return {}
        outer, state = frame.facets
        facets: dict[Kind, Facet] = {}
        if self.attention and frame.raised is None:
            facets["attention"] = _explained(frame, lambda: self._attention(frame, output))
        if self.gates and frame.raised is None:
            facets["gates"] = _explained(frame, lambda: gates_of(frame.module, (frame.args, frame.kwargs), output, state))
        if self.attention:
            self.watch.end(outer)
        return facets

    def close(self) -> None:
        self.watch.take_out()

    def _watched(self, frame: Frame) -> bool:
        """The parts that PyTorch is made of call no attention themselves; what they hold may."""
        leaf = type(frame.module).__module__.startswith("torch.nn.modules.") and not any(frame.module.children())
        return not (leaf or is_stock(frame.module) or self.fast_paths.in_the_way(frame.path))

    def _attention(self, frame: Frame, output: Any) -> Any:
        if is_stock(frame.module):
            put = edited()
            return mha_weights(frame.module, frame.args, frame.kwargs, output) if put is None else put
        found = self.watch.found or []
        for error in found:
            if isinstance(error, Exception):
                raise error
        if not found:
            raise LookupError(self.fast_paths.in_the_way(frame.path) or _NO_ATTENTION + _softmax(frame))
        return found[0] if len(found) == 1 else tuple(found)


def _softmax(frame: Frame) -> str:
    """Where attention written out with a Softmax module is found instead."""
    names = [name for name, child in frame.module.named_children() if isinstance(child, nn.Softmax)]
    return f" (written out? capture the output of {', '.join(map(repr, names))})" if names else ""


def _explained(frame: Frame, compute: Callable[[], Any]) -> Facet:
    """A facet that cannot be had never disturbs the run. A LookupError's text is the reason."""
    try:
        return Facet(compute())
    except LookupError as error:
        return Facet(None, str(error))
    except Exception as error:
        if any(type(p).__name__ == "DTensor" for p in frame.module.parameters(recurse=False)):
            return Facet(None, "its parameters are sharded again when its call ends; shard the module around it instead")
        return Facet(None, f"it could not be recomputed: {type(error).__name__}: {error}")
