"""Rates of a classifier from its confusion counts, for many counts at once, and their bootstrap intervals.

Every rate here is a function of the counts, so drawing samples with replacement is drawing the counts anew from a
multinomial: exact, and a thousand draws cost no more than one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

LEVEL = 0.95
DRAWS = 2000


class Counts(NamedTuple):
    """What the rates need of a confusion matrix: per class (..., classes) how many were right, truly it, and said it."""

    right: Array
    true: Array
    said: Array


def counts(confusion: Array) -> Counts:
    """Of one matrix (classes, classes), rows are true classes."""
    return Counts(np.diagonal(confusion).astype(float), confusion.sum(1).astype(float), confusion.sum(0).astype(float))


def draws(confusion: Array, random: np.random.Generator) -> Counts:
    """Counts as they might have come out, (DRAWS, classes); only cells that hold something are drawn."""
    true, said = np.nonzero(confusion)
    held = confusion[true, said]
    drawn = random.multinomial(int(held.sum()), held / held.sum(), size=DRAWS).astype(float)
    classes = len(confusion)
    return Counts(*(_totals(drawn, keys, classes) for keys in (np.where(true == said, true, classes), true, said)))


def rates(counts: Counts, positive: int | None) -> dict[str, Array]:
    """All rates of counts: macro means over the classes that occur, and those of ``positive`` against the rest; without
    one, false positives and negatives are macro means too. NaN where there is nothing to count."""
    right, true, said = counts
    n = true.sum(-1, keepdims=True)
    macro = {"precision": _share(right, said), "recall": _share(right, true), "f1": _share(2 * right, true + said)}
    found = {name: _mean(np.nan_to_num(value), true + said > 0) for name, value in macro.items()}
    false = {"false_positive_rate": _share(said - right, n - true), "false_negative_rate": _share(true - right, true)}
    chosen = {"selection_rate": _share(said, n), "base_rate": _share(true, n)}
    if positive is None:
        found |= {name: _mean(value, ~np.isnan(value)) for name, value in false.items()}
        found |= {name: np.full(n.shape[:-1], np.nan) for name in chosen}
    else:
        found |= {name: value[..., positive] for name, value in (false | chosen).items()}
    return {"accuracy": _share(right.sum(-1), n[..., 0]), **found}


def interval(values: Array) -> Interval:
    """The middle 95 % of bootstrap values (draws,); NaN where there are none."""
    kept = values[~np.isnan(values)]
    if not kept.size:
        return (np.nan, np.nan)
    low, high = np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def widened(found: Interval, rate: float, n: float) -> Interval:
    """The interval of a share of n samples; where the share is 0 or 1 there is nothing to resample, and the bound of
    Clopper and Pearson (1934) stands in for an interval of no width."""
    if n == 0 or 0 < rate < 1 or np.isnan(rate):
        return found
    bound = ((1 - LEVEL) / 2) ** (1 / n)
    return (bound, 1.0) if rate == 1 else (0.0, 1 - bound)


def denominators(counts: Counts, positive: int | None) -> dict[str, float]:
    """Over how many samples each share is taken."""
    n = float(counts.true.sum())
    if positive is None:
        return {"accuracy": n}
    true = float(counts.true[positive])
    return {"accuracy": n, "selection_rate": n, "false_positive_rate": n - true, "false_negative_rate": true}


def _totals(drawn: Array, keys: NDArray[np.int64], classes: int) -> Array:
    """Sums of the columns (draws, cells) that have the same key: (draws, classes); other keys are left out."""
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    totals = np.zeros((len(drawn), classes + 1))
    totals[:, found] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return totals[:, :classes]


def _share(part: Array, whole: Array) -> Array:
    nothing = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    found: Array = np.divide(part, whole, out=nothing, where=whole > 0)
    return found


def _mean(values: Array, counts: NDArray[np.bool_]) -> Array:
    return _share(np.where(counts, values, 0.0).sum(-1), counts.sum(-1).astype(float))
