"""What the monitor remembers while a run goes on: recent steps in full, old ones thinned, so that memory stays flat.

The folder on disk keeps everything; this is for the rules and for ``monitor.history``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inspector.monitor.arrival import Array
from inspector.records.history import Finding, History, Series, Stats
from inspector.records.runfolder import block

WINDOW = 96  # measured steps that the rules look back on
_FRAMES, _CELLS, _SCALARS, _RECENT = 4096, 8_000_000, 65_536, 256


class Window:
    """The last ``length`` frames as one block: rules ask for it often, so it is kept, not made."""

    def __init__(self, length: int) -> None:
        self.length, self.used = length, 0
        self.steps = np.zeros(2 * length, dtype=np.int64)
        self.values = np.zeros((2 * length, 0), dtype=np.float32)
        self.present = np.zeros((2 * length, 0), dtype=np.bool_)

    def add(self, step: int, at: Array, values: Array, columns: int) -> None:
        if columns > self.values.shape[1]:
            wider = ((0, 0), (0, max(columns, 2 * self.values.shape[1]) - self.values.shape[1]))
            self.values = np.pad(self.values, wider, constant_values=np.nan)
            self.present = np.pad(self.present, wider)
        if self.used == 2 * self.length:
            for kept in (self.steps, self.values, self.present):
                kept[: self.length] = kept[self.length :]
            self.used = self.length
        row = self.used
        if not row or self.steps[row - 1] != step:
            self.steps[row], self.values[row], self.present[row] = step, np.nan, False
            self.used += 1
        else:
            row -= 1
        self.values[row, at], self.present[row, at] = values, True

    def last(self, columns: int) -> tuple[Array, Array, Array]:
        """(steps, values, present) without a copy: they are only to be read."""
        rows = slice(max(self.used - self.length, 0), self.used)
        return self.steps[rows], self.values[rows, :columns], self.present[rows, :columns]


class Lines:
    """Numbers that have a name, each with its steps: what the user logs, and what is checked at every step."""

    def __init__(self, given: Mapping[str, tuple[Array, Array]] | None = None) -> None:
        self.of = {name: (steps.tolist(), values.tolist()) for name, (steps, values) in (given or {}).items()}

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Of one step the last number counts."""
        for name, number in numbers.items():
            steps, values = self.of.setdefault(name, ([], []))
            if steps and steps[-1] == step:
                values[-1] = number
                continue
            steps.append(step)
            values.append(number)
            if len(steps) > _SCALARS:
                self.of[name] = _thinned(steps), _thinned(values)

    def columns(self, last: int = 0) -> dict[str, tuple[Array, Array]]:
        """(steps, values) of each name: the last ones, or all."""
        return {
            name: (np.array(steps[-last:], dtype=np.int64), np.array(values[-last:], dtype=np.float64))
            for name, (steps, values) in self.of.items()
        }


class Memory:
    """Frames are (step, which series, values)."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.meta = meta
        self.series: list[Series] = []
        self.place: dict[Series, int] = {}
        self.known: dict[str, Array] = {}  # statistic -> the series of each row that is measured, -1 while there is none
        self.columns: dict[tuple[str, str], list[int]] = {}  # (kind, statistic) -> its series
        self.frames: list[tuple[int, Array, Array]] = []
        self.window = Window(WINDOW)
        self.scalars, self.watch = Lines(), Lines()
        self.histograms: dict[str, dict[str, list[tuple[int, Array]]]] = {}
        self.findings: list[Finding] = []
        self._cells = 0

    def recall(self, history: History) -> None:
        """Take over what an earlier session kept."""
        stats = history.stats
        for series in stats.series:
            self._append(series)
        for step, cells, present in zip(stats.steps.tolist(), stats.cells, stats.present, strict=True):
            at = np.flatnonzero(present)
            self.add_frame(step, at, cells[at])
        self.scalars, self.watch = Lines(history.scalars), Lines(history.watch)
        self.findings = list(history.findings)
        for kind, names in history.histograms.items():
            self.histograms[kind] = {n: list(zip(s.tolist(), c, strict=True)) for n, (s, c) in names.items()}

    def declare(self, row: tuple[str, str], statistics: tuple[str, ...]) -> int:
        """The first of consecutive series for these statistics; they are new when first asked for."""
        first = Series(*row, statistics[0])
        if first not in self.place:
            for statistic in statistics:
                self._append(Series(*row, statistic))
        return self.place[first]

    def _append(self, series: Series) -> None:
        self.place[series] = len(self.series)
        self.columns.setdefault((series.kind, series.statistic), []).append(len(self.series))
        self.series.append(series)

    def places(self, rows: Array, names: Sequence[tuple[str, str]], statistics: tuple[str, ...]) -> Array:
        """The first series of each row, as ``declare`` answers; what is known is not looked up again."""
        known = self.known.get(statistics[0], np.array([], dtype=np.int64))
        if len(known) < len(names):
            known = self.known[statistics[0]] = np.r_[known, np.full(len(names) - len(known), -1)]
        for row in rows[known[rows] < 0].tolist():
            known[row] = self.declare(names[row], statistics)
        return known[rows]

    def add_frame(self, step: int, at: Array, values: Array) -> None:
        self.frames.append((step, at, values.astype(np.float32, copy=False)))
        self.window.add(step, at, values, len(self.series))
        self._cells += len(at)
        if len(self.frames) > _FRAMES or self._cells > _CELLS:
            self.frames = _thinned(self.frames)
            self._cells = sum(len(at) for _, at, _ in self.frames)

    def add_histogram(self, step: int, kind: str, names: list[str], counts: Array) -> None:
        of_kind = self.histograms.setdefault(kind, {})
        for name, row in zip(names, counts, strict=True):
            kept = of_kind.setdefault(name, [])
            kept.append((step, row))
            if len(kept) > 256:
                of_kind[name] = _thinned(kept)

    def history(self) -> History:
        """All that is remembered."""
        stats = block(self.frames, self.series)
        found = History("step", self.scalars.columns(), stats, list(self.findings), meta=self.meta)
        found.watch = self.watch.columns()
        for kind, names in self.histograms.items():
            pairs = {name: (np.array([s for s, _ in kept]), np.stack([c for _, c in kept])) for name, kept in names.items()}
            found.histograms[kind] = pairs
        return found

    def recent(self) -> History:
        """The last WINDOW steps that were measured, for the rules; its arrays are only to be read."""
        steps, values, present = self.window.last(len(self.series))
        stats = Stats.dense(steps, self.series, values, present, self.columns)
        found = History("step", self.scalars.columns(_RECENT), stats, list(self.findings), meta=self.meta)
        found.watch = self.watch.columns(_RECENT)
        return found


def _thinned(rows: list[Any]) -> list[Any]:
    """Every other one of the older half."""
    half = len(rows) // 2
    return rows[:half:2] + rows[half:]
