"""How values are spread at each site, in run order: a row each, or bands over depth where there are very many."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from inspector.tensors import shape_text
from inspector.viz.figure import canvas, shorten, symlog
from inspector.viz.scales import BROKEN, Array, array, share
from inspector.viz.style import ALARM, COLOURS, INK, MUTED, SMALL, panel

NAMED = 40  # more sites than these become bands over depth
MOST_COLUMNS = 240  # and several sites share a column where there are more than these
_SEEN = 200_000  # elements looked at for the spread of one tensor


class Spread(NamedTuple):
    """How the values at one site are spread: quantiles at 0, 1, 25, 50, 75, 99, 100 %, share of zeros, broken values."""

    name: str
    shape: str
    quantiles: Array
    zeros: float
    broken: int


def spread_of(name: str, tensor: Tensor) -> Spread:
    """The spread of one tensor, from every n-th element where it has very many."""
    flat = array(tensor).reshape(-1)
    flat = flat[:: max(1, flat.size // _SEEN)]
    finite = flat[np.isfinite(flat)]
    levels = np.quantile(finite, [0, 0.01, 0.25, 0.5, 0.75, 0.99, 1]) if finite.size else np.full(7, np.nan)
    zeros = float((finite == 0).mean()) if finite.size else 0.0
    return Spread(name, shape_text(tensor), levels, zeros, flat.size - finite.size)


@panel
def plot_spreads(spreads: list[Spread], *, ax: Axes | None = None, title: str = "", named: bool = True) -> Any:
    """How values are spread at each site, in run order from the top: a row each, or bands where there are very many."""
    ax = canvas(ax, (5, 0.9 + 0.2 * min(len(spreads), NAMED)))
    ax.set_title(title)
    if len(spreads) > NAMED:
        return _bands(ax, spreads)
    for row, spread in enumerate(spreads):
        _row(ax, row, spread)
    _scale_axis(ax, spreads)
    ax.set_yticks(range(len(spreads)), labels=[f"{shorten(s.name, 26)}  {s.shape}" for s in spreads] if named else [])
    ax.set_ylim(len(spreads) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    return ax


def _row(ax: Axes, row: int, spread: Spread) -> None:
    low, p1, q1, middle, q3, p99, high = spread.quantiles
    ax.plot([low, high], [row, row], color=COLOURS[0], lw=0.7, alpha=0.8)
    ax.plot([p1, p99], [row, row], color=COLOURS[0], lw=3, alpha=0.35, solid_capstyle="butt")
    ax.plot([q1, q3], [row, row], color=COLOURS[0], lw=6, alpha=0.75, solid_capstyle="butt")
    ax.plot([middle], [row], "o", color="white", mec=COLOURS[0], ms=3.4, mew=0.9)
    remarks = ["none"] if not spread.shape else []
    remarks += [f"{share(spread.zeros)} zeros"] if spread.zeros >= 0.01 else []
    remarks += [f"{spread.broken:,} not finite"] if spread.broken else []
    colour = ALARM if spread.broken or spread.zeros > 0.99 else MUTED
    ax.annotate(
        "  ".join(remarks), (1.01, row), xycoords=ax.get_yaxis_transform(), size=SMALL - 0.5, color=colour, va="center"
    )


def _sizes(spreads: list[Spread]) -> Array:
    """How large the bulk of each site's values is, where it is anything."""
    ends = np.abs(np.array([s.quantiles[[1, 5]] for s in spreads]).reshape(-1, 2)).max(axis=1, initial=0.0)
    kept: Array = ends[np.isfinite(ends) & (ends > 0)]
    return kept


def _scale_axis(ax: Axes, spreads: list[Spread]) -> None:
    """Symmetric log where layers differ by orders of magnitude, so that small ones stay visible."""
    sizes, ends = _sizes(spreads), np.array([s.quantiles[[0, 6]] for s in spreads]).reshape(-1, 2)
    far = sizes.size > 0 and bool(sizes.max() > 8 * sizes.min())
    if far:
        symlog(ax, "x", sizes)
    low, high = (float(v) for v in (np.nanmin(ends, initial=0.0), np.nanmax(ends, initial=0.0)))
    room = 1.6 if far else 1.1
    ax.set_xlim(room * low, room * high if high > low else 1.0)
    ax.axvline(0, color=MUTED, lw=0.6)


def _bands(ax: Axes, spreads: list[Spread]) -> Any:
    """One column per site; of more sites than a figure has room for, some share a column, which takes their extremes."""
    each = -(-len(spreads) // MOST_COLUMNS)
    levels, left = _columns(np.array([s.quantiles for s in spreads]), each), np.arange(0, len(spreads), each)
    edges = np.append(left, len(spreads)) - 0.5
    for low, high, alpha in ((0, 6, 0.15), (1, 5, 0.3), (2, 4, 0.6)):
        below, above = (np.append(levels[:, at], levels[-1:, at]) for at in (low, high))
        ax.fill_between(edges, below, above, step="post", color=COLOURS[0], alpha=alpha, lw=0)
    ax.plot(edges, np.append(levels[:, 3], levels[-1:, 3]), color=INK, lw=0.8, drawstyle="steps-post")
    for site in (i for i, spread in enumerate(spreads) if spread.broken):
        ax.axvspan(site - 0.5, site + 0.5, color=BROKEN, alpha=0.4, lw=0, zorder=0)
    sizes = _sizes(spreads)
    if sizes.size and sizes.max() > 8 * sizes.min():
        symlog(ax, "y", sizes)
    at = np.unique(np.linspace(0, len(spreads) - 1, 8).round().astype(int))
    ax.set_xticks(at, labels=[shorten(spreads[i].name, 18) for i in at], rotation=30, ha="right", rotation_mode="anchor")
    ax.set_xlim(edges[0], edges[-1])
    shared = f", {each} to a column" if each > 1 else ""
    ax.set_xlabel(f"{len(spreads):,} sites in run order{shared}", color=MUTED)
    return ax


def _columns(levels: Array, each: int) -> Array:
    """Quantiles (sites, 7) of every ``each`` sites as one: the least of the lower, the median of the middle, the most of
    the upper ones; NaN where none of them has any."""
    padded = np.concatenate([levels, np.full((-len(levels) % each, 7), np.nan)]).reshape(-1, each, 7)
    lower = np.where(np.isnan(padded[..., :3]), np.inf, padded[..., :3]).min(axis=1)
    upper = np.where(np.isnan(padded[..., 4:]), -np.inf, padded[..., 4:]).max(axis=1)
    ordered = np.sort(padded[..., 3], axis=1)  # NaN last
    counted = np.isfinite(ordered).sum(axis=1)
    middle = ordered[np.arange(len(ordered)), np.maximum(counted - 1, 0) // 2]
    joined = np.concatenate([lower, middle[:, None], upper], axis=1)
    return np.where(np.isfinite(joined), joined, np.nan)
