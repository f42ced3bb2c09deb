"""From slots to statistics, on the host and in float64: slots of one row are merged by the parallel-variance formula.

A spread that float32 could not resolve (mean far larger than spread) is absent rather than wrong; the row is then
measured the careful way from the next step on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from inspector.monitor.arrival import Array
from inspector.monitor.table import HIGH, LOW, SHIFT, SQUARE, SUM, Ticket

LEAN = ("n", "mean", "rms", "std", "min", "max", "absmax", "nan", "inf")
_CAREFUL, _HOPELESS = 30.0, 300.0  # |mean| / std from which float32 squares lose the spread a little, and altogether


class Merged(NamedTuple):
    """One line for each row that was measured: rows (R,), values and present (R, len(LEAN)); ``careful``: rows whose
    spread needs shifted squares."""

    rows: Array
    values: Array
    present: Array
    careful: Array


def merge(ticket: Ticket) -> Merged:
    """The statistics of every row in a ticket, in order of row number."""
    entries = np.array(ticket.entries, dtype=np.int64).reshape(-1, 4)
    entries = entries[entries[:, 0] >= 0]
    numbers = ticket.numbers.numpy().astype(np.float64)[entries[:, 1]]
    numbers[:, SHIFT] = np.where(entries[:, 3], numbers[:, SHIFT], 0.0)
    order = np.argsort(entries[:, 0], kind="stable")
    rows, n, numbers = entries[order, 0], entries[order, 2].astype(np.float64), numbers[order]
    first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if len(rows) else np.array([], dtype=np.int64)
    shifted = entries[order, 3].astype(np.bool_)
    with np.errstate(all="ignore"):
        return _merge(rows[first], first, n, numbers, shifted)


def _merge(rows: Array, first: Array, n: Array, numbers: Array, shifted: Array) -> Merged:
    if not len(rows):
        empty = np.zeros((0, len(LEAN)))
        return Merged(rows, empty, empty.astype(bool), rows)
    total = np.add.reduceat(n, first)
    group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(n)]))
    part_mean = numbers[:, SHIFT] + numbers[:, SUM] / n
    mean = np.add.reduceat(n * part_mean, first) / total
    part_variance = numbers[:, SQUARE] / n - (numbers[:, SUM] / n) ** 2
    spread = np.add.reduceat(n * (part_variance + (part_mean - mean[group]) ** 2), first) / total
    low, high = np.minimum.reduceat(numbers[:, LOW], first), np.maximum.reduceat(numbers[:, HIGH], first)
    std = np.sqrt(np.maximum(spread, 0.0))
    rms = np.sqrt(np.maximum(spread, 0.0) + mean**2)
    absmax = np.maximum(np.abs(low), np.abs(high))
    nan, inf = np.isnan(absmax).astype(float), np.isinf(absmax).astype(float)
    values = np.stack([total, mean, rms, std, low, high, absmax, nan, inf], axis=1)
    return Merged(rows, values, *_trust(values, rows, np.logical_and.reduceat(shifted, first)))


def _trust(values: Array, rows: Array, shifted: Array) -> tuple[Array, Array]:
    """Which numbers float32 could hold: squares over- and underflow, and a large mean hides a small spread."""
    _, mean, rms, std, _, _, absmax, nan, inf = values.T
    squares = np.isfinite(rms) & ((rms > 1e-17) | (absmax == 0)) | (nan + inf > 0)
    ratio = np.abs(mean) / np.where(std > 0, std, 1e-30)
    constant = values[:, LEAN.index("min")] == values[:, LEAN.index("max")]
    present = np.ones(values.shape, dtype=bool)
    present[:, LEAN.index("rms")] = squares
    present[:, LEAN.index("std")] = squares & (shifted | (ratio < _HOPELESS) | constant)
    values[:, LEAN.index("std")] = np.where(constant, 0.0, std)
    return present, rows[(ratio > _CAREFUL) & ~constant]
