"""What a module was called with, by the names of its forward parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn

from inspector.tensors import Inputs

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def named_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """Positional arguments under their parameter's name (or "0", "1", ... beyond ``*args``), then keywords."""
    names = _parameters(type(module).forward)
    named = {names[i] if i < len(names) else str(i): value for i, value in enumerate(args)}
    return Inputs(named | kwargs)


@lru_cache(maxsize=4096)
def _parameters(forward: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the positional parameters of a ``forward``, without self; empty where they cannot be read."""
    try:
        parameters = list(inspect.signature(forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind in _POSITIONAL)
