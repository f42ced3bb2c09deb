"""The reductions of one_pass.c, for float32 numbers in the memory of this process; None where the package was installed
without a C compiler, and then torch reduces. They take addresses, so only what ``is_dense`` may be handed to them."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inspector.monitor.flat import OWN


class OnePass(NamedTuple):
    """``one(address, size, line)`` writes sum, sum of squares, smallest, largest and shift to the line at an address, and
    ``many(addresses, sizes, count, line)`` for several, line after line; both sums are of what exceeds the shift.
    ``squares(addresses, sizes, count)`` is the sum of all squares, ``sample(address, step, count, to)`` copies every step-th
    number. The others work on what was measured: ``merge(lines, slots, n, first, rows, to)`` and
    ``bins(samples, lines, rows, width, taken, offset, bins, counts)``; see one_pass.c."""

    one: Callable[[int, int, int], None]
    many: Callable[[int, int, int, int], None]
    squares: Callable[[int, int, int], float]
    sample: Callable[[int, int, int, int], None]
    merge: Callable[[int, int, int, int, int, int], int]
    bins: Callable[[int, int, int, int, int, int, int, int], None]


_SIGNATURES: dict[str, tuple[Any, str]] = {  # in the order of OnePass: what each answers with, and takes (p: an address)
    "reduce_one": (None, "pip"),
    "reduce": (None, "ppip"),
    "square_sum": (ctypes.c_double, "ppi"),
    "sample": (None, "piip"),
    "merge": (ctypes.c_int, "ppppip"),
    "bins": (None, "ppiipiip"),
}


def _load() -> OnePass | None:
    folder = Path(__file__).parent / "native"  # no package, since what is in it is no module that could be imported
    files = [folder / f"_one_pass{suffix}" for suffix in EXTENSION_SUFFIXES]
    file = next((file for file in files if file.exists()), None)
    try:
        return None if file is None else OnePass(*_functions(ctypes.CDLL(str(file))))
    except (OSError, AttributeError):  # built for another machine, or by another version of this package
        return None


def _functions(library: ctypes.CDLL) -> Iterator[Any]:
    for name, (answer, takes) in _SIGNATURES.items():
        function = getattr(library, f"inspector_{name}")
        function.argtypes = [ctypes.c_void_p if kind == "p" else ctypes.c_int64 for kind in takes]
        function.restype = answer
        yield function


ONE_PASS = _load()
_FLOAT, _STRIDED = torch.float32, torch.strided


def is_dense(tensor: Tensor) -> bool:
    """float32 numbers of this process, one after the other in memory, of a tensor that stands for nothing else."""
    return (  # what most tensors of a model fail last, or not at all, comes last; this is asked of each of them
        type(tensor) in OWN
        and tensor.dtype is _FLOAT
        and tensor.is_cpu
        and tensor.layout is _STRIDED
        and not tensor.is_nested
        and (tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)))
        and not tensor.is_neg()
        and tensor.data_ptr() != 0  # nor empty, nor a zero that has no memory
    )


def addresses(tensors: Sequence[Tensor]) -> tuple[array[int], array[int]]:
    """Where dense tensors are and how many numbers each has, as the functions on several take them."""
    return array("q", [t.data_ptr() for t in tensors]), array("q", [t.numel() for t in tensors])
