"""What the sampled elements of a step tell: how many are zero, their histogram, their median, and how many are saturated."""

from __future__ import annotations

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


def read_samples(ticket: Ticket, dropped: set[str], measure: Measure, found: Found) -> list[tuple[str, list[str], Array]]:
    """Zero fraction and histogram from the sampled elements, calls of one row merged."""
    assert ticket.samples is not None
    at, taken = np.array(ticket.sampled, dtype=np.int64).T
    rows, slots, n, _ = np.array(ticket.entries, dtype=np.int64)[at].T
    hidden = {row for row in set(rows.tolist()) if row < 0 or measure.rows[row][0] in dropped | {"_old"}}
    kept = [i for i in np.argsort(rows, kind="stable").tolist() if int(rows[i]) not in hidden]
    if not kept:
        return []
    rows, n, taken, samples = rows[kept], n[kept], np.ascontiguousarray(taken[kept]), ticket.samples.numpy()[slots[kept]]
    counts = _count(samples, taken) * (n / taken)[:, None]
    first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    counts, rows = np.add.reduceat(counts, first), rows[first]
    found.add_all(rows, "zeros", counts[:, 0] / counts.sum(axis=1))
    half = [i for i, row in enumerate(rows.tolist()) if row in measure.half]
    if half:
        some = np.maximum(counts[half, 1:].sum(axis=1), 1.0)
        found.add_all(rows[half], "subnormal", counts[half, 1:_SUBNORMAL].sum(axis=1) / some)
    _shapes(rows, samples, taken, np.append(first, len(taken)), measure, found)
    kinds: dict[str, list[int]] = {}
    for i, row in enumerate(rows.tolist()):
        kinds.setdefault(measure.rows[row][0], []).append(i)
    counts = np.rint(counts).astype(np.int64)
    return [(kind, [measure.rows[row][1] for row in rows[of].tolist()], counts[of]) for kind, of in kinds.items()]


def _count(samples: Array, taken: Array) -> Array:
    """(rows, bins) how many of the first ``taken`` elements fall into each bin."""
    if ONE_PASS is not None:
        samples, counts = np.ascontiguousarray(samples), np.zeros((len(samples), len(LOG2_BINS)), dtype=np.int64)
        rows, width = samples.shape
        ONE_PASS.bins(samples.ctypes.data, rows, width, taken.ctypes.data, _OFFSET, len(LOG2_BINS), counts.ctypes.data)
        return counts
    none = len(LOG2_BINS)  # a bin for what is no element
    bins = np.where(np.arange(samples.shape[1]) < taken[:, None], log2_bins(samples), none)
    bins += (none + 1) * np.arange(len(bins))[:, None]
    return np.bincount(bins.ravel(), minlength=len(bins) * (none + 1)).reshape(len(bins), none + 1)[:, :none]


def _shapes(rows: Array, samples: Array, taken: Array, ends: Array, measure: Measure, found: Found) -> None:
    """The median magnitude of outputs; of tanh and sigmoid, how many are so near to the ends that the gradient is
    under 2 %. ends: the first sample of each row and, last, their number."""
    outputs = [i for i, row in enumerate(rows.tolist()) if measure.rows[row][0] == "output"]
    whole = [i for i in outputs if ends[i + 1] - ends[i] == 1 and taken[ends[i]] == SAMPLE]
    if whole:
        sizes = samples[ends[whole]]  # a copy, so the rest is done in place
        np.abs(sizes, out=sizes).partition(_MIDDLE, axis=1)
        found.add_all(rows[whole], "median", sizes[:, _MIDDLE].mean(axis=1))
    known = set(whole)
    for i in outputs:
        kind = measure.types.get(int(rows[i]))
        if i not in known or kind in (nn.Tanh, nn.Sigmoid):
            parts = range(int(ends[i]), int(ends[i + 1]))
            sample = np.concatenate([samples[part, : taken[part]] for part in parts])
            if i not in known:
                found.add(int(rows[i]), "median", float(np.median(np.abs(sample))))
            if kind in (nn.Tanh, nn.Sigmoid):
                distance = np.abs(sample) > 0.99 if kind is nn.Tanh else np.abs(sample - 0.5) > 0.495
                found.add(int(rows[i]), "saturated", float(distance.mean()))


def log2_bins(values: Array) -> Array:
    """The bin of LOG2_BINS that each float32 belongs to, read off its exponent bits."""
    exponent = (np.ascontiguousarray(values, dtype=np.float32).view(np.int32) >> 23) & 0xFF
    bins = np.clip(exponent - 127 + _OFFSET, 1, len(LOG2_BINS) - 2)
    return np.where(exponent == 0xFF, len(LOG2_BINS) - 1, np.where(values == 0, 0, bins))
