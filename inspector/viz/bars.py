"""Bars for rows of a table: the side tells the sign, the length the size, and the feature's own value stands beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from torch import Tensor

from inspector.viz.figure import canvas, shorten
from inspector.viz.scales import Array, array, number
from inspector.viz.style import COLOURS, INK, MUTED, SMALL, panel

POSITIVE, NEGATIVE = "#b2182b", "#2166ac"  # the ends of the diverging map


@panel
def plot_features(
    values: Tensor | Array,
    given: Tensor | Array | None = None,
    *,
    names: Sequence[str] | None = None,
    top: int = 12,
    reach: float | None = None,
    ax: Axes | None = None,
) -> BarContainer:
    """Horizontal bars for the ``top`` features (F,) by size, the largest first, labelled ``name = value``. ``reach``
    shares the horizontal limits between panels. The rest is summed into one last bar, so that nothing is hidden."""
    heat = array(values)
    order = np.argsort(-np.nan_to_num(np.abs(heat), nan=np.inf), kind="stable")
    kept, rest = order[:top], order[top:]
    ax = canvas(ax, (4.2, 0.26 * (len(kept) + bool(len(rest))) + 0.7))
    labels = [_feature(int(i), names, given) for i in kept] + [f"{len(rest)} others"] * bool(len(rest))
    sizes = np.append(heat[kept], [np.nansum(heat[rest])] if len(rest) else [])
    colours = [POSITIVE if v > 0 else NEGATIVE for v in sizes]
    bars = ax.barh(range(len(sizes)), np.nan_to_num(sizes), color=colours, height=0.68)
    if len(rest):
        bars[-1].set(alpha=0.45)
    for y, value in enumerate(sizes):
        _figure_beside(ax, y, value)
    _finish(ax, labels, reach or float(np.nanmax(np.abs(sizes), initial=0.0)) or 1.0)
    return bars


def _feature(i: int, names: Sequence[str] | None, given: Tensor | Array | None) -> str:
    name = shorten(str(names[i]), 24) if names is not None else f"feature {i}"
    return name if given is None else f"{name} = {number(float(array(given)[i]))}"


def _figure_beside(ax: Axes, y: int, value: float) -> None:
    text = "not a number" if value != value else number(value, sign=True)
    right = not value < 0
    where: dict[str, Any] = {"ha": "left" if right else "right", "va": "center", "size": SMALL - 0.5, "color": MUTED}
    ax.annotate(text, (np.nan_to_num(value), y), xytext=(3 if right else -3, 0), textcoords="offset points", **where)


def _finish(ax: Axes, labels: list[str], reach: float) -> None:
    ax.axvline(0, color=INK, lw=0.7)
    ax.set_xlim(-1.4 * reach, 1.4 * reach)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_yticks(range(len(labels)), labels=labels)
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


@panel
def plot_intervals(
    rows: Mapping[str, tuple[float, float, float]],
    *,
    ax: Axes | None = None,
    reference: float | None = None,
    title: str = "",
    colours: Mapping[str, str] | None = None,
    bounds: tuple[float, float] | None = None,
) -> list[Any]:
    """(middle, low, high) for each name as a dot with a whisker; ``reference`` is drawn as a dashed line through all,
    for instance the random control. Returns the dots."""
    ax = canvas(ax, (3, 0.28 * len(rows) + 0.6))
    dots: list[Any] = []
    for y, (name, interval) in enumerate(rows.items()):
        dots += _whisker(ax, y, interval, (colours or {}).get(name, COLOURS[0]))
    if reference is not None and reference == reference:
        ax.axvline(reference, color=MUTED, lw=0.9, ls=(0, (4, 2)), zorder=0)
    if bounds:
        ax.set_xlim(*bounds)
    ax.set_yticks(range(len(rows)), labels=[shorten(str(name), 28) for name in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="x")
    ax.locator_params(axis="x", nbins=4)
    ax.tick_params(axis="y", length=0)
    ax.set_title(title)
    return dots


def _whisker(ax: Axes, y: int, interval: tuple[float, float, float], colour: str) -> list[Any]:
    middle, low, high = interval
    if middle != middle:
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": MUTED, "size": SMALL}
        ax.text(0.5, y, "not defined", transform=ax.get_yaxis_transform(), **style)
        return []
    ax.plot([low, high], [y, y], color=colour, lw=2.2, alpha=0.45, solid_capstyle="butt")
    return list(ax.plot([middle], [y], "o", color=colour, ms=4.5))
