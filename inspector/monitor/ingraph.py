"""Outputs of a compiled model and their gradients: hooks that the compiler takes into its graph, and that end in a write
to one buffer.

They are on from before the first compiled run to the end (a hook added later never fires), and add up in the buffer,
which is emptied at each step. Python state would break the graph, so every row is laid out beforehand. Tensor hooks do
not trace; a function that answers with what it is given, and writes in its backward, does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspector.monitor.arrival import Array, Arrival
from inspector.monitor.measure import Measure
from inspector.monitor.table import Entry

_LEAVES = 4  # rows for each module: its output if that is a tensor, or the first tensors of a tuple
_EMPTY = (0.0, 0.0, 0.0, float("inf"), float("-inf"))  # n, sum, sum of squares, smallest, largest


def is_compiled(model: nn.Module) -> bool:
    """Is the model, or a part of it, wrapped by torch.compile?"""
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())


def _wrapped(model: nn.Module) -> list[nn.Module]:
    """The modules whose own hooks torch.compile runs before and after its graph, and would compile one by one."""
    from torch._dynamo import config
    from torch._dynamo.trace_rules import check

    inner = [getattr(module, "_orig_mod", None) for module in model.modules()]
    modules = [module for module in inner if isinstance(module, nn.Module)]
    return [module for module in modules if not config.wrap_top_frame and not check(module.forward)]


@contextmanager
def hook_guards() -> Iterator[None]:
    """What is compiled inside is bound to the hooks of its own model: otherwise another instance of the same class, with
    or without hooks, would run this one's code."""
    from torch._dynamo import config

    before = config.skip_nnmodule_hook_guards
    config.skip_nnmodule_hook_guards = False
    try:
        yield
    finally:
        config.skip_nnmodule_hook_guards = before


class InGraph:
    """The buffers and the hooks that write into them: one for outputs, one for their gradients. They are two because a
    compiled backward writes back the whole of what it changes, as it was when the forward had ended."""

    def __init__(self, model: nn.Module, chosen: Mapping[str, nn.Module], measure: Measure, kinds: Collection[str]) -> None:
        self.chosen, self.measure = dict(chosen), measure
        whole = _wrapped(model)
        self.outside = {path for path, module in chosen.items() if any(module is outer for outer in whole)}
        self.kinds = [kind for kind in ("output", "grad") if kind in kinds]
        self.half = len(chosen) * _LEAVES  # the rows of outputs; those of gradients follow
        device = next((p.device for m in chosen.values() for p in m.parameters()), torch.device("cpu"))
        self.empty = torch.tensor(_EMPTY, device=device).expand(self.half, len(_EMPTY)).contiguous()
        self.outputs, self.grads = self.empty.clone(), self.empty.clone()
        self.checked = False

    def hooks(self) -> dict[str, Callable[[nn.Module, Any, Any], Any]]:
        outputs = self.outputs if "output" in self.kinds else None
        grads = self.grads if "grad" in self.kinds else None
        hooks = {path: _hook(outputs, grads, i * _LEAVES) for i, path in enumerate(self.chosen)}
        eager: Callable[..., Any] = torch.compiler.disable
        return {path: eager(hook) if path in self.outside else hook for path, hook in hooks.items()}

    def begin_step(self) -> None:
        self.outputs.copy_(self.empty)
        self.grads.copy_(self.empty)

    def flush(self) -> GraphTicket:
        return GraphTicket(self, Arrival(torch.cat([self.outputs, self.grads])))

    def entries(self, n: Array) -> list[Entry]:
        """The rows that something was written to; gradients from the last module to the first, as backward goes."""
        if not self.checked and not n.any():
            warnings.warn(_TOO_LATE, RuntimeWarning, stacklevel=2)
        self.checked = True
        written = np.flatnonzero(n)
        slots = [*written[written < self.half].tolist(), *written[written >= self.half][::-1].tolist()]
        return [(self._row(slot), slot, int(n[slot]), False) for slot in slots]

    def _row(self, slot: int) -> int:
        kind, at = ("output", slot) if slot < self.half else ("grad", slot - self.half)
        leaf = at % _LEAVES
        name = list(self.chosen)[at // _LEAVES] + (f"[{leaf - 1}]" if leaf else "")
        return self.measure.row(kind, name)


_TOO_LATE = (
    "the model was compiled before the monitor was attached, so its hooks never fire, and outputs and their gradients are "
    "not measured; start the monitor before the first compiled run, or call torch.compiler.reset() after starting it"
)


class GraphTicket:
    """What the buffer held at the end of a step; reads like any other ticket."""

    samples, sampled, extras = None, (), ()

    def __init__(self, graph: InGraph, arrival: Arrival) -> None:
        self.graph, self.arrival = graph, arrival
        self.numbers = self
        self._entries: list[Entry] | None = None

    @property
    def ready(self) -> bool:
        return self.arrival.ready

    @property
    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = self.graph.entries(self.arrival.numpy()[:, 0])
        return self._entries

    def numpy(self) -> Array:
        """Columns as in a table: sum, sum of squares, smallest, largest, shift."""
        numbers = self.arrival.numpy()[:, (1, 2, 3, 4, 0)]
        numbers[numbers[:, 4] == 0, :4] = 0.0  # rows that nothing was written to are not infinite
        return numbers


def _hook(outputs: Tensor | None, grads: Tensor | None, first: int) -> Callable[[nn.Module, Any, Any], Any]:
    def seen(value: Any, leaf: int) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
            return value
        if outputs is not None:
            _add(outputs, first + leaf, value)
        return value if grads is None or not value.requires_grad else _watched(value, grads, first + leaf)

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        if not torch.is_grad_enabled():
            return None
        if isinstance(output, Tensor):
            return seen(output, 0)
        if type(output) in (tuple, list):
            parts = [seen(part, 1 + i) for i, part in enumerate(output[: _LEAVES - 1])]
            return None if grads is None else type(output)([*parts, *output[_LEAVES - 1 :]])
        return None

    return after


def _watched(value: Tensor, grads: Tensor, row: int) -> Tensor:
    """The same value, whose gradient is added to a row when it comes. What runs eagerly keeps its own tensor."""
    if torch.compiler.is_compiling():
        watched: Tensor = _Watched.apply(value, grads, row)
        return watched
    value.register_hook(lambda grad: _add(grads, row, grad))  # type: ignore[no-untyped-call]  # untyped in torch
    return value


class _Watched(torch.autograd.Function):
    """The identity. A clone, which the compiler drops: a view could not be written to in place by the next module."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, buffer: Tensor, row: int) -> Tensor:
        ctx.buffer, ctx.row = buffer, row
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        _add(ctx.buffer, ctx.row, grad)
        return grad, None, None


def _add(buffer: Tensor, row: int, value: Tensor) -> None:
    x = value.detach().float()
    low, high = torch.aminmax(x)
    old = buffer[row]
    n = torch.full_like(low, x.numel())
    new = [old[0] + n, old[1] + x.sum(), old[2] + (x * x).sum(), torch.minimum(old[3], low), torch.maximum(old[4], high)]
    buffer[row].copy_(torch.stack(new))
