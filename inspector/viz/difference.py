"""Two stores side by side: at which site, in run order, the two runs begin to differ, and by how much."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from inspector.records import Store
from inspector.tensors import shape_text
from inspector.viz.figure import Figure, canvas, log_axis, shorten
from inspector.viz.scales import array, number
from inspector.viz.spreads import NAMED
from inspector.viz.store import tensors_of
from inspector.viz.style import ALARM, COLOURS, MUTED, SMALL, panel, styled
from inspector.words.facts import innermost


class Difference(NamedTuple):
    """relative: norm of the difference over the norm of the first, NaN where they cannot be compared; why says so."""

    name: str
    relative: float
    largest: float
    why: str = ""


def differences(first: Store, second: Store) -> list[Difference]:
    """One for each site of either store, in the run order of the first, for the kind of value that both have."""
    kind = next((kind for kind in first.kinds if kind in second.kinds), None)
    if kind is None:
        raise ValueError(f"the stores share no kind of value: {', '.join(first.kinds)} against {', '.join(second.kinds)}")
    one, other = tensors_of(first, kind), tensors_of(second, kind)
    return [_compare(name, one.get(name), other.get(name)) for name in dict.fromkeys([*one, *other])]


def _compare(name: str, one: Any, other: Any) -> Difference:
    nan = float("nan")
    if one is None or other is None:
        return Difference(name, nan, nan, f"only in the {'second' if one is None else 'first'}")
    if one.shape != other.shape:
        return Difference(name, nan, nan, f"{shape_text(one)} against {shape_text(other)}")
    a, b = array(one), array(other)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Difference(name, nan, nan, "not finite")
    norm, off = float(np.linalg.norm(a)), float(np.linalg.norm(a - b))
    return Difference(name, off / norm if norm else (0.0 if off == 0 else float("inf")), float(np.abs(a - b).max()))


def show_difference(first: Store, second: Store, *rest: Store, **figure: Any) -> Figure:
    """Where two runs of a model part: relative difference at each site. More than two stores are refused."""
    if rest:
        raise ValueError(f"{2 + len(rest)} stores were given; a difference is between two, so show them in pairs")
    found = differences(first, second)
    with styled():
        tall = 0.2 * len(found) if len(found) <= NAMED else 2.6
        drawn = Figure(natural=(7.4, tall + 1.9), **figure)
        plot_differences(found, ax=drawn.add_subplot())
    same = sum(d.relative == 0 for d in found)
    parted = innermost([d.name for d in found if d.relative > 0 or d.why])
    facts = f"{same} of {len(found)} sites are equal bit for bit"
    drawn.head("Difference of two stores", facts + (f" · first difference at {parted[0]}" if parted else ""))
    drawn.foot("Norm of the difference divided by the norm of the first store's value; at the right the largest difference.")
    return drawn


@panel
def plot_differences(found: list[Difference], *, ax: Axes | None = None) -> Any:
    """Relative differences from the top in run order, on a log scale; equal sites have no dot and say so."""
    ax = canvas(ax, (6, 0.2 * len(found) + 1))
    sizes = np.array([d.relative for d in found])
    shown = np.isfinite(sizes) & (sizes > 0)
    rows = np.arange(len(found))
    dots = ax.plot(sizes[shown], rows[shown], "o", color=COLOURS[0], ms=4)[0]
    low, high = (sizes[shown].min(), sizes[shown].max()) if shown.any() else (1e-8, 1.0)
    log_axis(ax, "x", low / 4, high * 4)
    ax.hlines(rows[shown], low / 4, sizes[shown], color=COLOURS[0], lw=1, alpha=0.4)
    ax.set_ylim(len(found) - 0.4, -0.6)
    if len(found) <= NAMED:
        ax.set_yticks(rows, labels=[shorten(d.name, 34) for d in found])
        _remarks(ax, found)
    else:
        ax.set_ylabel(f"{len(found):,} sites in run order", color=MUTED)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_xlabel("relative difference", color=MUTED)
    return dots


def _remarks(ax: Axes, found: list[Difference]) -> None:
    for row, d in enumerate(found):
        text = d.why or ("equal" if d.relative == 0 else number(d.largest))
        color = ALARM if d.why else MUTED
        ax.annotate(text, (1.01, row), xycoords=ax.get_yaxis_transform(), size=SMALL - 0.5, color=color, va="center")
