"""Scores: attributions judged sample by sample, never boiled down to one magic number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from inspector.records.html import as_html, text_as_html
from inspector.records.resampling import Interval, bootstrap
from inspector.records.saved import Saved
from inspector.records.tables import WIDE, folded, screen

ARROWS = {"high": "↑", "low": "↓"}


@dataclass(frozen=True, eq=False)
class Curve(Saved):
    """A score that is a curve per sample: x (steps,) in shares from 0 to 1, y (batch, steps)."""

    x: Tensor
    y: Tensor

    @property
    def area(self) -> Tensor:
        """(batch,) the area under each curve by the trapezoid rule; with x from 0 to 1, the mean height."""
        return torch.trapezoid(self.y.double(), self.x.double(), dim=1).to(self.y.dtype)

    _repr_html_ = as_html


@dataclass(frozen=True, eq=False)
class Scores(Saved, Mapping[str, Mapping[str, Tensor]]):
    """``scores[label][metric]`` is a tensor (batch,), one score a sample; NaN where the metric is not defined.

    curves[label][metric] holds the curve behind a score that has one. about[metric]: "better" ("high" or "low"), range,
    paper and notes, from the METRICS table. model: class, parameter checksum, seed and versions of what was explained.
    """

    by_label: Mapping[str, Mapping[str, Tensor]]
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, label: str) -> Mapping[str, Tensor]:
        if label not in self.by_label:
            raise KeyError(f"{label!r} was not scored; there are {', '.join(self.by_label)}")
        return self.by_label[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_label)

    def __len__(self) -> int:
        return len(self.by_label)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, in order."""
        return list(dict.fromkeys(name for row in self.by_label.values() for name in row))

    def interval(self, label: str, metric: str, *, level: float = 0.95) -> Interval:
        """(mean, low, high) over the samples, by 1,000 bootstrap resamples with a fixed seed; NaN samples left out."""
        return bootstrap(self[label][metric], level=level)

    def difference(self, first: str, second: str, metric: str, *, level: float = 0.95) -> Interval:
        """``first`` minus ``second``, sample by sample: they differ where the interval leaves out zero."""
        return bootstrap(self[first][metric] - self[second][metric], level=level)

    def better(self, metric: str) -> str | None:
        """ "high", "low", or None where the metric does not say."""
        return self.about.get(metric, {}).get("better")

    def rank(self, metric: str, labels: list[str] | None = None) -> dict[str, int]:
        """Place of each label by its mean, 1 is the best and equals share a place; labels without a number are left out.

        Raises ValueError for a metric that does not say which way is better.
        """
        if self.better(metric) is None:
            raise ValueError(f"{metric!r} does not say whether high or low is better, so it ranks nothing")
        sign = -1.0 if self.better(metric) == "high" else 1.0
        scored = [label for label in labels or self if metric in self[label]]
        means = {label: sign * self[label][metric].double().nanmean().item() for label in scored}
        means = {label: mean for label, mean in means.items() if mean == mean}
        return {label: 1 + sum(other < mean for other in means.values()) for label, mean in means.items()}

    def to_tree(self) -> dict[str, Any]:
        curves = {label: {m: c.to_tree() for m, c in row.items()} for label, row in self.curves.items()}
        return super().to_tree() | {"curves": curves}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        curves = {label: {m: Curve(**c) for m, c in row.items()} for label, row in tree["curves"].items()}
        return cls(**tree | {"curves": curves})

    def __repr__(self) -> str:
        return self.text(screen())

    def text(self, width: int) -> str:
        """The table, in parts that keep within ``width`` characters."""
        rows = [[label, *(self.cell(label, metric) for metric in self.metrics)] for label in self]
        return folded(["method", *map(self.heading, self.metrics)], rows, width)

    def heading(self, metric: str) -> str:
        """The metric's name, with an arrow to the side that is better."""
        return f"{metric} {ARROWS[better]}" if (better := self.better(metric)) in ARROWS else metric

    def cell(self, label: str, metric: str) -> str:
        """Mean and interval as text; "n/a" where the metric is not defined (for completeness: "not claimed"), "-" where it
        was not asked."""
        if metric not in self[label]:
            return "-"
        mean, low, high = self.interval(label, metric)
        if mean != mean:
            return str(self.about.get(metric, {}).get("undefined", "n/a"))
        return f"{mean:.3f} [{low:.3f}, {high:.3f}]"

    def _repr_html_(self) -> str:
        return text_as_html(self.text(WIDE))
