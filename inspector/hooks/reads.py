"""What a change reads from around it, to tell later whether it would still do the same: a function in a loop reads the
loop's variable when it is called, and a checkpoint may call it again when the loop is over."""

from __future__ import annotations

import dis
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype)  # what is the same if it is equal


class Reads:
    """The names that a change (a tensor, or a function) reads, with what they stand for now. Keeps none of that alive."""

    def __init__(self, change: Any) -> None:
        self.change = change
        self._then = {name: _marked(value) for name, value in _outside(change).items()}

    def set_anew(self) -> list[str]:
        """The names that stand for something else by now, and tensors that were written to."""
        now = _outside(self.change)
        return [name for name, same in self._then.items() if name not in now or not same(now[name])]


def _outside(change: Any) -> dict[str, Any]:
    if isinstance(change, Tensor):
        return {"the tensor": change}
    if isinstance(change, partial):
        given = {f"argument {i}": value for i, value in enumerate(change.args)}
        return {**_outside(change.func), **given, **change.keywords}
    function = getattr(change, "__func__", change)
    if not isinstance(function, FunctionType):
        return {}
    return {**dict(_globals(function)), **dict(_cells(function))}


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Not inspect.getclosurevars: that takes ``t.mean`` for a reading of ``mean``, and stumbles over empty cells."""
    for step in dis.get_instructions(function):
        if step.opname == "LOAD_GLOBAL" and step.argval in function.__globals__:
            yield step.argval, function.__globals__[step.argval]


def _cells(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing in it yet, or no more
            yield name, cell.cell_contents


def _marked(value: Any) -> Callable[[Any], bool]:
    """Whether another value is the same one."""
    if isinstance(value, _PLAIN):
        return lambda now: now is value or (type(now) is type(value) and now == value)
    version = _version(value)
    try:
        there = weakref.ref(value)
    except TypeError:  # a list, a tuple, a slice
        return partial(_same_id, id(value))
    return lambda now: there() is now and _version(now) == version


def _same_id(then: int, now: Any) -> bool:
    return id(now) == then


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0
