"""Which features carry the scores of one group of people away from the others'.

An attribution that is complete adds up to the score, so a difference of mean scores between groups splits into one part
for each feature. People are compared with those of the same true class, so that merit is not taken for prejudice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inspector.models.disparity import holm
from inspector.models.grouping import columns
from inspector.records import Attribution, Samples
from inspector.tensors import shape_text

PERMUTATIONS = 2000
CHANCE = 0.05
SMALL_EFFECT = 0.2  # deviations of the score within a class: below, a difference is of no account (Cohen 1988)

Array = NDArray[np.float64]


class Blame(NamedTuple):
    """A feature that moves a group's scores. difference: its mean attribution in the group minus among the others of the
    same class; effect: that in deviations of the score; p: corrected for all features and groups."""

    column: str
    group: str
    feature: str
    difference: float
    effect: float
    p: float

    def __str__(self) -> str:
        direction = "down" if self.difference < 0 else "up"
        return (
            f"{self.feature} moves the score of {self.column}={self.group} {direction} by {abs(self.effect):.2f} "
            f"deviations against others of the same class (p {'<' if self.p < 0.001 else '='} {max(self.p, 0.001):.3f})"
        )


def blame(attribution: Attribution, groups: Any = None, *, effect: float = SMALL_EFFECT, seed: int = 0) -> tuple[Blame, ...]:
    """The features that set a group apart by more than chance and by ``effect`` deviations of the score or more,
    the strongest first.

    attribution: of one class for all samples, over rows of features. groups: a column of labels or a dict of them
    (default: those of its samples). Holm's correction holds the chance of any false find at 5 %.
    """
    heat, samples = attribution.heat.detach().cpu().double().numpy(), attribution.samples
    if heat.ndim != 2:
        raise ValueError(f"blame reads rows of features (batch, features), not a heat of {shape_text(attribution.heat)}")
    known = columns(samples if groups is None else Samples(samples.inputs, groups=groups))
    if not known:
        raise ValueError("the samples have no groups; give groups= a label for each, or a dict of columns of them")
    plain = {name: column.members for name, column in known.items() if set(column.within.values()) == {("",)}}
    if all(len(members) < 2 for members in plain.values()):
        labels = ", ".join(f"{name}={label}" for name, members in plain.items() for label in members)
        raise ValueError(f"nobody to compare with: all samples are {labels}; give groups of two labels or more")
    strata = np.zeros(len(heat), int) if samples.target is None else samples.target.cpu().numpy()
    rows = [row for name, members in plain.items() for row in _tested(name, members, heat, strata, seed)]
    corrected = holm(np.array([row[-1] for row in rows])).tolist()
    names = samples.names.get("features") or [f"feature {i}" for i in range(heat.shape[1])]
    found = [Blame(c, g, str(names[i]), d, e, p) for (c, g, i, d, e, _), p in zip(rows, corrected, strict=True)]
    return tuple(sorted((b for b in found if b.p < CHANCE and abs(b.effect) >= effect), key=lambda b: -abs(b.effect)))


def _tested(name: str, members: Mapping[str, Any], heat: Array, strata: Any, seed: int) -> list[tuple[Any, ...]]:
    """For each group and feature: column, group, feature, difference, effect, p; of two groups the first says it all."""
    random, scale = np.random.default_rng(seed), _spread(heat.sum(1), strata)
    found: list[tuple[Any, ...]] = []
    for group, rows in list(members.items())[: -1 if len(members) <= 2 else None]:
        inside = np.zeros((1, len(heat)))
        inside[0, rows.numpy()] = 1.0
        real = _differences(heat, inside, strata)[0]
        shuffled = _differences(heat, _shuffled(inside[0], strata, random), strata)
        p = (1 + (np.abs(shuffled) >= np.abs(real) - 1e-12).sum(0)) / (1 + PERMUTATIONS)
        found += [(name, group, i, float(real[i]), float(real[i] / scale), float(p[i])) for i in range(len(real))]
    return found


def _spread(scores: Array, strata: Any) -> float:
    """Deviation of the scores within the strata, pooled; 1 where they do not vary."""
    centred = scores.copy()
    for stratum in np.unique(strata):
        centred[strata == stratum] -= scores[strata == stratum].mean()
    return float(centred.std()) or 1.0


def _differences(heat: Array, inside: Array, strata: Any) -> Array:
    """Mean heat in the group minus outside within each stratum, averaged by how many of the group are in it: for
    memberships (draws, batch) of 0 and 1, (draws, features)."""
    total, weight = np.zeros((len(inside), heat.shape[1])), 0.0
    for stratum in np.unique(strata):
        kept = strata == stratum
        ours, part = inside[:, kept], heat[kept]
        n, size = ours[0].sum(), int(kept.sum())
        if 0 < n < size:
            held = ours @ part
            total += n * (held / n - (part.sum(0) - held) / (size - n))
            weight += n
    return total / max(weight, 1.0)


def _shuffled(inside: Array, strata: Any, random: np.random.Generator) -> Array:
    """Memberships as they would fall by chance within each stratum: (PERMUTATIONS, batch)."""
    drawn = np.tile(inside, (PERMUTATIONS, 1))
    for stratum in np.unique(strata):
        kept = np.flatnonzero(strata == stratum)
        drawn[:, kept] = random.permuted(drawn[:, kept], axis=1)
    return drawn
