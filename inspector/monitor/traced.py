"""The hooks of a compiled model that the compiler takes into its graph: what they write, and where.

Python state would break the graph, so every row is laid out beforehand. Tensor hooks do not trace; a function that
answers with what it is given, and writes in its backward, does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inspector.tensors import Leaf

LEAVES = 4  # rows for each module: the first tensors of its output
INF = float("inf")
EMPTY = (0.0, 0.0, 0.0, INF, -INF, INF, INF, 0.0, 0.0)
N, FIRST, BAD, LEAF, MISSED = 0, 5, 6, 7, 8  # after n: sum, its square, smallest, largest, ticks, numbers of leaves
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


class Buffer(NamedTuple):
    """Where hooks write: rows of sums, and a clock that each write moves on."""

    rows: Tensor
    clock: Tensor


LEAF_OF: list[Leaf] = [()]  # the number of a leaf -> where in an output it is


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator,unused-ignore]  # untyped in torch
def _number(leaf: Leaf) -> int:
    """Called while the compiler traces. The same for all models of a process, because they may share the code."""
    if leaf not in LEAF_OF:
        LEAF_OF.append(leaf)
    return LEAF_OF.index(leaf)


class Into(NamedTuple):
    """Where one module writes: its rows begin at ``first``."""

    outputs: Buffer | None
    grads: Buffer | None
    first: int


def traced_hook(outputs: Buffer | None, grads: Buffer | None, first: int) -> Callable[[nn.Module, Any, Any], Any]:
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
    if len(taken) == LEAVES:
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
            buffer.rows[into.first, MISSED].fill_(_number(leaf) + 1.0)


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
    x, old, tick = value.detach().float(), buffer.rows[row, :MISSED], buffer.clock.add_(1.0)
    low, high = torch.aminmax(x)
    bad = torch.where(torch.isfinite(low) & torch.isfinite(high), INF, tick)
    sums = (old + x.numel(), old + x.sum(), old + (x * x).sum())
    column, new = torch.arange(MISSED, device=old.device), torch.full_like(old, leaf)
    ends = (torch.minimum(old, low), torch.maximum(old, high), torch.minimum(old, tick), torch.minimum(old, bad))
    for i, numbers in enumerate((*sums, *ends)):
        new = torch.where(column == i, numbers, new)
    buffer.rows[row, :MISSED].copy_(new)
