"""Outputs of a compiled model and their gradients: hooks that the compiler takes into its graph, and that end in a write
to one buffer.

They are on from before the first compiled run to the end (a hook added later never fires), and add up in the buffer,
which is emptied at each step. Python state would break the graph, so every row is laid out beforehand. Tensor hooks do
not trace; a function that answers with what it is given, and writes in its backward, does. Inputs are not looked at; a
clock in the buffer tells in which order modules ended, and which was the first whose output was not finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from inspector.monitor.arrival import Array, Arrival
from inspector.monitor.measure import Measure
from inspector.monitor.table import Entry
from inspector.tensors import Leaf, format_leaf

_LEAVES = 4  # rows for each module: the first tensors of its output
_INF = float("inf")
_EMPTY = (0.0, 0.0, 0.0, _INF, -_INF, _INF, _INF, 0.0, 0.0)
_N, _FIRST, _BAD, _LEAF, _MISSED = 0, 5, 6, 7, 8  # after n: sum, its square, smallest, largest, ticks, numbers of leaves
_NOTHING = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    torch.Size,
    torch.dtype,
    torch.device,
)  # in an output, these have nothing to measure


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


class Buffer(NamedTuple):
    """Where hooks write: rows of sums, and a clock that each write moves on."""

    rows: Tensor
    clock: Tensor


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
        self.empty = torch.tensor(_EMPTY, device=device).repeat(self.half, 1)
        self.outputs, self.grads = (Buffer(self.empty.clone(), torch.zeros((), device=device)) for _ in range(2))
        self.checked = False
        self.missed: set[str] = set()

    def hooks(self) -> dict[str, Callable[[nn.Module, Any, Any], Any]]:
        outputs = self.outputs if "output" in self.kinds else None
        grads = self.grads if "grad" in self.kinds else None
        hooks = {path: _hook(outputs, grads, i * _LEAVES) for i, path in enumerate(self.chosen)}
        eager: Callable[..., Any] = torch.compiler.disable
        return {path: eager(hook) if path in self.outside else hook for path, hook in hooks.items()}

    def begin_step(self) -> None:
        self.outputs.rows.copy_(self.empty)
        self.grads.rows.copy_(self.empty)
        self.outputs.clock.zero_()
        self.grads.clock.zero_()

    def flush(self) -> GraphTicket:
        return GraphTicket(self, Arrival(torch.cat([self.outputs.rows, self.grads.rows])))

    def entries(self, numbers: Array) -> list[Entry]:
        """The rows that something was written to, in the order in which it first was."""
        n = numbers[:, _N]
        if not self.checked and not n.any():
            warnings.warn(_TOO_LATE, RuntimeWarning, stacklevel=2)
        self.checked = True
        self._tell_missed(numbers[::_LEAVES, _MISSED])
        written = np.flatnonzero(n)
        order = np.lexsort((numbers[written, _FIRST], written >= self.half))
        return [(self._row(slot, numbers), slot, int(n[slot]), False) for slot in written[order].tolist()]

    def _row(self, slot: int, numbers: Array) -> int:
        kind, at = ("output", slot) if slot < self.half else ("grad", slot - self.half)
        return self.measure.row(kind, self._name(at // _LEAVES, int(numbers[slot, _LEAF])))

    def _name(self, module: int, leaf: int) -> str:
        return list(self.chosen)[module] + format_leaf(_LEAF_OF[leaf])

    def _tell_missed(self, leaves: Array) -> None:
        names = {self._name(i % len(self.chosen), int(leaves[i]) - 1) for i in np.flatnonzero(leaves).tolist()}
        if names - self.missed:
            told = ", ".join(sorted(name or "the model" for name in names - self.missed))
            warnings.warn(_NOT_MEASURED.format(told, _LEAVES), RuntimeWarning, stacklevel=2)
            self.missed |= names


_TOO_LATE = (
    "the model was compiled before the monitor was attached, so its hooks never fire, and outputs and their gradients are "
    "not measured; start the monitor before the first compiled run, or call torch.compiler.reset() after starting it"
)

_NOT_MEASURED = (
    "these outputs, or their gradients, are not measured while the model is compiled: {}; measured are the first {} tensors "
    "that a module returns in tuples, lists, named tuples and dicts (of other kinds of dict the outputs only)"
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
            self._entries = self.graph.entries(self.arrival.numpy())
        return self._entries

    def numpy(self) -> Array:
        """Columns as in a table: sum, sum of squares, smallest, largest, shift."""
        numbers = self.arrival.numpy()[:, (1, 2, 3, 4, 0)]
        numbers[numbers[:, 4] == 0, :4] = 0.0  # rows that nothing was written to are not infinite
        return numbers

    def births(self) -> dict[int, float]:
        """Rows that are not finite; 0.5 marks the one that was so first, in the order of execution."""
        ticks = self.arrival.numpy()[:, _BAD]
        for kind in ("output", "grad"):
            bad = {row: ticks[slot] for row, slot, _, _ in self.entries if ticks[slot] < _INF}
            bad = {row: tick for row, tick in bad.items() if self.graph.measure.rows[row][0] == kind}
            if bad:
                first = min(bad, key=lambda row: bad[row])
                return {row: 0.5 * (row == first) for row in bad}
        return {}


_LEAF_OF: list[Leaf] = [()]  # the number of a leaf -> where in an output it is


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator,unused-ignore]  # untyped in torch
def _number(leaf: Leaf) -> int:
    """Called while the compiler traces. The same for all models of a process, because they may share the code."""
    if leaf not in _LEAF_OF:
        _LEAF_OF.append(leaf)
    return _LEAF_OF.index(leaf)


class Into(NamedTuple):
    """Where one module writes: its rows begin at ``first``."""

    outputs: Buffer | None
    grads: Buffer | None
    first: int


def _hook(outputs: Buffer | None, grads: Buffer | None, first: int) -> Callable[[nn.Module, Any, Any], Any]:
    into = Into(outputs, grads, first)

    def after(module: nn.Module, args: Any, output: Any) -> Any:
        if not torch.is_grad_enabled():
            return None
        watched = _seen(output, (), [], into)
        return None if grads is None else watched

    return after


def _seen(value: Any, leaf: Leaf, taken: list[Leaf], into: Into) -> Any:
    """Measures a value; rebuilds it around its tensors where their gradients are watched."""
    if isinstance(value, Tensor):
        return _measured(value, leaf, taken, into)
    alone = into.grads is None
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [_seen(getattr(value, key), (*leaf, key), taken, into) for key in value._fields]
        return value if alone else type(value)(*parts)
    if type(value) in (tuple, list):
        parts = [_seen(part, (*leaf, i), taken, into) for i, part in enumerate(value)]
        return value if alone else type(value)(parts)
    if isinstance(value, dict):
        items = {key: _seen(part, (*leaf, key), taken, into) for key, part in value.items()}
        if type(value) is dict or alone:
            return value if alone else items
        _missed(leaf, into)  # its gradients: what else such a class keeps is not known, so it is not made anew
    elif not isinstance(value, _NOTHING):
        _missed(leaf, into)
    return value


def _measured(value: Tensor, leaf: Leaf, taken: list[Leaf], into: Into) -> Tensor:
    if not value.is_floating_point() or value.numel() == 0:
        return value
    if len(taken) == _LEAVES:
        _missed(leaf, into)
        return value
    row, number = into.first + len(taken), _number(leaf)
    taken.append(leaf)
    if into.outputs is not None:
        _add(into.outputs, row, value, number)
    return value if into.grads is None or not value.requires_grad else _watched(value, into.grads, row, number)


def _missed(leaf: Leaf, into: Into) -> None:
    for buffer in (into.outputs, into.grads):
        if buffer is not None:
            buffer.rows[into.first, _MISSED].fill_(_number(leaf) + 1.0)


def _watched(value: Tensor, grads: Buffer, row: int, leaf: int) -> Tensor:
    """The same value, whose gradient is added to a row when it comes. What runs eagerly keeps its own tensor."""
    if torch.compiler.is_compiling():
        watched: Tensor = _Watched.apply(value, *grads, row, leaf)
        return watched

    def arrived(grad: Tensor | None) -> None:
        if grad is not None:  # none reached this one of the outputs of a compiled part
            _add(grads, row, grad, leaf)

    value.register_hook(arrived)  # type: ignore[no-untyped-call]  # untyped in torch
    return value


class _Watched(torch.autograd.Function):
    """The identity. A clone, which the compiler drops: a view could not be written to in place by the next module."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, rows: Tensor, clock: Tensor, row: int, leaf: int) -> Tensor:
        ctx.rows, ctx.clock, ctx.row, ctx.leaf = rows, clock, row, leaf
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        _add(Buffer(ctx.rows, ctx.clock), ctx.row, grad, ctx.leaf)
        return grad, None, None, None, None


def _add(buffer: Buffer, row: int, value: Tensor, leaf: int) -> None:
    """Chosen by column and not stacked: so the compiler makes one loop of it, and not one for each column."""
    x, old, tick = value.detach().float(), buffer.rows[row, :_MISSED], buffer.clock.add_(1.0)
    low, high = torch.aminmax(x)
    bad = torch.where(torch.isfinite(low) & torch.isfinite(high), _INF, tick)
    sums = (old + x.numel(), old + x.sum(), old + (x * x).sum())
    column, new = torch.arange(_MISSED, device=old.device), torch.full_like(old, leaf)
    ends = (torch.minimum(old, low), torch.maximum(old, high), torch.minimum(old, tick), torch.minimum(old, bad))
    for i, numbers in enumerate((*sums, *ends)):
        new = torch.where(column == i, numbers, new)
    buffer.rows[row, :_MISSED].copy_(new)
