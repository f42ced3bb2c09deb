"""Sees the attention that a user's own module computes. A torch function mode alone sees every way in which code can hold
``scaled_dot_product_attention`` (imported by name, kept in an attribute), and only in this thread."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from inspector.hooks.attention_edit import edited, forget_edited
from inspector.hooks.attention_weights import functional_weights, sdpa_weights
from inspector.hooks.function_modes import Placed

_SEEN = {F.scaled_dot_product_attention: sdpa_weights, F.multi_head_attention_forward: functional_weights}


class Outer(NamedTuple):
    """How things stood in the call around a call."""

    on: bool
    found: list[Tensor | Exception] | None
    under: Any


class Watch(Placed):
    """Notes the weights of every attention while a watched call runs; an inner call that is asked on its own takes over
    for its time. It answers with what the function answers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor | Exception] | None = None  # None: nobody is asking

    def begin(self, wanted: bool) -> Outer:
        """Start a call, whose weights gather in ``found``; what it answers belongs to the call around it."""
        outer = Outer(self.on, self.found, None if wanted else self.take_out())
        self.found = [] if wanted else None
        if wanted and not self.on:
            self.put()
        return outer

    def end(self, outer: Outer) -> None:
        """Go on with the call around it."""
        self.found = outer.found
        if outer.on and not self.on:
            self.put(outer.under)
        elif not outer.on:
            self.take_out()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.found is None or func not in _SEEN:
            return func(*args, **kwargs)
        forget_edited()
        result = func(*args, **kwargs)
        self.found.append(_weights(func, args, kwargs))
        return result


@torch.no_grad()
def _weights(func: Any, args: Any, kwargs: Any) -> Tensor | Exception:
    """Those that an edit put there, or those of the call; the model's own call has succeeded and goes on in any case."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return LookupError("its attention runs inside vmap or another torch.func transform, whose values cannot be kept")
    try:
        put = edited()
        return _SEEN[func](*args, **kwargs) if put is None else put
    except Exception as error:
        return error
