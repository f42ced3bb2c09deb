"""Who belongs to which group: every column of labels, and every intersection of two columns."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inspector.records.samples import Samples


class Column(NamedTuple):
    """Row numbers by group label, in sorted order. within[label]: the label in each column that this one intersects, or
    one empty label; groups are compared with those that share it."""

    members: Mapping[str, Tensor]
    within: Mapping[str, tuple[str, ...]]


def columns(samples: Samples) -> dict[str, Column]:
    """The samples' group columns by name, then their intersections, called "a & b"; empty groups do not occur."""
    texts = {name: _texts(labels) for name, labels in samples.group_columns().items()}
    found = {name: _column(labels, [("",)] * len(labels)) for name, labels in texts.items()}
    for one, other in combinations(texts, 2):
        pairs = list(zip(texts[one], texts[other], strict=True))
        found[f"{one} & {other}"] = _column([f"{a} & {b}" for a, b in pairs], pairs)
    return found


def _column(labels: list[str], within: list[Any]) -> Column:
    kept = np.array(labels)
    members = {str(label): torch.from_numpy((kept == label).nonzero()[0]) for label in np.unique(kept)}
    return Column(members, {label: within[int(rows[0])] for label, rows in members.items()})


def _texts(labels: Any) -> list[str]:
    """Labels of any kind as text; None and NaN are the group "missing"."""
    plain = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).tolist()
    return ["missing" if label is None or label != label else str(label) for label in plain]
