"""Stats: the statistics of a run as a long table, kept as a dense block of steps by series, which is 50 times smaller.

A *series* is one (kind, name, statistic). The long columns are made when asked for; who draws a heat map asks for
``grid`` and never sees a million strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from inspector.records.html import as_html

Column = np.ndarray[Any, np.dtype[Any]]
Columns = dict[tuple[str, str], list[int]]


class Series(NamedTuple):
    """What one column of numbers is about, such as ("output", "layer1.conv", "rms")."""

    kind: str
    name: str
    statistic: str


Frame = tuple[int, Column, Column]  # a step, which series it has, their values


class Grid(NamedTuple):
    """One statistic of one kind over all layers: values (names, steps), NaN where absent or not a number;
    present (names, steps) tells the two apart. Names are in execution order."""

    names: list[str]
    steps: Column
    values: Column
    present: Column


class Stats(Mapping[str, Column]):
    """A long table of equally long columns: step, kind, name, statistic, value. ``stats["value"]`` is a numpy array."""

    COLUMNS = ("step", "kind", "name", "statistic", "value")
    _columns: Columns | None = None
    _grids: dict[tuple[str, str], Grid] | None = None  # those that were asked for, where many ask for the same: the rules

    def __init__(self, columns: Mapping[str, Any] | None = None) -> None:
        given = columns or {}
        long = {c: np.asarray(given.get(c, [])) for c in self.COLUMNS}
        keys = list(map(Series._make, zip(*(map(str, long[c].tolist()) for c in Series._fields), strict=True)))
        place = {series: i for i, series in enumerate(dict.fromkeys(keys))}
        self.steps, at = np.unique(long["step"].astype(np.int64), return_inverse=True)
        self.series = list(place)
        self.cells: Column = np.full((len(self.steps), len(place)), np.nan)
        self.present: Column = np.zeros(self.cells.shape, dtype=np.bool_)
        columns_at = np.array([place[key] for key in keys], dtype=np.int64)
        self.cells[at, columns_at] = long["value"].astype(np.float64)
        self.present[at, columns_at] = True

    @classmethod
    def dense(
        cls, steps: Any, series: Sequence[Series], values: Column, present: Column, columns: Columns | None = None
    ) -> Self:
        """From a block: steps (S,), values and present (S, series). columns: where each kind and statistic is, if known;
        then grids are made once, and only to be read."""
        stats = cls.__new__(cls)
        stats.steps, stats.series, stats._columns = np.asarray(steps, dtype=np.int64), list(series), columns
        stats.cells, stats.present = values, present
        stats._grids = None if columns is None else {}
        return stats

    @classmethod
    def framed(cls, frames: Sequence[Frame], series: Sequence[Series]) -> Self:
        """From frames, of which those of one step are one row; a block is made only of the columns that are asked for."""
        stats = cls.__new__(cls)
        stats.steps, stats.series = np.unique(np.array([step for step, _, _ in frames], dtype=np.int64)), list(series)
        stats._frames = list(frames)
        return stats

    _frames: list[Frame]

    def __getattr__(self, name: str) -> Any:
        """``cells`` and ``present`` of frames, when they are first asked for."""
        if name not in ("cells", "present") or "_frames" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.cells, self.present = self._picked(np.arange(len(self.series)))
        del self._frames
        return vars(self)[name]

    def _picked(self, at: Column) -> tuple[Column, Column]:
        """(steps, at): the values of some series, and which of them there are."""
        if "_frames" not in vars(self):
            return self.cells[:, at], self.present[:, at]
        values = np.full((len(self.steps), len(at)), np.nan, dtype=np.float32)
        present = np.zeros(values.shape, dtype=np.bool_)
        rows = np.searchsorted(self.steps, np.array([step for step, _, _ in self._frames], dtype=np.int64))
        known: dict[int, tuple[Column, Column]] = {}  # frames share few sets of columns
        for row, (_, columns, numbers) in zip(rows.tolist(), self._frames, strict=True):
            if id(columns) not in known:
                known[id(columns)] = _matches(columns, at)
            to, of = known[id(columns)]
            values[row, to], present[row, to] = numbers[of], True
        return values, present

    def __getitem__(self, column: str) -> Column:
        if column not in self.COLUMNS:
            raise KeyError(f"{column!r} is no column; there are {', '.join(self.COLUMNS)}")
        if column == "value":
            return self.cells[self.present].astype(np.float64)
        row, at = np.nonzero(self.present)
        if column == "step":
            return self.steps[row]
        labels = np.array([getattr(series, column) for series in self.series], dtype=np.str_)
        return labels[at] if len(labels) else np.array([], dtype=np.str_)

    def __iter__(self) -> Iterator[str]:
        return iter(self.COLUMNS)

    def __len__(self) -> int:
        return len(self.COLUMNS)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.present.sum())

    def where(self, **equal: Any) -> Stats:
        """The rows in which every named column equals the given value: ``stats.where(kind="grad", name="fc")``."""
        for column in equal:
            if column not in self.COLUMNS:
                raise KeyError(f"{column!r} is no column; there are {', '.join(self.COLUMNS)}")
        text = {column: wanted for column, wanted in equal.items() if column in Series._fields}
        at = [i for i, series in enumerate(self.series) if all(getattr(series, c) == w for c, w in text.items())]
        row = np.flatnonzero(self.steps == equal["step"]) if "step" in equal else np.arange(len(self.steps))
        values, present = self.cells[row][:, at], self.present[row][:, at]
        if "value" in equal:
            present = present & (values == equal["value"])
        return Stats.dense(self.steps[row], [self.series[i] for i in at], values, present)

    def unique(self, column: str) -> list[Any]:
        """The different values of a column in order of first appearance (for names: execution order)."""
        if column not in Series._fields:
            return list(dict.fromkeys(self[column].tolist()))
        there = np.asarray(self.present.any(axis=0)).tolist()
        return list(dict.fromkeys(getattr(s, column) for s, has in zip(self.series, there, strict=True) if has))

    def grid(self, kind: str, statistic: str) -> Grid:
        """One statistic of one kind over all layers and steps, for heat maps and rules; empty where there is none."""
        if self._grids and (kind, statistic) in self._grids:
            return self._grids[kind, statistic]
        at = self._index().get((kind, statistic), [])
        if not at:
            return Grid([], self.steps[:0], np.zeros((0, 0)), np.zeros((0, 0), dtype=np.bool_))
        at = self._forward(at) if kind == "grad" else at
        cells, there = self._picked(np.array(at, dtype=np.int64))
        some = there.any(axis=1)
        steps = self.steps
        if not some.all():
            steps, cells, there = steps[some], cells[some], there[some]
        values = np.where(there, cells, np.nan).astype(np.float64)
        found = Grid([self.series[i].name for i in at], steps, values.T, there.T)
        if self._grids is not None:
            self._grids[kind, statistic] = found
        return found

    def steps_above(self, limit: float, *statistics: str) -> Column:
        """The steps at which one of these statistics, of whatever kind and name, was larger than ``limit``."""
        at = [i for (_, statistic), columns in self._index().items() if statistic in statistics for i in columns]
        values, present = self._picked(np.array(sorted(at), dtype=np.int64))
        return self.steps[((values > limit) & present).any(axis=1)]

    def _index(self) -> Columns:
        """The columns of each kind and statistic; made when first asked for, since rules ask often."""
        if self._columns is None:
            self._columns = {}
            for i, (kind, _, statistic) in enumerate(self.series):
                self._columns.setdefault((kind, statistic), []).append(i)
        return self._columns

    def _forward(self, at: list[int]) -> list[int]:
        """Gradients arrive from the last layer to the first: in the order of the outputs, or else turned round."""
        outputs = dict.fromkeys(series.name for series in self.series if series.kind == "output")
        place = {name: i for i, name in enumerate(outputs)}
        return sorted(at, key=lambda i: (place.get(self.series[i].name, 0), -i))

    def line(self, kind: str, name: str, statistic: str) -> tuple[Column, Column]:
        """(steps, values) of one series; two empty arrays where there is none."""
        at = [i for i in self._index().get((kind, statistic), []) if self.series[i].name == name]
        if not at:
            return np.array([], dtype=np.int64), np.array([], dtype=np.float64)
        cells, present = self._picked(np.array(at[:1]))
        has = present[:, 0]
        return self.steps[has], cells[has, 0].astype(np.float64)

    def to_tree(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "series": [tuple(s) for s in self.series],
            "cells": self.cells,
            "present": self.present,
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        return cls.dense(tree["steps"], as_series(tree["series"]), tree["cells"], tree["present"])

    def __repr__(self) -> str:
        return f"Stats({self.rows} rows: {len(self.unique('name'))} names, {', '.join(self.unique('statistic'))})"

    _repr_html_ = as_html


def _matches(columns: Column, wanted: Column) -> tuple[Column, Column]:
    """Where the wanted columns are: places in ``wanted``, and their places in ``columns`` (both sorted)."""
    place = np.searchsorted(columns, wanted)
    has = np.flatnonzero(columns[np.minimum(place, len(columns) - 1)] == wanted) if len(columns) else np.array([], np.int64)
    return has, place[has]


def as_series(keys: Iterable[Sequence[str]]) -> list[Series]:
    return [Series(*map(str, key)) for key in keys]
