"""Bootstrap intervals over samples: how far a mean could be off for no better reason than which samples were drawn.

Every draw uses the same fixed seed, so that a record prints the same numbers a year later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
RESAMPLES = 1000


class Interval(NamedTuple):
    """A mean and the bounds that the resampled means keep within; all NaN where nothing was measured."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference that this is an interval of is more than chance."""
        return self.low > 0 or self.high < 0


def bootstrap(values: Tensor, *, level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """The mean of the values that are numbers, by the percentile bootstrap; NaN samples are left out."""
    means, kept = _resampled_means(values, np.random.default_rng(0), resamples)
    return _interval(float(kept.mean()), means, level) if kept.size else Interval(*[float("nan")] * 3)


def bootstrap_gap(groups: list[Tensor], *, level: float = 0.95, resamples: int = RESAMPLES) -> Interval:
    """The largest minus the smallest group mean; each group is resampled by itself, groups without a number left out."""
    generator = np.random.default_rng(0)
    drawn = [_resampled_means(values, generator, resamples) for values in groups]
    found = [(means, kept.mean()) for means, kept in drawn if kept.size]
    if len(found) < 2:
        return Interval(*[float("nan")] * 3)
    stacked = np.stack([means for means, _ in found])
    observed = [mean for _, mean in found]
    return _interval(float(max(observed) - min(observed)), stacked.max(0) - stacked.min(0), level)


def _resampled_means(values: Tensor, generator: np.random.Generator, resamples: int) -> tuple[Array, Array]:
    numbers = values.detach().double().cpu().numpy()
    kept = numbers[~np.isnan(numbers)]
    if not kept.size:
        return np.empty(0), kept
    return kept[generator.integers(0, kept.size, (resamples, kept.size))].mean(axis=1), kept


def _interval(mean: float, means: Array, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Interval(mean, float(low), float(high))
