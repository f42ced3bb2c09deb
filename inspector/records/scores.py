"""Scores and Comparison: attributions judged sample by sample, never boiled down to one magic number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from inspector.records.attribution import Attribution, Cost
from inspector.records.saved import Saved


@dataclass(frozen=True, eq=False)
class Curve(Saved):
    """A score that is a curve per sample: x (steps,) in shares from 0 to 1, y (batch, steps)."""

    x: Tensor
    y: Tensor

    @property
    def area(self) -> Tensor:
        """(batch,) the area under each curve by the trapezoid rule; with x from 0 to 1, the mean height."""
        return torch.trapezoid(self.y.double(), self.x.double(), dim=1).to(self.y.dtype)


@dataclass(frozen=True, eq=False)
class Scores(Saved, Mapping[str, Mapping[str, Tensor]]):
    """``scores[label][metric]`` is a tensor (batch,), one score a sample; NaN where the metric is not defined.

    curves[label][metric] holds the curve behind a score that has one. about[metric]: "better" ("high" or "low"), range,
    paper and notes, from the METRICS table.
    """

    by_label: Mapping[str, Mapping[str, Tensor]]
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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

    def interval(self, label: str, metric: str, *, level: float = 0.95) -> tuple[float, float, float]:
        """(mean, low, high) over the samples, by 1,000 bootstrap resamples with a fixed seed; NaN samples left out."""
        return bootstrap(self[label][metric], level=level)

    def to_tree(self) -> dict[str, Any]:
        curves = {label: {m: c.to_tree() for m, c in row.items()} for label, row in self.curves.items()}
        return super().to_tree() | {"curves": curves}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        curves = {label: {m: Curve(**c) for m, c in row.items()} for label, row in tree["curves"].items()}
        return cls(**tree | {"curves": curves})

    def __repr__(self) -> str:
        rows = [[label, *(_cell(self, label, metric) for metric in self.metrics)] for label in self]
        return table(["method", *(_heading(self, metric) for metric in self.metrics)], rows)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Saved):
    """Several attributions of the same samples, judged side by side.

    scores: per sample; agreement[name]: (labels, labels) matrices, such as "spearman"; cost[label]: what it took;
    warnings: what to be careful about, in words; settings: the layer, seed and metrics that were used.
    controls: labels that are no explanation but a yardstick, such as "random".
    """

    attributions: Mapping[str, Attribution]
    scores: Scores
    agreement: Mapping[str, Tensor] = field(default_factory=dict)
    cost: Mapping[str, Cost] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def curves(self) -> Mapping[str, Mapping[str, Curve]]:
        return self.scores.curves

    @property
    def labels(self) -> list[str]:
        return list(self.attributions)

    def to_tree(self) -> dict[str, Any]:
        changed = {
            "attributions": {label: a.to_tree() for label, a in self.attributions.items()},
            "scores": self.scores.to_tree(),
            "cost": {label: tuple(cost) for label, cost in self.cost.items()},
        }
        return super().to_tree() | changed

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        changed = {
            "attributions": {label: Attribution.from_tree(a) for label, a in tree["attributions"].items()},
            "scores": Scores.from_tree(tree["scores"]),
            "cost": {label: Cost(*cost) for label, cost in tree["cost"].items()},
        }
        return cls(**tree | changed)

    def __repr__(self) -> str:
        metrics = self.scores.metrics
        head = ["method", *(_heading(self.scores, m) for m in metrics), "forward", "backward", "seconds"]
        rows = [[*self._row(label, metrics), *self._cost(label)] for label in self.attributions]
        return "\n".join([table(head, rows), *(f"! {warning}" for warning in self.warnings)])

    def _row(self, label: str, metrics: list[str]) -> list[str]:
        mark = " (control)" if label in self.controls else ""
        return [label + mark, *(_cell(self.scores, label, metric) for metric in metrics)]

    def _cost(self, label: str) -> list[str]:
        cost = self.cost.get(label, Cost())
        return [str(cost.forwards), str(cost.backwards), f"{cost.seconds:.2f}"]


def bootstrap(values: Tensor, *, level: float = 0.95, resamples: int = 1000) -> tuple[float, float, float]:
    """(mean, low, high) of the finite values by the percentile bootstrap; (NaN, NaN, NaN) where there are none."""
    kept = values.detach().double().cpu().numpy()
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return float("nan"), float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(0, kept.size, (resamples, kept.size))
    low, high = np.quantile(kept[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(kept.mean()), float(low), float(high)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Plain text in columns: the first flush left, the others flush right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in [head, *rows]
    ]
    return "\n".join("  ".join(line).rstrip() for line in [lines[0], ["-" * w for w in widths], *lines[1:]])


def _heading(scores: Scores, metric: str) -> str:
    better = scores.about.get(metric, {}).get("better")
    return f"{metric} ({better} is better)" if better else metric


def _cell(scores: Scores, label: str, metric: str) -> str:
    if metric not in scores[label]:
        return "-"
    mean, low, high = scores.interval(label, metric)
    return "n/a" if mean != mean else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
