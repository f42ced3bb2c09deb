"""One line of a benchmark: our number with its spread over seeds, beside the published one where there is one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from inspector.records.tables import table

Published = Mapping[tuple[str, str, str], tuple[float, float | None]]  # (task, method, metric) -> mean, deviation


class Row(NamedTuple):
    """mean and spread (standard deviation over seeds; None of one seed) of ours; published ones, None where not given."""

    task: str
    method: str
    metric: str
    mean: float
    spread: float | None
    published: float | None = None
    published_spread: float | None = None

    @property
    def agrees(self) -> bool | None:
        """Whether the two means are within two combined standard deviations; None where nothing was published."""
        if self.published is None:
            return None
        return abs(self.mean - self.published) <= 2 * math.hypot(self.spread or 0.0, self.published_spread or 0.0) + 5e-4


def rows_of(found: Mapping[tuple[str, str, str], Sequence[float]], published: Published) -> list[Row]:
    """Rows from one number a seed; +-5e-4 is what rounding to three places hides."""
    return [
        Row(*key, statistics.fmean(numbers), _spread(numbers), *published.get(key, (None, None)))
        for key, numbers in found.items()
    ]


def table_of(rows: Iterable[Row]) -> str:
    """Plain text: ours, the published, and whether they agree."""
    head = ["task", "method", "metric", "ours", "published", "agrees"]
    return table(head, [[r.task, r.method, r.metric, _number(r.mean, r.spread), *_theirs(r)] for r in rows])


def _theirs(row: Row) -> list[str]:
    if row.published is None:
        return ["-", "-"]
    return [_number(row.published, row.published_spread), "yes" if row.agrees else "NO"]


def _number(mean: float, spread: float | None) -> str:
    if math.isnan(mean):
        return "n/a"
    places = 1 if abs(mean) >= 100 else 4
    return f"{mean:.{places}f}" + ("" if spread is None else f" +- {spread:.{places}f}")


def _spread(numbers: Sequence[float]) -> float | None:
    if any(map(math.isnan, numbers)):
        return math.nan
    return statistics.stdev(numbers) if len(numbers) > 1 else None
