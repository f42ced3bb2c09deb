"""What cannot be looked at, said before it goes wrong: code without modules, and transforms that would bake hooks in."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_interpreters = torch._C._functorch.peek_interpreter_stack
_tracing = torch._C._get_tracing_state
_compiling = torch.compiler.is_compiling


def refuse_model(model: Any) -> None:
    """Raises TypeError for what is no plain nn.Module: scripted, exported, or something else."""
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"this {type(model).__name__} is scripted or traced: TorchScript never calls hooks; "
            "look at the module that it was made from"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"a {type(model).__name__} is no nn.Module and has no modules to look at; "
            "give the nn.Module itself (of an exported or traced program, the module that it was made from)"
        )


def refuse_transforms() -> None:
    """Raises RuntimeError inside vmap, tracing and exporting, whose values are stand-ins and not numbers."""
    if _interpreters() is not None:
        raise RuntimeError(
            "vmap, grad and the other torch.func transforms run the model on stand-ins, whose values cannot be kept: "
            "call the module on the whole batch inside the block, and the transform outside of it"
        )
    if _tracing() is not None or _compiling():
        raise RuntimeError(
            "the model is traced, exported or compiled inside a capture or an edit, which would bake the hooks into the "
            "result: trace, export or compile it outside of the block"
        )
