"""What the sampled elements of a step tell: how many are zero, their histogram, their median, and how many are saturated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import nn

from inspector.monitor.arrival import Array
from inspector.monitor.measure import Measure
from inspector.monitor.one_pass import ONE_PASS
from inspector.monitor.table import SAMPLE, Ticket
from inspector.monitor.units import Found
from inspector.records.history import LOG2_BINS

_SUBNORMAL = LOG2_BINS.index("2**-14")  # the first bin that float16 holds in full precision
_MIDDLE = (SAMPLE // 2 - 1, SAMPLE // 2)
_OFFSET = 1 - int(LOG2_BINS[1].removeprefix("2**"))  # from an exponent to its bin


class Plan(NamedTuple):
    """Where the samples of a step are and what they belong to. Steps are alike, so it is worked out once."""

    slots: Array  # of each sample; those of one row follow each other
    taken: Array  # elements of each sample
    weight: Array  # (samples, 1): how many elements one that was taken stands for
    first: Array  # the first sample of each row
    rows: Array
    kinds: list[tuple[str, list[str], Array]]  # kind, names, which rows
    whole: Array  # rows of outputs with one sample of the usual size, by place
    others: list[tuple[int, type[nn.Module] | None, list[tuple[int, int]]]]  # row, type, slots and elements of its samples


def read_samples(ticket: Ticket, dropped: set[str], measure: Measure, found: Found) -> list[tuple[str, list[str], Array]]:
    """Zero fraction and histogram from the sampled elements, calls of one row merged."""
    assert ticket.samples is not None
    key = ticket.entries, ticket.sampled, dropped
    if measure.samples is None or measure.samples[0] != key:
        measure.samples = key, _plan(ticket, dropped, measure)
    plan: Plan = measure.samples[1]
    if not len(plan.rows):
        return []
    samples = np.ascontiguousarray(ticket.samples.numpy())
    counts = np.add.reduceat(_count(samples, plan.slots, plan.taken) * plan.weight, plan.first)
    found.add_all(plan.rows, "zeros", counts[:, 0] / counts.sum(axis=1))
    half = [i for i, row in enumerate(plan.rows.tolist()) if row in measure.half] if measure.half else []
    if half:
        some = np.maximum(counts[half, 1:].sum(axis=1), 1.0)
        found.add_all(plan.rows[half], "subnormal", counts[half, 1:_SUBNORMAL].sum(axis=1) / some)
    _shapes(samples, plan, found)
    counts = np.rint(counts).astype(np.int64)
    return [(kind, names, counts[of]) for kind, names, of in plan.kinds]


def _plan(ticket: Ticket, dropped: set[str], measure: Measure) -> Plan:
    at, taken = np.array(ticket.sampled, dtype=np.int64).T
    rows, slots, n, _ = np.array(ticket.entries, dtype=np.int64)[at].T
    hidden = {row for row in set(rows.tolist()) if row < 0 or measure.rows[row][0] in dropped | {"_old"}}
    kept = [i for i in np.argsort(rows, kind="stable").tolist() if int(rows[i]) not in hidden]
    rows, slots, taken, weight = rows[kept], slots[kept], taken[kept], (n[kept] / taken[kept])[:, None]
    first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]][: len(rows)])
    ends, rows = np.append(first, len(taken)).tolist(), rows[first]
    kinds: dict[str, list[int]] = {}
    for i, row in enumerate(rows.tolist()):
        kinds.setdefault(measure.rows[row][0], []).append(i)
    named = [(kind, [measure.rows[row][1] for row in rows[of].tolist()], np.array(of)) for kind, of in kinds.items()]
    whole, others = [], []
    for i in kinds.get("output", []):
        row, parts = int(rows[i]), range(ends[i], ends[i + 1])
        usual, kind = len(parts) == 1 and taken[ends[i]] == SAMPLE, measure.types.get(int(rows[i]))
        if usual:
            whole.append(i)
        if not usual or kind in (nn.Tanh, nn.Sigmoid):
            others.append((row, kind, [(int(slots[part]), int(taken[part])) for part in parts]))
    return Plan(slots, taken, weight, first, rows, named, np.array(whole, dtype=np.int64), others)


def _count(samples: Array, slots: Array, taken: Array) -> Array:
    """(slots, bins) how many of the first ``taken`` elements of each line of ``samples`` fall into each bin."""
    if ONE_PASS is not None:
        counts, (rows, width) = np.zeros((len(slots), len(LOG2_BINS)), dtype=np.int64), (len(slots), samples.shape[1])
        given = (samples.ctypes.data, slots.ctypes.data, rows, width, taken.ctypes.data)
        ONE_PASS.bins(*given, _OFFSET, len(LOG2_BINS), counts.ctypes.data)
        return counts
    none = len(LOG2_BINS)  # a bin for what is no element
    bins = np.where(np.arange(samples.shape[1]) < taken[:, None], log2_bins(samples[slots]), none)
    bins += (none + 1) * np.arange(len(bins))[:, None]
    return np.bincount(bins.ravel(), minlength=len(bins) * (none + 1)).reshape(len(bins), none + 1)[:, :none]


def _shapes(samples: Array, plan: Plan, found: Found) -> None:
    """The median magnitude of outputs; of tanh and sigmoid, how many are so near to the ends that the gradient is
    under 2 %."""
    if len(plan.whole):
        sizes = samples[plan.slots[plan.first[plan.whole]]]  # a copy, so the rest is done in place
        np.abs(sizes, out=sizes).partition(_MIDDLE, axis=1)
        found.add_all(plan.rows[plan.whole], "median", sizes[:, _MIDDLE].mean(axis=1))
    known = set(plan.rows[plan.whole].tolist()) if plan.others else set()
    for row, kind, parts in plan.others:
        sample = np.concatenate([samples[slot, :taken] for slot, taken in parts])
        if row not in known:
            found.add(row, "median", float(np.median(np.abs(sample))))
        if kind in (nn.Tanh, nn.Sigmoid):
            distance = np.abs(sample) > 0.99 if kind is nn.Tanh else np.abs(sample - 0.5) > 0.495
            found.add(row, "saturated", float(distance.mean()))


def log2_bins(values: Array) -> Array:
    """The bin of LOG2_BINS that each float32 belongs to, read off its exponent bits."""
    exponent = (np.ascontiguousarray(values, dtype=np.float32).view(np.int32) >> 23) & 0xFF
    bins = np.clip(exponent - 127 + _OFFSET, 1, len(LOG2_BINS) - 2)
    return np.where(exponent == 0xFF, len(LOG2_BINS) - 1, np.where(values == 0, 0, bins))
