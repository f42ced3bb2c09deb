"""Rules about parameters: how far a step moves them, how they were initialised, and which never learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.monitor.rules.judge import Held, lasting, of_type, owner, weights
from inspector.records.history import Finding, History
from inspector.records.stats import Grid

_CS231N = "cs231n: updates of about a thousandth of the weights; AWS SageMaker Debugger's WeightUpdateRatio"


def update_ratio(history: History) -> Iterator[Finding]:
    """A step moves a weight by more than a fifth of its size look after look, or once by more than all of it; or by less
    than a millionth, for a third of the steps so far: a schedule that ends at zero does so for less."""
    grid = history.stats.grid("update", "ratio")
    if not len(grid.steps):
        return
    high, limit = _too_far(history, grid)
    if high:
        name, since, value = max(high, key=lambda held: held.value)
        message = f"a step changes {name}{_more(high)} by {100 * value:.0f} % of its size"
        yield Finding("update_ratio", name, since, value, limit, message, "Lower the learning rate.", _CS231N)
    settled = grid._replace(values=grid.values[:, grid.steps > 10], steps=grid.steps[grid.steps > 10])
    mixing = weights(history)
    reached = set(history.stats.grid("param_grad", "n").names) or mixing
    low = [
        held for held in lasting(settled, settled.values < 1e-6, 3, mixing & reached) if 1.5 * held.since <= grid.steps[-1]
    ]
    if low:
        name, since, value = min(low, key=lambda held: held.value)
        change = f"by only {value:.1e} of its size" if value else "not at all"
        message = f"each step changes {name}{_more(low)} {change}"
        advice = "Raise the learning rate (or its schedule's end), or check that gradients reach it."
        yield Finding("update_ratio", name, since, value, 1e-6, message, advice, _CS231N)


def _too_far(history: History, grid: Grid) -> tuple[list[Held], float]:
    """The weights that steps move too far, and the threshold. At the first step, half of the weights must agree: one may
    have begun next to zero on purpose."""
    began = grid.present[:, 0].tolist()  # the others began at zero
    names = weights(history) & {name for name, there in zip(grid.names, began, strict=True) if there}
    keep = [i for i, name in enumerate(grid.names) if name in names]
    whole = grid.values[keep] > 1.0
    if len(keep) and whole[:, 0].mean() <= 0.5:
        whole[:, 0] = False
    at = [(keep[i], int(step)) for i, step in zip(*np.nonzero(whole), strict=True)]
    if at:
        return [Held(grid.names[i], int(grid.steps[step]), float(grid.values[i, step])) for i, step in at], 1.0
    return list(lasting(grid, grid.values > 0.2, 2, names)), 0.2


def _more(held: list[Held]) -> str:
    more = len({h.name for h in held}) - 1
    return f" (and {more} more)" if more else ""


def poor_initialisation(history: History) -> Iterator[Finding]:
    """At the first measured step, the spread of the outputs changes by a factor of 100 from one end of the model to the
    other; or several layers answer zero, and still do two measured steps later. Of the spread two kinds are left out: what
    a norm follows, since it undoes any scale, and the last layer, which is often small on purpose and, with few units,
    spreads over samples only."""
    if not len(history.stats.steps) or history.stats.steps[0] > 1:
        return
    grid = history.stats.grid("output", "std")
    mixing = of_type(history, "Linear", "Conv1d", "Conv2d", "Conv3d")
    at = [i for i, name in enumerate(grid.names) if name in mixing]
    if not at or not len(grid.steps) or grid.steps[0] > 1:
        return
    names, spread = [grid.names[i] for i in at], grid.values[at, 0]
    silent = _silent(history, names)
    if len(silent) > 1:
        message = f"{', '.join(silent[:3])} have answered zero since the first step: zero weights, or no input but zeros"
        yield Finding("poor_initialisation", silent[0], 1, 0.0, 0.0, message, _INITIALISE, _GLOROT)
        return
    normed = np.array(["Norm" in _type_after(history, grid.names, i) for i in at])
    begun = (spread != 0.0) & (np.arange(len(names)) < len(names) - 1) & ~normed
    names, spread = [name for name, kept in zip(names, begun, strict=True) if kept], spread[begun]
    known = spread[np.isfinite(spread)]
    if len(known) >= 4 and known.max() > 100.0 * known.min():
        name, ratio = _where_it_turns(names, spread), float(known.max() / known.min())
        message = f"the spread of the outputs changes {ratio:.0f}-fold across depth at the first step, most of all at {name}"
        yield Finding("poor_initialisation", name, 1, ratio, 100.0, message, _INITIALISE, _GLOROT)


_GLOROT = "Glorot and Bengio 2010; AWS SageMaker Debugger's PoorWeightInitialization looks at the same ratio"
_INITIALISE = "Initialise for the activation in use (Xavier for tanh, Kaiming for rectifiers), or normalise."


def _type_after(history: History, names: list[str], i: int) -> str:
    """The type of the module that answers next in execution order."""
    return str(history.meta.get("modules", {}).get(names[i + 1], "")) if i + 1 < len(names) else ""


def _silent(history: History, names: list[str]) -> list[str]:
    """Those that answered zero at each of at least three measured steps. At the first it means nothing: adapters, gates and
    ends of branches begin at zero so that what they stand beside is undisturbed, and leave it as soon as they learn."""
    grid = history.stats.grid("output", "absmax")
    zero = (grid.values == 0.0).all(axis=1)
    found = {name for name, still in zip(grid.names, zero, strict=True) if still} if len(grid.steps) > 2 else set()
    return [name for name in names if name in found]


def _where_it_turns(names: list[str], spread: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """The layer whose spread differs most from that of the layer before it."""
    steps = np.abs(np.diff(np.log(np.maximum(spread, 1e-30))))
    return names[int(np.nan_to_num(steps).argmax()) + 1]


def frozen(history: History) -> Iterator[Finding]:
    """A trainable parameter that no optimizer steps, or that no gradient has reached at any measured step."""
    stepped = history.meta.get("stepped")
    steps = history.stats.grid("param_grad", "n").steps
    if stepped is None or len(steps) < 3:
        return
    grads = history.stats.grid("param_grad", "absmax")
    any_there = np.any((grads.values > 0) | np.isnan(grads.values), axis=1)
    reached = {name for name, there in zip(grads.names, list(any_there), strict=True) if there}
    source = "AWS SageMaker Debugger's UnchangedTensor"
    trained = history.meta.get("parameters", {})
    known = set(stepped)
    left_out = [p for p in trained if p not in known]
    if left_out:
        message = f"{_named(left_out)} requires a gradient but is in no optimizer that was seen to step"
        advice = "Give it to the optimizer, or freeze it."
        yield Finding("frozen", left_out[0], int(steps[0]), 0.0, 0.0, message, advice, source)
    unreached = [p for p in stepped if p not in reached and p in trained]
    if unreached:
        message = f"no gradient reaches {_named(unreached)}: it is disconnected from the loss, or all that comes is zero"
        advice = "Look for a detach(), a branch or expert that is not used, or a layer before the loss that is dead."
        yield Finding("frozen", unreached[0], int(steps[0]), 0.0, 0.0, message, advice, source)


def _named(parameters: list[str]) -> str:
    """The first, and in brackets how many modules' more there are, with the first three of these."""
    first, *more = list({owner(p): p for p in reversed(parameters)}.values())[::-1]
    some = ", ".join(more[:3]) + ", ..." * (len(more) > 3)
    return f"{first} (and {len(more)} more: {some})" if more else first
