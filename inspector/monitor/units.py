"""What sampled sums cannot tell: which units never fire, how saturated a squashing layer is, how sharp attention is.

Per unit only one sum goes to the host, and only on steps that are sampled; which units are dead is told there, over a
window of looks, since one silent batch says little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from inspector.monitor.arrival import Array

if TYPE_CHECKING:
    from inspector.monitor.table import Place


class Found(Protocol):
    """Takes the values of one step."""

    def add(self, row: int, statistic: str, value: float) -> None: ...
    def add_all(self, rows: Array, statistic: str, values: Array) -> None: ...


WINDOW = 3  # looks in a row without firing until a unit counts as dead
DORMANT = 0.025  # share of the layer's mean activity under which a unit is dormant (Sokar et al. 2023, arXiv 2302.12902)
_RECTIFIERS = (nn.ReLU, nn.ReLU6)
_ROWS = 64  # attention rows whose entropy is looked at


class Units:
    """Keeps per rectifier for how many looks each unit has been silent."""

    def __init__(self) -> None:
        self.silent: dict[int, Array] = {}
        self.sums: dict[int, Array] = {}
        self.rows: dict[int, list[Array]] = {}
        self.looks: dict[int, list[Array]] = {}  # of fused attention: (entropy, largest logit) of each call

    def look(self, module: nn.Module, row: int, output: Tensor, place: Place) -> None:
        """Send along what this module's output tells beyond its row of sums."""
        if isinstance(module, _RECTIFIERS) and output.dim() > 1:
            place.table.extra(_per_unit(output.detach()), lambda value: self._add(row, value))
        elif isinstance(module, nn.Softmax) and output.dim() > 1 and module.dim in (-1, output.dim() - 1):
            place.table.extra(_some_rows(output.detach()), lambda value: self.rows.setdefault(row, []).append(value))

    def tell(self, found: Found) -> None:
        """What the looks of this step add up to."""
        widths: dict[int, list[int]] = {}
        for row, total in self.sums.items():
            widths.setdefault(len(total), []).append(row)
        for rows in widths.values():
            self._tell_units(rows, found)
        for row, parts in self.rows.items():
            found.add(row, "entropy", _entropy(np.concatenate(parts)))
        for row, looks in self.looks.items():
            found.add(row, "entropy", float(np.mean([look[0] for look in looks])))
            found.add(row, "logits", float(np.max([look[1] for look in looks])))
        self.sums, self.rows, self.looks = {}, {}, {}

    def _tell_units(self, rows: list[int], found: Found) -> None:
        """Of rectifiers with equally many units, together."""
        total = np.stack([self.sums[row] for row in rows])
        before = np.stack([self.silent.get(row, np.zeros(total.shape[1], np.int64)) for row in rows])
        silent, at = np.where(total == 0, before + 1, 0), np.array(rows)
        self.silent |= zip(rows, silent, strict=True)
        found.add_all(at, "silent", (total == 0).mean(axis=1))
        found.add_all(at, "dormant", (total <= DORMANT * total.mean(axis=1, keepdims=True)).mean(axis=1))
        found.add_all(at, "dead", (silent >= WINDOW).mean(axis=1))

    def attended(self, row: int, look: Array) -> None:
        """What a call of fused attention told."""
        self.looks.setdefault(row, []).append(look)

    def _add(self, row: int, value: Array) -> None:
        old = self.sums.get(row)
        self.sums[row] = value if old is None or len(old) != len(value) else old + value


def _per_unit(output: Tensor) -> Tensor:
    """(units,): channels come second in images and volumes, last elsewhere."""
    unit = 1 if output.dim() >= 4 else output.dim() - 1
    return output.sum(dim=[d for d in range(output.dim()) if d != unit], dtype=torch.float32)


def _some_rows(output: Tensor) -> Tensor:
    rows = output.reshape(-1, output.shape[-1])
    return rows[:: max(len(rows) // _ROWS, 1)][:_ROWS].float()


def _entropy(rows: Array) -> float:
    """Mean entropy of the rows as a share of the largest possible: 1 looks everywhere alike, 0 at one place."""
    if rows.shape[1] < 2:
        return 1.0
    return float(-(rows * np.log(np.maximum(rows, 1e-30))).sum(axis=1).mean() / np.log(rows.shape[1]))
