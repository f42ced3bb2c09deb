"""Which groups differ by more than chance: permutation tests on shares, corrected for how many were made.

Under chance a share is spread over the groups as balls are drawn from an urn, so permuted counts come from the
hypergeometric distribution without permuting anything. Small groups weigh what they hold: a gap between the largest
and the smallest rate would find noise in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inspector.models.resampling import Array, Interval, interval
from inspector.records.assessment import Disparity

PERMUTATIONS = 10_000
CHANCE = 0.05  # of finding anything at all where all groups are alike
LOWER_IS_WORSE = ("accuracy", "precision", "recall", "f1", "selection_rate")
SMALL = 30  # samples; below, a rate is known to 18 points at best


class Share(NamedTuple):
    """Hits among samples, per group: what one rate is made of. within: see ``Column``."""

    column: str
    within: Mapping[str, tuple[str, ...]]
    rate: str
    hits: NDArray[np.int64]
    sizes: NDArray[np.int64]


def shares(
    column: str, confusions: Mapping[str, Array], within: Mapping[str, tuple[str, ...]], positive: int | None
) -> list[Share]:
    """The rates of a column that are shares of samples; with a positive class also those about it."""
    counts = np.stack(list(confusions.values())).astype(np.int64)
    n, right = counts.sum((1, 2)), np.trace(counts, axis1=1, axis2=2)
    found = [Share(column, within, "accuracy", right, n)]
    if positive is None:
        return found
    true, said, both = counts[:, positive].sum(1), counts[:, :, positive].sum(1), counts[:, positive, positive]
    return [
        *found,
        Share(column, within, "selection_rate", said, n),
        Share(column, within, "false_positive_rate", said - both, n - true),
        Share(column, within, "false_negative_rate", true - both, true),
    ]


def disparities(tested: list[Share], random: np.random.Generator) -> tuple[Disparity, ...]:
    """For each share that differs more than chance (Holm 1979: 5 % over all that were tested), the group that stands
    out most for the worse; the clearest first."""
    raw = np.array([_p(share, random) for share in tested])
    found = [_worst(share, p, random) for share, p in zip(tested, holm(raw), strict=True) if p < CHANCE]
    found.sort(key=lambda pair: -pair[0])
    return tuple(disparity for _, disparity in found)


def _p(share: Share, random: np.random.Generator) -> float:
    """How often as uneven a share comes about by chance. An intersection is compared within each of its columns in turn
    and the larger p counts, so that it is found only where no column alone explains it."""
    codes = [np.unique(labels, return_inverse=True)[1] for labels in zip(*share.within.values(), strict=True)]
    return max(_p_within(share, code, random) for code in codes)


def _p_within(share: Share, code: NDArray[np.intp], random: np.random.Generator) -> float:
    observed, permuted = 0.0, np.zeros(PERMUTATIONS)
    for stratum in range(code.max() + 1):
        kept = (code == stratum) & (share.sizes > 0)
        sizes, hits = share.sizes[kept], share.hits[kept]
        if len(sizes) < 2 or hits.sum() in (0, sizes.sum()):
            continue  # nothing to compare here
        drawn = random.multivariate_hypergeometric(sizes, int(hits.sum()), size=PERMUTATIONS, method="marginals")
        permuted += (drawn**2 / sizes).sum(1)  # the sum of sizes * (rate - mean)^2, up to a constant
        observed += float((hits**2 / sizes).sum())
    return float((1 + (permuted >= observed * (1 - 1e-12)).sum()) / (1 + PERMUTATIONS))


def holm(p: Array) -> Array:
    """p values (tests,) corrected for how many there are, by the step-down rule of Holm (1979)."""
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def _worst(share: Share, p: float, random: np.random.Generator) -> tuple[float, Disparity]:
    """The group that stands out most for the worse, in deviations from the others."""
    rest_sizes, rest_hits = share.sizes.sum() - share.sizes, share.hits.sum() - share.hits
    value, rest = (h / np.maximum(s, 1) for h, s in ((share.hits, share.sizes), (rest_hits, rest_sizes)))
    mean = share.hits.sum() / share.sizes.sum()
    error = np.sqrt(mean * (1 - mean) * (1 / np.maximum(share.sizes, 1) + 1 / np.maximum(rest_sizes, 1)))
    sign = -1 if share.rate in LOWER_IS_WORSE else 1
    stands_out = np.where((share.sizes > 0) & (rest_sizes > 0), sign * (value - rest) / error, -np.inf)
    i = int(stands_out.argmax())
    between = _difference(share.hits[i], share.sizes[i], rest_hits[i], rest_sizes[i], random)
    n = int(share.sizes[i])
    found = (share.column, list(share.within)[i], share.rate, float(value[i]), float(rest[i]), between, p, n, n < SMALL)
    return float(stands_out[i]), Disparity(*found)


def _difference(hits: int, size: int, rest_hits: int, rest_size: int, random: np.random.Generator) -> Interval:
    """Bootstrap interval of the difference of two shares; one success and one failure are added to each (Agresti and
    Caffo 2000), so that shares of 0 and 1 keep a width."""
    drawn = [random.binomial(n + 2, (k + 1) / (n + 2), 4000) / (n + 2) for k, n in ((hits, size), (rest_hits, rest_size))]
    return interval(drawn[0] - drawn[1])
