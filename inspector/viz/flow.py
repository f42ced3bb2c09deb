"""Gradients through the depth of a model, updates against weights, and how values spread while training."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from inspector.records import History
from inspector.records.history import LOG2_BINS
from inspector.records.stats import Grid, Stats
from inspector.viz.figure import canvas, shorten
from inspector.viz.scales import Array, array, colour_map
from inspector.viz.style import ALARM, COLOURS, MUTED, SMALL, panel

NAMED = 24  # more layers than these are not named one by one
LINES = 12  # more layers than these are a band instead of lines
USUAL = 1e-3  # update over weight, as a rule of thumb (Karpathy's notes for CS231n)


@panel
def plot_gradient_flow(stats: Stats, *, step: int | None = None, ax: Axes | None = None) -> list[Any]:
    """Size of the applied gradient of each parameter in execution order at one ``step`` (default: the last with a finite
    one), log scale: weights and biases apart, zeros marked at the foot, gaps where nothing was measured."""
    grid, statistic = _gradients(stats)
    at = _column(grid, step)
    values = grid.values[:, at]
    ax = canvas(ax, (6, 2.6))
    bias = np.array([name.endswith("bias") for name in grid.names])
    marks: list[Any] = []
    for mask, colour, label, marker in ((~bias, COLOURS[0], "weights", "o"), (bias, COLOURS[1], "biases", "s")):
        shown = mask & np.isfinite(values) & (values > 0)
        if shown.any():
            size = 4.0 if len(values) <= NAMED else 1.5
            marks += ax.plot(
                np.flatnonzero(shown), values[shown], marker, ls="-", lw=0.8, ms=size, color=colour, label=label
            )
    ax.set_yscale("log")
    plain_log(ax, values)
    _feet(ax, np.flatnonzero(np.isfinite(values) & (values == 0)), "v", "exactly 0")
    _feet(ax, np.flatnonzero(grid.present[:, at] & ~np.isfinite(values)), "x", "not finite")
    name_layers(ax, grid.names)
    ax.set_title(f"gradient flow at step {grid.steps[at]:,} ({statistic})")
    ax.grid(axis="y")
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return marks


class Sizes(NamedTuple):
    """The gradients of one step: parameters in execution order, their sizes, the step, and which statistic of what."""

    names: list[str]
    values: Array
    step: int
    what: str


def gradients_at(stats: Stats, step: int | None = None) -> Sizes:
    """At one ``step`` (default: the last with a finite one). LookupError where no gradients were measured."""
    grid, what = _gradients(stats)
    at = _column(grid, step)
    return Sizes(grid.names, grid.values[:, at], int(grid.steps[at]), what)


def _gradients(stats: Stats) -> tuple[Grid, str]:
    for kind in ("param_grad", "grad"):
        for statistic in ("rms", "norm", "absmax", "std"):
            grid = stats.grid(kind, statistic)
            if grid.names:
                return grid, f"{statistic} of {kind}"
    raise LookupError("no gradients in these statistics; watch them with Monitor(model, what=('param_grad', ...))")


def _column(grid: Grid, step: int | None) -> int:
    if step is None:
        good = np.flatnonzero(np.isfinite(grid.values).any(axis=0))
        return int(good[-1]) if good.size else len(grid.steps) - 1
    if step not in grid.steps:
        raise LookupError(f"step {step} was not measured; steps are from {grid.steps[0]} to {grid.steps[-1]}")
    return int(np.flatnonzero(grid.steps == step)[0])


def plain_log(ax: Axes, values: Array) -> None:
    """Limits around the positive of ``values`` and plain powers of ten on a log axis."""
    positive = values[np.isfinite(values) & (values > 0)]
    low, high = (positive.min() / 3, positive.max() * 6) if positive.size else (1e-8, 1.0)
    ax.set_ylim(low, high)
    powers = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
    powers = powers[:: max(1, len(powers) // 5)]
    ax.set_yticks(10.0**powers, labels=[f"{10.0**p:g}" for p in powers])
    ax.minorticks_off()


def _feet(ax: Axes, at: Array, marker: str, label: str) -> None:
    if at.size:
        height = np.full(at.shape, ax.get_ylim()[0] * 1.3)
        ax.plot(at, height, marker, color=ALARM, ms=5, ls="none", label=label)


def name_layers(ax: Axes, names: list[str]) -> None:
    """Names along x, or how many there are where they are too many."""
    ax.set_xlim(-0.6, len(names) - 0.4)
    if len(names) <= NAMED:
        labels = [shorten(name, 22) for name in names]
        ax.set_xticks(range(len(names)), labels=labels, rotation=40, ha="right", rotation_mode="anchor")
    else:
        ax.set_xlabel(f"{len(names):,} parameters in execution order", color=MUTED)


@panel
def plot_update_ratio(stats: Stats, *, ax: Axes | None = None, unit: str = "step") -> list[Any]:
    """Size of each update over the size of its weight, over steps, with the usual 1e-3 as a dashed line: a line for each
    parameter, or median and range where there are very many."""
    grid = stats.grid("update", "ratio")
    if not grid.names:
        raise LookupError("no update ratios in these statistics; watch them with Monitor(model, what=('update', ...))")
    ax = canvas(ax, (4, 2.4))
    values = np.where(grid.values > 0, grid.values, np.nan)
    lines: list[Any] = []
    if len(grid.names) <= LINES:
        for i, (name, row) in enumerate(zip(grid.names, values, strict=True)):
            style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "ls": "--" if name.endswith("bias") else "-"}
            style |= {"marker": "o", "ms": 4} if len(grid.steps) == 1 else {}
            lines += ax.plot(grid.steps, row, lw=1.0, label=shorten(name, 24), **style)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05))
    else:
        low, middle, high = band(grid.values)
        ax.fill_between(grid.steps, low, high, color=COLOURS[0], alpha=0.25, lw=0)
        lines += ax.plot(grid.steps, middle, color=COLOURS[0])
    ax.axhline(USUAL, color=MUTED, ls=(0, (4, 2)), lw=0.9)
    ax.set_yscale("log")
    plain_log(ax, np.append(values[np.isfinite(values)], [USUAL]))
    ax.set_xlabel(unit, color=MUTED)
    if len(grid.steps) == 1:
        ax.set_xticks(grid.steps)
    ax.grid(axis="y")
    spread = "" if len(grid.names) <= LINES else f": median and 5–95% of {len(grid.names):,}"
    ax.set_title(f"update / weight{spread}")
    return lines


def band(values: Array) -> tuple[Array, Array, Array]:
    """The 5th, 50th and 95th percentile over the layers (axis 0), for a log scale: NaN where it is 0."""
    low, middle, high = (np.where(q > 0, q, np.nan) for q in (_quantile(values, share) for share in (0.05, 0.5, 0.95)))
    return low, middle, high


def _quantile(values: Array, q: float) -> Array:
    """Over the layers (axis 0), NaN left out; NaN where a step has nothing."""
    ordered = np.sort(values, axis=0)
    count = np.isfinite(values).sum(axis=0)
    at = np.clip(np.round(q * (count - 1)).astype(int), 0, None)
    return np.asarray(np.where(count > 0, np.take_along_axis(ordered, at[None], axis=0)[0], np.nan))


@panel
def plot_histogram(history: History, kind: str, name: str, *, ax: Axes | None = None) -> Any:
    """How the sizes of the values spread over steps: counts by power of two, zeros below and non-finite values above."""
    known = history.histograms.get(kind, {})
    if name not in known:
        raise LookupError(f"no histogram of {kind!r} of {name!r}; there are {', '.join(list(known)[:8]) or 'none'}")
    steps, counts = known[name]
    shares = array(counts) / np.maximum(array(counts).sum(axis=1, keepdims=True), 1)
    rows = _rows(np.flatnonzero(shares.any(axis=0)))
    board = shares[:, rows].T
    ax = canvas(ax, (5, 2.8))
    norm = LogNorm(max(float(board.max()) * 1e-4, 1e-9), max(float(board.max()), 1e-8))
    cmap = colour_map("viridis").with_extremes(bad="white", under="white")
    extent = (-0.5, len(steps) - 0.5, -0.5, len(rows) - 0.5)
    drawn = ax.imshow(board, origin="lower", aspect="auto", interpolation="nearest", norm=norm, cmap=cmap, extent=extent)
    for above in np.flatnonzero(np.diff(rows) > 1):  # zero, and what is not finite, lie at no distance
        ax.axhline(above + 0.5, color=MUTED, lw=0.8, ls=(0, (4, 2)))
    at = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 9)).round().astype(int))
    ax.set_yticks(at, labels=[_bin(LOG2_BINS[rows[i]]) for i in at])
    columns = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 6)).round().astype(int))
    ax.set_xticks(columns, labels=[f"{steps[i]:,}" for i in columns])
    ax.set_xlabel(history.unit, color=MUTED)
    ax.set_title(f"|values| of {kind} at {shorten(name or '(model)', 30)}")
    ax.tick_params(axis="y", labelsize=SMALL)
    return drawn


def _rows(used: Array) -> Array:
    """The bins to draw: all from the least to the largest magnitude, and those of 0 and of no number only if used."""
    last = len(LOG2_BINS) - 1
    sizes = used[(used > 0) & (used < last)]
    between = np.arange(sizes[0], sizes[-1] + 1) if sizes.size else np.array([], dtype=int)
    found = np.r_[used[used == 0], between, used[used == last]].astype(int)
    return found if found.size else np.array([0])


def _bin(name: str) -> str:
    return f"{2.0 ** int(name.removeprefix('2**')):.2g}" if name.startswith("2**") else name
