"""Statistics of all layers over all steps as one image, in execution order: the view that still reads with 1,000 layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from inspector.records import Finding
from inspector.records.stats import Grid, Stats
from inspector.viz.figure import canvas, shorten
from inspector.viz.scales import ABSENT, BROKEN, Array, colour_map, number, signed
from inspector.viz.style import ALARM, MUTED, panel

COLUMNS = 1200  # more steps than these are thinned: no figure is wider
NOTHING = "#000000"  # exactly 0 where colours are logarithmic
NAMED = 40  # more layers than these are not named one by one


def grid_of(stats: Stats, kind: str, statistic: str, steps: Array | None = None) -> Grid:
    """One statistic of one kind over layers, on steps that lie equally far apart (of those it has and ``steps``), as many
    as a figure can show; LookupError where there is none."""
    grid = stats.grid(kind, statistic)
    if not grid.names:
        there = ", ".join(f"{s} of {k}" for k, s in pairs_of(stats)[:12]) or "nothing"
        raise LookupError(f"no {statistic!r} of {kind!r} in these statistics; there is {there}")
    for counted in (stats.grid(kind, "nan"), stats.grid(kind, "inf")):
        grid = _with_broken(grid, counted)
    return _evenly(grid if steps is None else _on(grid, np.union1d(grid.steps, steps)))


def _with_broken(grid: Grid, counted: Grid) -> Grid:
    """A layer that held a NaN or Inf may have no such statistic there, yet it was measured."""
    bad = np.nan_to_num(counted.values) > 0
    grid = _on(grid, np.union1d(grid.steps, counted.steps[bad.any(axis=0)]))
    column = {step: i for i, step in enumerate(grid.steps.tolist())}
    row = {name: i for i, name in enumerate(grid.names)}
    for i, at in zip(*np.nonzero(bad), strict=True):
        if counted.names[i] in row:
            here = row[counted.names[i]], column[int(counted.steps[at])]
            grid.values[here], grid.present[here] = np.nan, True
    return grid


def _on(grid: Grid, steps: Array) -> Grid:
    """The same on more steps; what was not measured there is absent."""
    shape = (len(grid.names), len(steps))
    values, present = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    at = np.searchsorted(steps, grid.steps)
    values[:, at], present[:, at] = grid.values, grid.present
    return Grid(grid.names, steps, values, present)


def _evenly(grid: Grid) -> Grid:
    """On equally spaced steps, so that time runs evenly though some stretches were measured more often: each shows what
    was measured last, unless that is longer ago than measurements lie apart here, and what was not finite since then."""
    steps = grid.steps
    if len(steps) < 2:
        return grid
    apart, unit = _apart(steps), float(np.gcd.reduce(np.diff(steps).astype(np.int64)))
    first, last = float(steps[0]), float(steps[-1]) + apart - unit
    even = np.linspace(first, last, int(min((last - first) / unit + 1, COLUMNS)))
    at = np.searchsorted(steps, even + 1e-6, side="right") - 1
    fresh = even - steps[at] < max(apart, float(even[1] - even[0]))
    counted = np.cumsum(grid.present & ~np.isfinite(grid.values), axis=1)
    broken = np.diff(counted[:, at], axis=1, prepend=counted[:, :1] * 0) > 0
    values = np.where(fresh & ~broken, grid.values[:, at], np.nan)
    return Grid(grid.names, even, values, (grid.present[:, at] & fresh) | broken)


def _apart(steps: Array) -> float:
    """The largest distance between measured steps, leaving out holes: distances (within twice) of which there are few."""
    gaps = np.diff(steps).astype(float)
    size = np.floor(np.log2(gaps)).astype(int)
    common = np.bincount(size)[size] >= 3
    return float(gaps[common].max() if common.any() else gaps.max())


def pairs_of(stats: Stats) -> list[tuple[str, str]]:
    """Every (kind, statistic) there is, in order of first appearance."""
    return list(dict.fromkeys((series.kind, series.statistic) for series in stats.series))


@panel
def plot_layers(
    stats: Stats,
    kind: str,
    statistic: str,
    *,
    ax: Axes | None = None,
    findings: list[Finding] | None = None,
    steps: Array | None = None,
    unit: str = "step",
    scale_of: Array | None = None,
) -> AxesImage:
    """Layers down in execution order, steps to the right. Log colours where values span orders of magnitude, diverging
    where they have signs; yellow = not finite, pale grey = nothing was measured. Orange marks: findings. scale_of: values
    that the colours must hold, where several maps share one scale."""
    found = grid_of(stats, kind, statistic, steps)
    ax = canvas(ax, (6, 0.16 * min(len(found.names), NAMED) + 1.2))
    norm, cmap, how = _colours(found.values if scale_of is None else scale_of)
    shape = found.values.shape
    extent = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    drawn = ax.imshow(found.values, norm=norm, cmap=cmap, aspect="auto", interpolation="nearest", extent=extent)
    _paint(ax, found.present & ~np.isfinite(found.values), BROKEN, extent)
    if isinstance(norm, LogNorm):  # it has no place for 0, which would look as if nothing had been measured
        _paint(ax, found.present & (found.values == 0), NOTHING, extent)
    _axes(ax, found, unit)
    _marks(ax, found, findings or [])
    ax.set_title(f"{kind} · {statistic}{how}")
    return drawn


def _colours(values: Array) -> tuple[Normalize, Colormap, str]:
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    if finite.size and finite.min() < 0:
        return signed(finite).norm, colour_map("RdBu_r").with_extremes(bad=ABSENT), ""
    if positive.size and positive.max() > 100 * positive.min():
        low = max(float(positive.min()), float(positive.max()) * 1e-12)
        cmap = colour_map("viridis").with_extremes(bad=ABSENT, under=NOTHING)
        return (
            LogNorm(low, max(float(np.percentile(positive, 99)), low * 10)),
            cmap,
            " (log colours; black: 0)",
        )
    high = float(np.percentile(finite, 99)) if finite.size else 1.0
    low = 0.0 if not finite.size or finite.min() < 0.5 * high else float(np.percentile(finite, 1))
    return Normalize(low, high if high > low else low + 1.0), colour_map("viridis").with_extremes(bad=ABSENT), ""


def _paint(ax: Axes, cells: Array, colour: str, extent: tuple[float, float, float, float]) -> None:
    if cells.any():
        ax.imshow(np.where(cells[..., None], _rgba(colour), 0.0), aspect="auto", interpolation="nearest", extent=extent)


def _rgba(colour: str) -> tuple[float, ...]:
    return (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def _axes(ax: Axes, found: Grid, unit: str) -> None:
    rows, columns = found.values.shape
    if rows <= NAMED:
        ax.set_yticks(range(rows), labels=[shorten(name, 26) or "(model)" for name in found.names])
    else:
        at = np.unique(np.linspace(0, rows - 1, 12).round().astype(int))
        ax.set_yticks(at, labels=[shorten(found.names[i], 26) for i in at])
        ax.set_ylabel(f"{rows:,} layers in execution order", color=MUTED)
    first, last = float(found.steps[0]), float(found.steps[-1])
    kept = [t for t in MaxNLocator(7, integer=True).tick_values(first, last) if first <= t <= last] or [first]
    ax.set_xticks(np.interp(kept, found.steps, np.arange(columns)), labels=[f"{t:,.0f}" for t in kept])
    ax.set_xlabel(unit, color=MUTED)
    ax.tick_params(axis="y", length=0)


def _marks(ax: Axes, found: Grid, findings: list[Finding]) -> None:
    """A finding without a name is about no layer."""
    row_of = {name: row for row, name in enumerate(found.names)}
    here = [f for f in findings if f.name and f.name in row_of]
    if here:
        x = np.interp([f.step for f in here], found.steps, np.arange(len(found.steps)))
        ax.plot(x, [row_of[f.name] for f in here], ">", color=ALARM, ms=6, mec="white", mew=0.7, ls="none", clip_on=False)


def layers_bar(ax: Axes | list[Axes], drawn: AxesImage, *, label: str = "") -> Any:
    """A colour bar for ``plot_layers`` with plain numbers, beside one map or several."""
    bar = drawn.axes.figure.colorbar(drawn, ax=ax, fraction=0.03, pad=0.015, aspect=22, extend="both")
    low, high = drawn.get_clim()
    assert low is not None
    assert high is not None
    middle = float(np.sqrt(low * high)) if isinstance(drawn.norm, LogNorm) else (low + high) / 2
    bar.set_ticks([low, middle, high], labels=[number(v) for v in (low, middle, high)])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label(label, color=MUTED)
    return bar
