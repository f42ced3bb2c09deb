"""A measured step on the host: rows become series, samples become shares and histograms, and a NaN gets a birthplace."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from inspector.monitor.arrival import Array
from inspector.monitor.measure import Measure, Step
from inspector.monitor.memory import Memory
from inspector.monitor.merge import LEAN, merge
from inspector.monitor.ranks import Ranks, merge_row, pack
from inspector.monitor.table import HIGH, LOW, Ticket
from inspector.records.history import LOG2_BINS

_SUBNORMAL = LOG2_BINS.index("2**-14")  # the first bin that float16 holds in full precision
_RMS, _ABSMAX = LEAN.index("rms"), LEAN.index("absmax")


class Resolved(NamedTuple):
    """One step as the memory and the folder take it: series and their values, and histograms per kind."""

    step: int
    at: Array
    values: Array
    histograms: list[tuple[str, list[str], Array]]
    grad_norm: float | None  # over all parameters whose gradients were measured


class _Rows:
    """The values of one step by series, as they are found."""

    def __init__(self, memory: Memory, names: list[tuple[str, str]]) -> None:
        self.memory, self.names = memory, names
        self.at: list[Array] = []
        self.values: list[Array] = []
        self.single: list[tuple[int, str, float]] = []
        self.blocks: list[tuple[Array, Array, Array]] = []
        self.squares: list[float] = []  # of the gradients of parameters

    def add(self, row: int, statistic: str, value: float) -> None:
        self.single.append((row, statistic, value))

    def close(self) -> None:
        """The blocks come first: they hold every row, so names are declared in execution order."""
        for block in self.blocks:
            self._add_block(*block)
        places = [self.memory.declare(self.names[row], (statistic,)) for row, statistic, _ in self.single]
        self.at.append(np.array(places, dtype=np.int64))
        self.values.append(np.array([value for _, _, value in self.single], dtype=np.float64))

    def _add_block(self, rows: Array, values: Array, present: Array) -> None:
        firsts = np.array([self.memory.declare(self.names[row], LEAN) for row in rows.tolist()], dtype=np.int64)
        places = firsts[:, None] + np.arange(len(LEAN))
        self.at.append(places[present])
        self.values.append(values[present])


def resolve(step: Step, measure: Measure, memory: Memory) -> Resolved:
    """Statistics of a step; series that are new are declared in ``memory``."""
    found = _Rows(memory, measure.rows)
    histograms: list[tuple[str, list[str], Array]] = []
    for receive, value in [extra for ticket in step.tickets.values() for extra in ticket.extras]:
        receive(value.numpy())
    for ticket in step.tickets.values():
        rms = _block(ticket, step.dropped, measure, found)
        _ratios(rms, measure, found)
        if ticket.samples is not None:
            histograms += _samples(ticket, step.dropped, measure, found)
    measure.units.tell(found.add)
    _logits(step, measure, found)
    born = _births(step, measure)
    if measure.ranks is not None:
        born = _over_ranks(measure.ranks, measure, found, born)
    for row, value in born.items():
        found.add(row, "born", value)
    found.close()
    norm = float(np.sqrt(sum(found.squares))) if found.squares else None
    return Resolved(step.step, np.concatenate(found.at), np.concatenate(found.values), histograms, norm)


def _block(ticket: Ticket, dropped: set[str], measure: Measure, found: _Rows) -> dict[int, float]:
    """The lean statistics; returns the rms of the rows that a ratio of updates needs."""
    merged = merge(ticket)
    measure.learn(set(merged.rows.tolist()), set(merged.careful.tolist()))
    kinds = [measure.rows[row][0] for row in merged.rows.tolist()]
    shown = np.array([not kind.startswith("_") and kind not in dropped for kind in kinds], dtype=np.bool_)
    if shown.any():
        found.blocks.append((merged.rows[shown], merged.values[shown], merged.present[shown]))
    gradients = np.array([kind == "param_grad" and kind not in dropped for kind in kinds], dtype=np.bool_)
    n, rms = merged.values[gradients, LEAN.index("n")], merged.values[gradients, _RMS]
    found.squares += (n * rms**2).tolist()
    wanted = {"update", "_old"} - dropped
    pairs = zip(merged.rows.tolist(), merged.values[:, _RMS].tolist(), strict=True)
    return {row: rms for row, rms in pairs if measure.rows[row][0] in wanted}


def _ratios(rms: dict[int, float], measure: Measure, found: _Rows) -> None:
    """How large the applied update is against the weight it is applied to."""
    for row, update in rms.items():
        kind, name = measure.rows[row]
        old = rms.get(measure.ids.get(("_old", name), -1), 0.0)
        if kind == "update" and old > 0:
            found.add(row, "ratio", update / old)


def _samples(ticket: Ticket, dropped: set[str], measure: Measure, found: _Rows) -> list[tuple[str, list[str], Array]]:
    """Zero fraction and histogram from the sampled elements, calls of one row merged."""
    assert ticket.samples is not None
    samples = ticket.samples.numpy()
    counts: dict[int, Array] = {}
    seen: dict[int, list[Array]] = {}
    for place, taken in ticket.sampled:
        row, slot, n, _ = ticket.entries[place]
        seen.setdefault(row, []).append(samples[slot, :taken])
        bins = np.bincount(log2_bins(samples[slot, :taken]), minlength=len(LOG2_BINS)) * (n / taken)
        counts[row] = counts[row] + bins if row in counts else bins
    for row, parts in seen.items():
        _shape(row, np.concatenate(parts), measure, found)
    kinds: dict[str, tuple[list[str], list[Array]]] = {}
    for row, bins in counts.items():
        kind, name = measure.rows[row]
        if not kind.startswith("_") and kind not in dropped:
            found.add(row, "zeros", bins[0] / bins.sum())
            if row in measure.half:
                found.add(row, "subnormal", bins[1:_SUBNORMAL].sum() / max(bins[1:].sum(), 1.0))
            names, rows = kinds.setdefault(kind, ([], []))
            names.append(name)
            rows.append(np.rint(bins).astype(np.int64))
    return [(kind, names, np.stack(rows)) for kind, (names, rows) in kinds.items()]


def _shape(row: int, sample: Array, measure: Measure, found: _Rows) -> None:
    """The median magnitude; of tanh and sigmoid, how many are so near to the ends that the gradient is under 2 %."""
    kind = measure.types.get(row)
    if measure.rows[row][0] == "output":
        found.add(row, "median", float(np.median(np.abs(sample))))
    if kind is nn.Tanh:
        found.add(row, "saturated", float((np.abs(sample) > 0.99).mean()))
    elif kind is nn.Sigmoid:
        found.add(row, "saturated", float((np.abs(sample - 0.5) > 0.495).mean()))


def _logits(step: Step, measure: Measure, found: _Rows) -> None:
    """The largest magnitude that went into a softmax."""
    for call in step.calls:
        if call.rows and call.inputs and measure.types.get(call.rows[0]) is nn.Softmax:
            place = call.inputs[0]
            range_ = step.tickets[place.table.device].numbers.numpy()[place.entry.slot, (LOW, HIGH)]
            found.add(call.rows[0], "logits", float(np.abs(range_).max()))


def log2_bins(values: Array) -> Array:
    """The bin of LOG2_BINS that each float32 belongs to, read off its exponent bits."""
    exponent = (np.ascontiguousarray(values, dtype=np.float32).view(np.int32) >> 23) & 0xFF
    bins = np.clip(exponent - 127 + 41, 1, len(LOG2_BINS) - 2)
    return np.where(exponent == 0xFF, len(LOG2_BINS) - 1, np.where(values == 0, 0, bins))


def _over_ranks(ranks: Ranks, measure: Measure, found: _Rows, born: dict[int, float]) -> dict[int, float]:
    """The blocks of all ranks in the place of this one's; returns where things were born on any of them."""
    rows = np.concatenate([b[0] for b in found.blocks]) if found.blocks else np.array([], dtype=np.int64)
    values = np.concatenate([b[1] for b in found.blocks]) if found.blocks else np.zeros((0, len(LEAN)))
    everyone = ranks.gather(pack(rows, values, born, measure.rows, measure.sharded))
    parts: dict[float, list[tuple[int, Array]]] = {}
    for rank, packed in enumerate(everyone):
        for part in packed:
            parts.setdefault(float(part[0]), []).append((rank, part))
    found.blocks, found.squares, births = [], [], {}
    for (kind, name), of_row in [(measure.keys[k], p) for k, p in parts.items() if k in measure.keys]:
        row = measure.row(kind, name)
        with np.errstate(all="ignore"):
            merged, birth, worst = merge_row(of_row, kind, ranks.world)
        found.blocks.append((np.array([row]), merged[None], np.ones((1, len(LEAN)), dtype=np.bool_)))
        if not np.isfinite(merged[_ABSMAX]):
            found.add(row, "rank", float(worst))
        if birth >= 0:
            births[row] = birth
        if kind == "param_grad":
            found.squares.append(float(merged[0] * merged[_RMS] ** 2))
    return births


