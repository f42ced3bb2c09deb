"""Assessment: how well a model does on held-out samples, over all and per group of people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor

from inspector.records.saved import Saved
from inspector.records.tables import table


@dataclass(frozen=True, eq=False)
class Assessment(Saved):
    """Counts and rates of a classifier; precision, recall and f1 are macro means over the classes that occur.

    per_class[metric]: (classes,). confusion: (classes, classes) counts, rows are true classes. groups[column][label]:
    an Assessment of that group. gaps[column][metric]: the largest minus the smallest over the groups.
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

    def to_tree(self) -> dict[str, Any]:
        groups = {column: {label: a.to_tree() for label, a in row.items()} for column, row in self.groups.items()}
        return super().to_tree() | {"groups": groups}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        groups = {c: {label: cls.from_tree(a) for label, a in row.items()} for c, row in tree["groups"].items()}
        return cls(**tree | {"groups": groups})

    def __repr__(self) -> str:
        rows = [[self.name or "all", *_figures(self)]]
        rows += [[f"{c}={label}", *_figures(a)] for c, row in self.groups.items() for label, a in row.items()]
        return table(["", "n", "accuracy", "precision", "recall", "F1"], rows)


def _figures(a: Assessment) -> list[str]:
    return [str(a.n), *(f"{100 * rate:.1f}%" for rate in (a.accuracy, a.precision, a.recall, a.f1))]
