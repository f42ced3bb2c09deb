"""What a run costs, counted below autograd where no fused layer can hide it: multiply-adds, bytes kept for backward, and
the most memory in use at one time.

Every operation that the run dispatches is seen; one without a formula adds nothing and is named, so that a total is
known to be whole or a lower bound.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from inspector.tensors import nbytes, walk

# Operations that only move or make numbers; which ones are views PyTorch knows.
_MOVES = """clone copy_ _to_copy empty empty_like empty_strided new_empty zeros zeros_like new_zeros ones ones_like new_ones
full full_like new_full fill_ zero_ arange scalar_tensor lift_fresh item _local_scalar_dense cat stack split_with_sizes
unsafe_split unsafe_chunk select_scatter slice_scatter index index_select gather embedding constant_pad_nd flip roll repeat
tril triu masked_fill masked_fill_ resize_ set_ _unsafe_view _reshape_copy _pack_padded_sequence"""
_NO_ARITHMETIC = frozenset(_MOVES.split())


class MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is untyped
    """While open, adds each operation's multiply-adds to ``place()``; ``counted`` and ``skipped`` count operations."""

    def __init__(self, add: Callable[[int], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.add, self.total = add, 0
        self.counted: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, formula = func._overloadpacket.__name__, _formula(func)
        if formula is None and not torch.is_grad_enabled():
            with self:  # without autograd whole layers arrive here; they are taken apart, as it does otherwise
                parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        output = func(*args, **(kwargs or {}))
        if formula is not None:
            self._count(formula(output, *args, **(kwargs or {})))
            self.counted[name] += 1
        elif not (func.is_view or name in _NO_ARITHMETIC):
            self.skipped[name] += 1
        return output

    def _count(self, multiply_adds: int) -> None:
        self.total += multiply_adds
        self.add(multiply_adds)


def _formula(func: Any) -> Callable[..., int] | None:
    packet = func._overloadpacket
    own = _OWN.get(packet.__name__)
    if own is not None or packet not in flop_registry:
        return own
    return lambda output, *args, **kwargs: int(flop_registry[packet](*args, **kwargs, out_val=output)) // 2


def _recurrent(rows: int, weights: list[Tensor]) -> int:
    """Each time step of each sample passes every weight matrix once."""
    return rows * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _rows(input: Tensor) -> int:
    return input.numel() // max(input.shape[-1], 1)


def _attention(output: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> int:
    """Every query with every key, and the weighted sum of the values; a mask saves nothing."""
    return query.numel() // max(query.shape[-1], 1) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_OWN: dict[str, Callable[..., int]] = {  # what PyTorch's own table of formulas lacks
    "mkldnn_rnn_layer": lambda out, input, w0, w1, *rest, **kw: _recurrent(_rows(input), [w0, w1]),
    "_cudnn_rnn": lambda out, input, weight, *rest, **kw: _recurrent(_rows(input), weight),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "mv": lambda out, matrix, vector: matrix.numel(),
    "addmv": lambda out, bias, matrix, vector, **kw: matrix.numel(),
    "dot": lambda out, a, b: a.numel(),
    "vdot": lambda out, a, b: a.numel(),
}


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is untyped
    """While open, ``peak`` is the most bytes that tensors made inside have held at one time; what was there before, and
    what an operation uses inside itself, do not count. The same on every machine."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not func.is_view:  # a view looks into memory that is held or was there before
            for _, tensor in walk(output):
                self._hold(tensor, func._schema.is_mutable)
        return output

    def _hold(self, tensor: Tensor, changed: bool) -> None:
        place = _storage(tensor)
        if place < 0 or place in self._held or changed:
            return
        storage = tensor.untyped_storage()
        self._held[place] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, place).atexit = False

    def _free(self, place: int) -> None:
        self.live -= self._held.pop(place, 0)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """A list that holds, once the block is over, the most bytes that it used at one time: of an accelerator by its own
    account, on the CPU those of tensors."""
    found: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.append(torch.cuda.max_memory_allocated(device) - before)
        return
    with PeakMemory() as mode:
        yield found
    found.append(mode.peak)


@contextmanager
def kept_for_backward(known: nn.Module, add: Callable[[int], None]) -> Iterator[None]:
    """Tell ``add`` the bytes of each memory that autograd keeps while the block runs, but for parameters and buffers."""
    seen = {_storage(t): t for t in [*known.parameters(), *known.buffers()]}  # held, so that no memory is used twice

    def pack(tensor: Tensor) -> Tensor:
        place = _storage(tensor)
        if place not in seen:
            seen[place] = tensor
            add(_bytes(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


def _storage(tensor: Tensor) -> int:
    """Which memory a tensor lies in; a sparse one, which has several, stands for itself."""
    if tensor.layout != torch.strided:
        return -id(tensor)
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    """A view keeps the whole memory that it looks into."""
    return nbytes(tensor) if tensor.layout != torch.strided else tensor.untyped_storage().nbytes()