def _births(step: Step, measure: Measure) -> dict[int, float]:
    """Mark the first call whose output is not finite though its inputs are; then the first gradient that is not."""
    bad = {device: _not_finite(ticket) for device, ticket in step.tickets.items()}
    births: dict[int, float] = {}
    if not any(b.any() for b in bad.values()):
        return births
    for call in step.calls:
        broken = [
            row for row, place in zip(call.rows, call.outputs, strict=True) if bad[place.table.device][place.entry.slot]
        ]
        given = any(bad[place.table.device][place.entry.slot] for place in call.inputs)
        for row in broken:
            births[row] = max(births.get(row, 0.0), float(not given))
    if not births and "grad" not in step.dropped:
        births |= _backward_birth(step, measure, bad)
    return births


def _not_finite(ticket: Ticket) -> Array:
    """Per slot: was any element NaN or infinite? Both show in the smallest and the largest."""
    return np.asarray(~np.isfinite(ticket.numbers.numpy()[:, (LOW, HIGH)]).all(axis=1))


def _backward_birth(step: Step, measure: Measure, bad: dict[torch.device, Array]) -> dict[int, float]:
    for device, ticket in step.tickets.items():
        for entry in ticket.entries:
            if measure.rows[entry.row][0] == "grad" and bad[device][entry.slot]:
                return {entry.row: 1.0}
    return {}
