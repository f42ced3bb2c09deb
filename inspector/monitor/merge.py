"""From slots to statistics, on the host and in float64: slots of one row are merged by the parallel-variance formula.

A spread that float32 could not resolve (mean far larger than spread) is absent rather than wrong; the row is then
measured the careful way from the next step on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from inspector.monitor.arrival import Array
from inspector.monitor.table import HIGH, LOW, SHIFT, SQUARE, SUM, Entry, Ticket

LEAN = ("n", "mean", "rms", "std", "min", "max", "absmax", "nan", "inf")
_CAREFUL, _HOPELESS = 30.0, 300.0  # |mean| / std from which float32 squares lose the spread a little, and altogether


class Merged(NamedTuple):
    """One line for each row that was measured: rows (R,), values and present (R, len(LEAN)); ``careful``: rows whose
    spread needs shifted squares."""

    rows: Array
    values: Array
    present: Array
    careful: Array


class Layout(NamedTuple):
    """Where the numbers of a ticket are, in order of row: the same at each step, so it is worked out once."""

    slots: Array
    n: Array  # elements of each part, that is of each slot
    shifted: Array  # was it shifted before squaring?
    rows: Array
    ends: Array  # the first part of each row and, last, the number of parts

    @property
    def first(self) -> Array:
        """The first part of each row."""
        return self.ends[:-1]


def layout_of(entries: Sequence[Entry]) -> Layout:
    return _layout(tuple(entries))


@lru_cache(maxsize=8)
def _layout(entries: tuple[Entry, ...]) -> Layout:
    table = np.array([entry for entry in entries if entry[0] >= 0], dtype=np.int64).reshape(-1, 4)
    rows, slots, n, shifted = np.ascontiguousarray(table[np.argsort(table[:, 0], kind="stable")].T)
    first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]][: len(rows)])
    ends = np.append(first, len(n)).astype(np.int64)
    return Layout(slots, n.astype(np.float64), shifted.astype(np.bool_), rows[first], ends)


def merge(ticket: Ticket) -> Merged:
    """The statistics of every row in a ticket, in order of row number."""
    layout = layout_of(ticket.entries)
    if not len(layout.rows):
        empty = np.zeros((0, len(LEAN)))
        return Merged(layout.rows, empty, empty.astype(bool), layout.rows)
    numbers = ticket.numbers.numpy()[layout.slots].astype(np.float64)
    with np.errstate(all="ignore"):
        return _merge(layout, numbers)


def _merge(layout: Layout, numbers: Array) -> Merged:
    (_, n, shifted, rows, _), first = layout, layout.first
    part = numbers[:, SUM] / n
    part_mean = np.where(shifted, numbers[:, SHIFT], 0.0) + part
    part_variance = numbers[:, SQUARE] / n - part**2
    if len(first) == len(n):
        total, mean, spread, low, high = n, part_mean, part_variance, numbers[:, LOW], numbers[:, HIGH]
    else:
        group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(n)]))
        total = np.add.reduceat(n, first)
        mean = np.add.reduceat(n * part_mean, first) / total
        spread = np.add.reduceat(n * (part_variance + (part_mean - mean[group]) ** 2), first) / total
        low, high = np.minimum.reduceat(numbers[:, LOW], first), np.maximum.reduceat(numbers[:, HIGH], first)
        shifted = np.logical_and.reduceat(shifted, first)
    std = np.sqrt(np.maximum(spread, 0.0))
    rms = np.sqrt(np.maximum(spread, 0.0) + mean**2)
    absmax = np.maximum(np.abs(low), np.abs(high))
    nan, inf = np.isnan(absmax).astype(float), np.isinf(absmax).astype(float)
    values = np.stack([total, mean, rms, std, low, high, absmax, nan, inf], axis=1)
    return Merged(rows, values, *_trust(values, rows, shifted))


def _trust(values: Array, rows: Array, shifted: Array) -> tuple[Array, Array]:
    """Which numbers float32 could hold: squares over- and underflow, and a large mean hides a small spread."""
    _, _, rms, std, _, _, absmax, nan, inf = values.T
    squares = np.isfinite(rms) & ((rms > 1e-17) | (absmax == 0)) | (nan + inf > 0)
    ratio, constant = _mean_to_spread(values), _is_constant(values)
    present = np.ones(values.shape, dtype=bool)
    present[:, LEAN.index("rms")] = squares
    present[:, LEAN.index("std")] = squares & (shifted | spread_is_told(values))
    values[:, LEAN.index("std")] = np.where(constant, 0.0, std)
    return present, rows[(ratio > _CAREFUL) & ~constant]


def spread_is_told(values: Array) -> Array:
    """(rows,) is the spread large enough beside the mean, though nothing was subtracted before squaring?"""
    return (_mean_to_spread(values) < _HOPELESS) | _is_constant(values)


def _mean_to_spread(values: Array) -> Array:
    std = values[:, LEAN.index("std")]
    return np.abs(values[:, LEAN.index("mean")]) / np.where(std > 0, std, 1e-30)


def _is_constant(values: Array) -> Array:
    return np.asarray(values[:, LEAN.index("min")] == values[:, LEAN.index("max")])
