"""Assessment: how well a model does on held-out samples, over all and per group of people.

A gap is the largest minus the smallest rate, as in fairlearn, and never below 0; whether it is more than chance is
said apart, by the disparities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from torch import Tensor

from inspector.records.html import as_html
from inspector.records.saved import Saved
from inspector.records.tables import table

Interval = tuple[float, float]


@dataclass(frozen=True)
class Disparity:
    """One group whose rate differs from that of the others by more than chance.

    value: the group's rate; rest: that of all others; interval: 95 % bootstrap interval of value minus rest; p: of the
    permutation test over all groups of the column, corrected for every column and rate that was tested.
    """

    column: str
    group: str
    rate: str
    value: float
    rest: float
    interval: Interval
    p: float
    n: int
    small: bool = False

    def __str__(self) -> str:
        low, high = (f"{100 * bound:+.1f}" for bound in self.interval)
        rate, few = self.rate.replace("_", " "), f", of only {self.n} samples" * self.small
        return (
            f"{rate} of {self.column}={self.group} is {_percent(self.value)} against {_percent(self.rest)} of the others "
            f"({low} to {high} points, p {'<' if self.p < 0.001 else '='} {max(self.p, 0.001):.3f}{few})"
        )


@dataclass(frozen=True, eq=False)
class Assessment(Saved):
    """Counts and rates of a classifier; precision, recall and f1 are macro means over the classes that occur.

    per_class[metric]: (classes,). confusion: (classes, classes) counts, rows are true classes.
    positive: the class that one is selected for; selection_rate, base_rate (its true share), false_positive_rate and
    false_negative_rate are about it, or with positive None the last two macro means and the first two NaN.
    intervals[rate]: 95 % bootstrap interval. small: too few samples to say much. groups[column][label]: an Assessment
    of that group; a column "a & b" is an intersection. gaps[column][rate]: the largest minus the smallest over the
    groups; ratios: the smallest over the largest; worst: the group's label. disparities: what is more than chance.
    """

    n: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    per_class: Mapping[str, Tensor]
    confusion: Tensor
    classes: tuple[str, ...]
    groups: Mapping[str, Mapping[str, Assessment]] = field(default_factory=dict)
    gaps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    name: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    positive: str | None = None
    selection_rate: float = math.nan
    base_rate: float = math.nan
    false_positive_rate: float = math.nan
    false_negative_rate: float = math.nan
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    small: bool = False
    gap_intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    ratios: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worst: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    disparities: tuple[Disparity, ...] = ()

    def to_tree(self) -> dict[str, Any]:
        groups = {column: {label: a.to_tree() for label, a in row.items()} for column, row in self.groups.items()}
        return super().to_tree() | {"groups": groups, "disparities": [asdict(d) for d in self.disparities]}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        groups = {c: {label: cls.from_tree(a) for label, a in row.items()} for c, row in tree["groups"].items()}
        return cls(**tree | {"groups": groups, "disparities": tuple(Disparity(**d) for d in tree.get("disparities", ()))})

    def __repr__(self) -> str:
        rows = [[self.name or "all", *_figures(self)]]
        rows += [[f"{c}={label}", *_figures(a)] for c, row in self.groups.items() for label, a in row.items()]
        head = ["", "n", "accuracy", "precision", "recall", "F1", *_SELECTION.values()]
        return "\n".join([table(head[: len(rows[0])], rows), *self._verdicts()])

    def _verdicts(self) -> list[str]:
        if not self.groups:
            return []
        few = any(a.small for row in self.groups.values() for a in row.values())
        found = [f"unequal: {disparity}" for disparity in self.disparities]
        return [
            *(found or ["no group differs from the others by more than chance"]),
            *["* too few samples to say much"] * few,
        ]

    _repr_html_ = as_html


_SELECTION = {"selection_rate": "selected", "false_positive_rate": "FPR", "false_negative_rate": "FNR"}


def _figures(a: Assessment) -> list[str]:
    shown = [a.accuracy, a.precision, a.recall, a.f1]
    shown += [getattr(a, name) for name in _SELECTION] if a.positive is not None else []
    return [f"{a.n}{'*' * a.small}", *map(_percent, shown)]


def _percent(rate: float) -> str:
    return "" if math.isnan(rate) else f"{100 * rate:.1f}%"
