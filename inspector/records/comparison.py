"""Comparison: several attributions of the same samples side by side, with what is needed to doubt them.

Nothing here adds the metrics up: methods are ranked per metric, and quality is set against cost, because the metrics
measure different things and no weighting of them has been shown to mean anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from inspector.records.attribution import Attribution, Cost
from inspector.records.html import text_as_html
from inspector.records.resampling import Interval, bootstrap, bootstrap_gap
from inspector.records.samples import Samples
from inspector.records.saved import Saved
from inspector.records.scores import Curve, Scores
from inspector.records.summary import in_bytes
from inspector.records.tables import WIDE, folded, screen, wrapped


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
        """Everything that was scored, methods first and controls last."""
        return list(self.attributions)

    @property
    def methods(self) -> list[str]:
        """The labels that are explanations, without the controls."""
        return [label for label in self.labels if label not in self.controls]

    @property
    def samples(self) -> Samples:
        """What was explained, with all that is known about it."""
        return next(iter(self.attributions.values())).samples

    def rank(self, metric: str) -> dict[str, int]:
        """Place of each method by one metric, 1 is the best; controls and methods without a number have none."""
        return self.scores.rank(metric, self.methods)

    def difference(self, first: str, second: str, metric: str, *, level: float = 0.95) -> Interval:
        """``first`` minus ``second`` on the same samples: they really differ where the interval leaves out zero."""
        return self.scores.difference(first, second, metric, level=level)

    def differences(self, metric: str, *, level: float = 0.95) -> dict[tuple[str, str], Interval]:
        """Every pair of methods: first minus second. Those whose interval ``excludes_zero`` are really different."""
        pairs = combinations(self.methods, 2)
        return {(first, second): self.difference(first, second, metric, level=level) for first, second in pairs}

    def pareto(self, metric: str) -> list[str]:
        """The methods that no other beats in this metric without running more examples through the model."""
        places = self.rank(metric)
        price = {label: _work(self.cost.get(label, Cost())) for label in places}
        return [a for a in places if not any(_dominates(places[b], price[b], places[a], price[a]) for b in places)]

    def by_group(self, metric: str) -> dict[str, dict[str, dict[str, Interval]]]:
        """``[column][group][label]``: how good the explanations of each group of people are."""
        return {
            column: {
                group: {label: bootstrap(self.scores[label][metric][rows]) for label in self.methods}
                for group, rows in masks.items()
            }
            for column, masks in self._group_masks().items()
        }

    def gaps(self, metric: str) -> dict[str, dict[str, Interval]]:
        """``[column][label]``: the best minus the worst group mean. It is 0 or more, so read the lower bound: resampling
        noise alone lifts it above 0, least where groups are large."""
        return {
            column: {
                label: bootstrap_gap([self.scores[label][metric][rows] for rows in masks.values()]) for label in self.methods
            }
            for column, masks in self._group_masks().items()
        }

    def share_on(self, features: str | Iterable[str] | None = None) -> dict[str, Tensor]:
        """(batch,) per label: the share of absolute attribution that falls on the named features, by default those that
        ``Samples.names["sensitive"]`` names.

        Needs ``Samples.names["features"]``, one name per position. Raises LookupError that lists the names there are.
        """
        known = list(self.samples.names.get("features", ()))
        given = self.samples.names.get("sensitive", ()) if features is None else features
        wanted = [given] if isinstance(given, str) else list(given)
        if not wanted:
            raise LookupError('no feature was named; give names, or name them in Samples(names={"sensitive": [...]})')
        if missing := [name for name in wanted if name not in known]:
            raise LookupError(
                f"no feature is named {', '.join(map(repr, missing))}; there are {', '.join(known) or 'no names'}"
            )
        chosen = torch.tensor([known.index(name) for name in wanted])
        return {label: _share(a.heat, chosen) for label, a in self.attributions.items()}

    def _group_masks(self) -> dict[str, dict[str, Tensor]]:
        return {name: members(column) for name, column in self.samples.group_columns().items()}

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
        return self.text(screen())

    def text(self, width: int) -> str:
        """The table in parts that keep within ``width`` characters, what its marks mean, and the warnings."""
        metrics = self.scores.metrics
        head = ["method", *map(self.scores.heading, metrics), "forward", "backward", "seconds", "memory"]
        rows = [[*self._row(label, metrics), *self._cost(label)] for label in self.labels]
        legend = "mean [95% interval] #place; ↑ high is better, ↓ low is better; * no other is as good and as cheap"
        lines = [legend, *(f"! {warning}" for warning in self.warnings)]
        return "\n".join([folded(head, rows, width), *(wrapped(line, width) for line in lines)])

    def _row(self, label: str, metrics: list[str]) -> list[str]:
        mark = " (control)" if label in self.controls else ""
        return [label + mark, *(self.scores.cell(label, metric) + self._place(label, metric) for metric in metrics)]

    def _place(self, label: str, metric: str) -> str:
        if self.scores.better(metric) is None or len(self.methods) < 2:
            return ""
        place = self.rank(metric).get(label)
        return f" #{place}{'*' if label in self.pareto(metric) else ' '}" if place else "   "

    def _cost(self, label: str) -> list[str]:
        cost = self.cost.get(label, Cost())
        memory = in_bytes(cost.peak_bytes) if cost.peak_bytes else "-"
        return [str(cost.forwards), str(cost.backwards), f"{cost.seconds:.2f}", memory]

    def _repr_html_(self) -> str:
        return text_as_html(self.text(WIDE))


def _work(cost: Cost) -> int:
    """Examples through the model, which unlike seconds are the same on every machine; passes where they were not counted."""
    return cost.examples or cost.forwards + cost.backwards


def _dominates(place: int, price: int, other_place: int, other_price: int) -> bool:
    return place <= other_place and price <= other_price and (place, price) != (other_place, other_price)


def _share(heat: Tensor, chosen: Tensor) -> Tensor:
    weight = heat.detach().abs().double().cpu()
    return weight[:, chosen].sum(1) / weight.sum(1)


def members(column: Any) -> dict[str, Tensor]:
    """Group -> bool (batch,) of who belongs to it, for one column of labels."""
    labels = column.tolist() if isinstance(column, (Tensor, np.ndarray)) else list(column)
    values = np.asarray([str(label) for label in labels])
    return {str(group): torch.from_numpy(values == group) for group in np.unique(values)}
