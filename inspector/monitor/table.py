"""Where statistics wait on their device: one table, one line (slot) per value seen, read by the host a step later.

Reductions write straight into the table, so nothing is copied, allocated or synchronised: on the CPU one pass of our own
where it was compiled, else three kernels of torch (``out=``). A slot is used once a step; what belongs to one row
(micro-batches, shared modules) is merged on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from inspector.monitor.arrival import Array, Arrival
from inspector.monitor.one_pass import ONE_PASS, OnePass, addresses, is_dense

SUM, SQUARE, LOW, HIGH, SHIFT = range(5)
SAMPLE = 1024  # elements a sampled statistic looks at; small tensors are seen whole
_LINE = 5 * 4  # bytes of one slot
_LIMIT = 65536  # slots in one step: a loop that never steps an optimizer must not take memory without end

Entry = tuple[int, int, int, bool]  # row (negative: forgotten), slot of its numbers, elements, shifted before squaring


class Place(NamedTuple):
    """Where a value's numbers are: a slot, of which only LOW and HIGH are written if ``n`` is 0."""

    table: Table
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

    @property
    def marks(self) -> list[Entry]:
        return self.entries


class Table:
    """The slots of one device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_cpu = device, device.type == "cpu"
        self.numbers = torch.zeros(256, 5, device=device)
        self.start, self.lines = self._on_host()
        self.one_pass: OnePass | None = ONE_PASS if self.on_cpu else None
        self.samples: Tensor | None = None
        self.views: list[tuple[Tensor, ...]] = []
        self.ranges: tuple[Tensor, ...] = ()
        self.used = 0
        self.entries: list[Entry] = []
        self.many: tuple[int, Sequence[int], Sequence[int], list[Entry]] = 0, [], [], []  # the last ones of write_all_dense
        self.sampled: list[tuple[int, int]] = []
        self.extras: list[tuple[Callable[[Array], None], Tensor]] = []

    def _on_host(self) -> tuple[int, Array | None]:
        """Where the lines are, and they as an array, if that is on the host."""
        return (self.numbers.data_ptr(), self.numbers.numpy()) if self.on_cpu else (0, None)

    def write(
        self, row: int, value: Tensor, careful: bool = False, sample: bool = False, positive_of: Place | None = None
    ) -> Place | None:
        """Reduce a flat real tensor into a new slot; None where none is left.

        careful: subtract the first element before squaring, for values whose mean is far larger than their spread.
        positive_of: the value is the positive part of one that was measured, whose range tells its own.
        """
        wide = value if value.dtype is torch.float32 else value.float()
        if self.one_pass is not None and is_dense(wide):
            return self.write_dense(row, wide, sample)
        slot = self._take()
        if slot < 0:
            return None
        total, square, low, high, shift = self.views[slot]
        if positive_of is not None and positive_of.n == wide.numel():
            torch.clamp(self.ranges[positive_of.slot], min=0.0, out=self.ranges[slot])
        else:
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
        n = value.numel()
        if sample:
            self._sample(slot, value, n)
        self.entries.append((row, slot, n, careful))
        return Place(self, slot, n, careful)

    def write_dense(self, row: int, tensor: Tensor, sample: bool = False) -> Place | None:
        """``write`` for what is known to be dense: in one pass, with no view made of it."""
        assert self.one_pass is not None
        slot, n = self._take(), tensor.numel()
        if slot < 0:
            return None
        self.one_pass.one(tensor.data_ptr(), n, self._line(slot))
        if sample:
            self._sample_dense(slot, len(self.entries), tensor.data_ptr(), n)
        self.entries.append((row, slot, n, True))
        return Place(self, slot, n, True)

    def write_all_dense(self, rows: Sequence[int], tensors: Sequence[Tensor], sample: bool = False) -> None:
        """``write_dense`` for many, in one call."""
        assert self.one_pass is not None
        first = self._take(len(rows))
        if first < 0:
            return
        where, sizes = addresses(tensors)
        self.one_pass.many(where.buffer_info()[0], sizes.buffer_info()[0], len(rows), self._line(first))
        if sample:
            for i, (at, n) in enumerate(zip(where, sizes, strict=True)):
                self._sample_dense(first + i, len(self.entries) + i, at, n)
        if self.many[:2] != (first, rows) or self.many[2] != sizes:  # else as in the last step
            many = [(row, first + i, n, True) for i, (row, n) in enumerate(zip(rows, sizes, strict=True))]
            self.many = first, rows, sizes, many
        self.entries += self.many[3]

    def write_all(self, rows: Sequence[int], values: Tensor, sample: bool = False) -> None:
        """Reduce each line of a matrix, of at most SAMPLE columns, in one go; always the careful way."""
        first, (count, n) = self._take(len(rows)), values.shape
        if first < 0:
            return
        wide = values.float()
        total, square, low, high, shift = self.numbers[first : first + count].unbind(1)
        torch.aminmax(wide, dim=1, out=(low, high))
        shift.copy_(wide[:, 0])
        wide_again = wide - wide[:, :1]
        torch.sum(wide_again, 1, out=total)
        torch.sum(wide_again.square_(), 1, out=square)
        if sample:
            self._room()[first : first + count, :n] = wide
            self.sampled += [(len(self.entries) + i, n) for i in range(count)]
        self.entries += [(row, first + i, n, True) for i, row in enumerate(rows)]

    def write_range(self, value: Tensor) -> Place | None:
        """Only the smallest and the largest element."""
        slot = self._take()
        if slot < 0:
            return None
        torch.aminmax(value if value.dtype is torch.float32 else value.float(), out=self.views[slot][LOW : HIGH + 1])
        return Place(self, slot, 0)

    def alias(self, row: int, place: Place) -> None:
        """A row whose value is one that was measured already."""
        self.entries.append((row, place.slot, place.n, place.shifted))

    def forget(self, start: int, stop: int) -> None:
        """Entries that turned out not to count: a closure was run once more."""
        self.entries[start:stop] = [(-1, slot, n, shifted) for _, slot, n, shifted in self.entries[start:stop]]

    def rescale(self, first: int, factor: Tensor) -> None:
        """As if all values since slot ``first`` had been multiplied by ``factor`` (0-dimensional, on this device)."""
        self.numbers[first : self.used] *= torch.stack([factor, factor * factor, factor, factor, factor]).to(self.numbers)
        if self.samples is not None:
            self.samples[first : self.used] *= factor

    def extra(self, value: Tensor, receive: Callable[[Array], None]) -> None:
        """Send a small tensor along; ``receive`` gets it on the host when the step is read."""
        self.extras.append((receive, value))

    def flush(self) -> Ticket:
        """Begin the copy to the host and leave the table empty."""
        numbers = Arrival(self.numbers[: self.used] if self.lines is None else self.lines[: self.used])
        samples = None if self.samples is None or not self.sampled else Arrival(self.samples[: self.used])
        extras = [(receive, Arrival(value)) for receive, value in self.extras]
        ticket = Ticket(self.entries, numbers, samples, self.sampled, extras)
        self.clear()
        return ticket

    def clear(self) -> None:
        self.used, self.entries, self.sampled, self.extras = 0, [], [], []

    def _take(self, count: int = 1) -> int:
        slot = self.used
        if slot + count > len(self.views):  # the lists of views are made once, and again when the table grows
            if slot + count > _LIMIT:
                return -1
            while slot + count > len(self.numbers):
                self._grow()
            self.views = [tuple(row.unbind()) for row in self.numbers.unbind()]
            self.ranges = self.numbers[:, LOW : HIGH + 1].unbind()
        self.used = slot + count
        return slot

    def _grow(self) -> None:
        self.numbers = torch.cat([self.numbers, torch.zeros_like(self.numbers)])
        self.start, self.lines = self._on_host()
        if self.samples is not None:
            self.samples = torch.cat([self.samples, torch.zeros_like(self.samples)])

    def _room(self) -> Tensor:
        if self.samples is None:
            self.samples = torch.zeros(len(self.numbers), SAMPLE, device=self.device)
        return self.samples

    def _sample(self, slot: int, value: Tensor, n: int) -> None:
        some = value if n <= SAMPLE else value.as_strided((SAMPLE,), (stride(n),))
        self._room()[slot, : min(n, SAMPLE)].copy_(some)
        self.sampled.append((len(self.entries), min(n, SAMPLE)))

    def _line(self, slot: int) -> int:
        """The address of a slot."""
        return self.start + slot * _LINE

    def _sample_dense(self, slot: int, entry: int, at: int, n: int) -> None:
        assert self.one_pass is not None
        step, taken = (1, n) if n <= SAMPLE else (stride(n), SAMPLE)
        self.one_pass.sample(at, step, taken, self._room().data_ptr() + slot * SAMPLE * 4)
        self.sampled.append((entry, taken))


@lru_cache(maxsize=4096)
def stride(n: int) -> int:
    """A step through n elements that falls into no pattern of rows and channels: it has no divisor in common with n."""
    step = n // SAMPLE
    while math.gcd(step, n) > 1:
        step -= 1
    return step
