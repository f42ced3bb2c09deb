"""What rules share: a condition must last, and the layers it is about must be of the right type."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from inspector.records.history import Column, History
from inspector.records.stats import Grid


class Held(NamedTuple):
    """A layer of which a condition has held up to now: since which step, and the value now."""

    name: str
    since: int
    value: float


def lasting(grid: Grid, bad: Column, times: int, names: Collection[str] | None = None) -> Iterator[Held]:
    """The layers for which ``bad`` (names, steps) held at each of the last ``times`` measured steps, in their order."""
    if bad.shape[1] < times:
        return
    for i in np.flatnonzero(bad[:, -times:].all(axis=1)).tolist():
        if names is None or grid.names[i] in names:
            good = np.flatnonzero(~bad[i])
            first = int(good[-1]) + 1 if len(good) else 0
            yield Held(grid.names[i], int(grid.steps[first]), float(grid.values[i, -1]))


def of_type(history: History, *types: str) -> set[str]:
    """The names of the chosen modules of these types."""
    return {name for name, kind in history.meta.get("modules", {}).items() if kind in types}


def owner(parameter: str) -> str:
    """The module that a parameter belongs to."""
    return parameter.rpartition(".")[0]


MIXING = ("Linear", "Bilinear", *(f"Conv{kind}{n}d" for kind in ("", "Transpose") for n in (1, 2, 3)))


def weights(history: History) -> set[str]:
    """Trainable parameters that mix units: matrices and kernels, without biases, norms, embeddings, and scales, of whose
    axes one alone is longer than 1. What is called no weight and is in a module of one's own is more often a table of
    positions than a matrix: it counts where most are such."""
    modules, shapes = history.meta.get("modules", {}), history.meta.get("parameters", {})
    known = {name for name, shape in shapes.items() if len(shape) > 1 and modules.get(owner(name)) in MIXING}
    others = {name for name, shape in shapes.items() if sum(n > 1 for n in shape) > 1} - known
    others = {name for name in others if "Embedding" not in modules.get(owner(name), "")}
    called = known | {name for name in others if "weight" in name.rpartition(".")[2]}
    return called if 2 * len(called) > len(known | others) else known | others


def window(values: Column, start: int, stop: int | None = None) -> float:
    """The median of a stretch, NaN of an empty one."""
    part = values[start:stop]
    return float(np.median(part)) if len(part) else float("nan")


def usual(values: Column) -> Column:
    """(names,) the median over steps, NaN where there is no number at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=1))


def largest(values: Column, axis: int) -> Column:
    """The largest number along an axis, 0 where there is none."""
    return np.asarray(np.nan_to_num(values, nan=0.0).max(axis=axis, initial=0.0))
