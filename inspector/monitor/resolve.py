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
from inspector.monitor.samples import read_samples
from inspector.monitor.table import HIGH, LOW, Ticket

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
        self.single: dict[str, tuple[list[Array], list[Array]]] = {}  # statistic -> rows, values
        self.blocks: list[tuple[Array, Array, Array]] = []
        self.squares: list[float] = []  # of the gradients of parameters

    def add(self, row: int, statistic: str, value: float) -> None:
        self.add_all(np.array([row]), statistic, np.array([value]))

    def add_all(self, rows: Array, statistic: str, values: Array) -> None:
        kept = self.single.setdefault(statistic, ([], []))
        kept[0].append(rows)
        kept[1].append(values)

    def whole(self) -> tuple[Array, Array]:
        """Which series, and their values, of the blocks: they hold every row, so names are in execution order."""
        at, values = [np.array([], dtype=np.int64)], [np.array([])]
        for rows, block, present in self.blocks:
            firsts = self.memory.places(rows, self.names, LEAN)
            at.append((firsts[:, None] + np.arange(len(LEAN)))[present])
            values.append(block[present])
        return np.concatenate(at), np.concatenate(values)

    def beside(self, at: Array, values: Array) -> tuple[Array, Array]:
        """These, and those of the single values."""
        every, numbers = [at], [values]
        for statistic, (of_rows, of_values) in self.single.items():
            every.append(self.memory.places(np.concatenate(of_rows), self.names, (statistic,)))
            numbers.append(np.concatenate(of_values))
        return np.concatenate(every), np.concatenate(numbers)


@np.errstate(all="ignore")  # sums of what explodes are infinite, and that is the answer
def resolve(step: Step, measure: Measure, memory: Memory) -> Resolved:
    """Statistics of a step; series that are new are declared in ``memory``."""
    for receive, value in [extra for ticket in step.tickets.values() for extra in ticket.extras]:
        receive(value.numpy())
    sampled = any(ticket.samples is not None or ticket.extras for ticket in step.tickets.values())
    new = step.dropped or measure.ranks is not None or (sampled and not measure.steady.shifted)
    told = None if new else measure.steady.statistics(step.tickets.values())
    if told is None:
        return _looked_up(step, measure, memory)
    at, values, norm = told
    if not sampled:
        return Resolved(step.step, at, values, [], norm)
    found = _Rows(memory, measure.rows)
    histograms = _sampled(step, measure, found)
    return Resolved(step.step, *found.beside(at, values), histograms, norm)


def _sampled(step: Step, measure: Measure, found: _Rows) -> list[tuple[str, list[str], Array]]:
    """What samples and units tell; returns the histograms."""
    histograms: list[tuple[str, list[str], Array]] = []
    for ticket in step.tickets.values():
        if ticket.samples is not None:
            histograms += read_samples(ticket, step.dropped, measure, found)
    measure.units.tell(found)
    _logits(step, measure, found)
    return histograms


def _looked_up(step: Step, measure: Measure, memory: Memory) -> Resolved:
    found = _Rows(memory, measure.rows)
    for ticket in step.tickets.values():
        rms = _block(ticket, step.dropped, measure, found)
        _ratios(rms, measure, found)
    histograms = _sampled(step, measure, found)
    born = _births(step, measure)
    if measure.ranks is not None:
        born = _over_ranks(measure.ranks, measure, found, born)
    for row, value in born.items():
        found.add(row, "born", value)
    norm = float(np.sqrt(sum(found.squares))) if found.squares else None
    at, values = found.whole()
    if not step.dropped and measure.ranks is None:
        measure.steady.learn(step.tickets.values(), at, _gradients(measure, found))
    return Resolved(step.step, *found.beside(at, values), histograms, norm)


def _gradients(measure: Measure, found: _Rows) -> Array | None:
    """(rows,) how many numbers each is made of if it is the gradient of a parameter, else 0; None if none is."""
    shares = [
        n * (measure.rows[row][0] == "param_grad")
        for rows, block, _ in found.blocks
        for row, n in zip(rows.tolist(), block[:, LEAN.index("n")].tolist(), strict=True)
    ]
    return np.array(shares) if any(shares) else None


def _block(ticket: Ticket, dropped: set[str], measure: Measure, found: _Rows) -> dict[int, float]:
    """The lean statistics; returns the rms of the rows that a ratio of updates needs."""
    merged = merge(ticket)
    rows = merged.rows.tolist()
    measure.learn(set(rows), set(merged.careful.tolist()))
    kinds = [measure.rows[row][0] for row in rows]
    shown = [i for i, kind in enumerate(kinds) if kind[0] != "_" and kind not in dropped]
    if len(shown) == len(rows):
        found.blocks.append((merged.rows, merged.values, merged.present))
    else:
        found.blocks.append((merged.rows[shown], merged.values[shown], merged.present[shown]))
    if "param_grad" not in dropped:
        gradients = merged.values[[i for i, kind in enumerate(kinds) if kind == "param_grad"]]
        found.squares += (gradients[:, LEAN.index("n")] * gradients[:, _RMS] ** 2).tolist()
    if "update" not in kinds or "update" in dropped:
        return {}
    return dict(zip(rows, merged.values[:, _RMS].tolist(), strict=True))


def _ratios(rms: dict[int, float], measure: Measure, found: _Rows) -> None:
    """How large the applied update is against the weight it is applied to."""
    for row, update in rms.items():
        kind, name = measure.rows[row]
        old = rms.get(measure.ids.get(("_old", name), -1), 0.0)
        if kind == "update" and old > 0:
            found.add(row, "ratio", update / old)


def _logits(step: Step, measure: Measure, found: _Rows) -> None:
    """The largest magnitude that went into a softmax."""
    for call in step.calls:
        if call.rows and call.inputs and measure.types.get(call.rows[0]) is nn.Softmax:
            place = call.inputs[0]
            range_ = step.tickets[place.table.device].numbers.numpy()[place.slot, (LOW, HIGH)]
            found.add(call.rows[0], "logits", float(np.abs(range_).max()))


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
        broken = [row for row, place in zip(call.rows, call.outputs, strict=True) if bad[place.table.device][place.slot]]
        given = any(bad[place.table.device][place.slot] for place in call.inputs)
        for row in broken:
            births[row] = max(births.get(row, 0.0), float(not given))
    graph = step.tickets.get("graph")
    if graph is not None:
        return {row: value for row, value in graph.births().items() if measure.rows[row][0] not in step.dropped}
    if not births and "grad" not in step.dropped:
        births |= _backward_birth(step, measure, bad)
    return births


def _not_finite(ticket: Ticket) -> Array:
    """Per slot: was any element NaN or infinite? Both show in the smallest and the largest."""
    return np.asarray(~np.isfinite(ticket.numbers.numpy()[:, (LOW, HIGH)]).all(axis=1))


def _backward_birth(step: Step, measure: Measure, bad: dict[torch.device, Array]) -> dict[int, float]:
    for device, ticket in step.tickets.items():
        for row, slot, _, _ in ticket.entries:
            if row >= 0 and measure.rows[row][0] == "grad" and bad[device][slot]:
                return {row: 1.0}
    return {}
