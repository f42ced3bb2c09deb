"""Where statistics wait on their device: one table, one line (slot) per value seen, read by the host a step later.

Reductions write straight into the table (``out=``), so a value costs three kernels and nothing is copied, allocated or
synchronised. A slot is used once a step; what belongs to one row (micro-batches, shared modules) is merged on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from inspector.monitor.arrival import Array, Arrival

SUM, SQUARE, LOW, HIGH, SHIFT = range(5)
SAMPLE = 1024  # elements a sampled statistic looks at; small tensors are seen whole
_PLAIN = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
_LIMIT = 65536  # slots in one step: a loop that never steps an optimizer must not take memory without end


class Entry(NamedTuple):
    """One value of a row: the slot that holds its numbers, and how many elements it has. row < 0: only a helper."""

    row: int
    slot: int
    n: int
    shifted: bool = False


class Ticket(NamedTuple):
    """What one device measured in one step, on its way to the host."""

    entries: list[Entry]
    numbers: Arrival
    samples: Arrival | None
    sampled: list[tuple[int, int]]  # entry's place, elements sampled
    extras: list[tuple[Callable[[Array], None], Arrival]]

    @property
    def ready(self) -> bool:
        """All copies of one device were begun in order, so the last one tells."""
        last = self.extras[-1][1] if self.extras else self.samples or self.numbers
        return last.ready


class Table:
    """The slots of one device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_cpu = device, device.type == "cpu"
        self.numbers = torch.zeros(256, 5, device=device)
        self.samples: Tensor | None = None
        self.views: list[tuple[Tensor, ...]] = []
        self.used = 0
        self.entries: list[Entry] = []
        self.sampled: list[tuple[int, int]] = []
        self.extras: list[tuple[Callable[[Array], None], Tensor]] = []

    def write(
        self, row: int, value: Tensor, *, careful: bool = False, sample: bool = False, at: int | None = None
    ) -> Entry | None:
        """Reduce a flat real tensor into a slot (a new one, or ``at``); None where none is left.

        careful: subtract the first element before squaring, for values whose mean is far larger than their spread.
        """
        slot = self._take() if at is None else at
        if slot < 0:
            return None
        total, square, low, high, shift = self.views[slot]
        wide = value if value.dtype == torch.float32 else value.float()
        torch.aminmax(wide, out=(low, high))
        if careful:
            shift.copy_(wide[0])
            wide = wide - shift
        torch.sum(wide, 0, out=total)
        if self.on_cpu:
            torch.dot(wide, wide, out=square)
        else:
            torch.linalg.vector_norm(wide, out=square)
            square.square_()
        entry = Entry(row, slot, len(value), careful)
        if at is None:
            self.entries.append(entry)
            if sample:
                self._sample(slot, value)
        return entry

    def write_range(self, value: Tensor) -> Entry | None:
        """Only the smallest and the largest element: enough to know whether all are finite."""
        slot = self._take()
        if slot < 0:
            return None
        wide = value if value.dtype == torch.float32 else value.float()
        torch.aminmax(wide, out=self.views[slot][LOW : HIGH + 1])
        return Entry(-1, slot, 0)

    def alias(self, row: int, entry: Entry) -> None:
        """A row whose value is one that was measured already."""
        self.entries.append(entry._replace(row=row))

    def rescale(self, slot: int, factor: Tensor) -> None:
        """As if the value had been multiplied by ``factor`` (0-dimensional, on this device)."""
        self.numbers[slot] *= torch.stack([factor, factor * factor, factor, factor, factor]).to(self.numbers)

    def extra(self, value: Tensor, receive: Callable[[Array], None]) -> None:
        """Send a small tensor along; ``receive`` gets it on the host when the step is read."""
        self.extras.append((receive, value))

    def flush(self) -> Ticket:
        """Begin the copy to the host and leave the table empty."""
        numbers = Arrival(self.numbers[: self.used])
        samples = None if self.samples is None or not self.sampled else Arrival(self.samples[: self.used])
        extras = [(receive, Arrival(value)) for receive, value in self.extras]
        ticket = Ticket(self.entries, numbers, samples, self.sampled, extras)
        self.clear()
        return ticket

    def clear(self) -> None:
        self.used, self.entries, self.sampled, self.extras = 0, [], [], []

    def _take(self) -> int:
        slot = self.used
        if slot >= len(self.views):
            if slot >= _LIMIT:
                return -1
            if slot:
                self._grow()
            self.views = [tuple(row.unbind()) for row in self.numbers.unbind()]
        self.used = slot + 1
        return slot

    def _grow(self) -> None:
        self.numbers = torch.cat([self.numbers, torch.zeros_like(self.numbers)])
        if self.samples is not None:
            self.samples = torch.cat([self.samples, torch.zeros_like(self.samples)])

    def _sample(self, slot: int, value: Tensor) -> None:
        if self.samples is None:
            self.samples = torch.zeros(len(self.numbers), SAMPLE, device=self.device)
        n = value.numel()
        some = value if n <= SAMPLE else value[:: stride(n)][:SAMPLE]
        self.samples[slot, : some.numel()].copy_(some)
        self.sampled.append((len(self.entries) - 1, some.numel()))


@lru_cache(maxsize=4096)
def stride(n: int) -> int:
    """A step through n elements that falls into no pattern of rows and channels: it has no divisor in common with n."""
    step = n // SAMPLE
    while math.gcd(step, n) > 1:
        step -= 1
    return step


def flat(tensor: Tensor) -> Tensor | None:
    """The elements in any order as a flat tensor without a graph; None for what has no real numbers to reduce.

    Of a sharded tensor the local part; of a sparse gradient the stored values; of complex numbers the magnitudes.
    """
    tensor = tensor.detach()
    if type(tensor) is Tensor and tensor.dtype in _PLAIN and tensor.layout is torch.strided and tensor.is_contiguous():
        return tensor.view(-1) if tensor.numel() and not (tensor.is_meta or tensor.is_nested) else None
    return _awkward(local(tensor))


def _awkward(tensor: Tensor) -> Tensor | None:
    if tensor.layout != torch.strided:
        if tensor.layout != torch.sparse_coo:
            return None
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = tensor.abs()
    if not tensor.is_floating_point() or tensor.is_meta or tensor.is_nested or not tensor.numel():
        return None
    if tensor.is_contiguous():
        return tensor.view(-1)
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1).reshape(-1)
    return tensor.reshape(-1)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
