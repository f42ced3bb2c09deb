"""Curves over steps: training scalars, and scores while an input is taken away or put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from inspector.records import Curve
from inspector.viz.figure import canvas, shorten
from inspector.viz.scales import BROKEN, Array, array
from inspector.viz.style import COLOURS, DASHES, MUTED, panel


def looks(labels: Sequence[str], controls: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Colour and dashes for each label, the same in every panel; controls are grey and dotted."""
    plain = [label for label in labels if label not in controls]
    styles = {
        label: {"color": COLOURS[i % (len(COLOURS) - 1)], "ls": DASHES[i // (len(COLOURS) - 1) % len(DASHES)]}
        for i, label in enumerate(plain)
    }
    grey = {label: {"color": MUTED, "ls": DASHES[(2, 3, 1)[i % 3]]} for i, label in enumerate(controls)}
    return {label: styles.get(label) or grey[label] for label in labels}


@panel
def plot_curves(
    curves: Mapping[str, Curve], *, ax: Axes | None = None, styles: Mapping[str, Any] | None = None, title: str = ""
) -> list[Line2D]:
    """The mean over the samples of each curve, with a band of 1.96 standard errors; x in shares from 0 to 1."""
    ax = canvas(ax, (3.2, 2.4))
    styles = styles or looks(list(curves))
    lines: list[Line2D] = []
    widths = np.linspace(2.6, 1.2, len(curves)) if len(curves) > 1 else [1.3]  # so that no line hides an equal one
    for width, (label, curve) in zip(widths, curves.items(), strict=True):
        middle, error = mean_and_error(array(curve.y))
        x = array(curve.x)
        lines += ax.plot(x, middle, label=label, lw=width, **styles[label])
        ax.fill_between(x, middle - 1.96 * error, middle + 1.96 * error, color=styles[label]["color"], alpha=0.13, lw=0)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], labels=["0", "50%", "100%"])
    ax.set_xlabel("share of the positions", color=MUTED)
    ax.grid(axis="y")
    ax.set_title(title)
    return lines


def mean_and_error(y: Array) -> tuple[Array, Array]:
    """Mean and its standard error over the samples (axis 0), NaN samples left out; no warning where all are NaN."""
    counted = np.isfinite(y)
    n = counted.sum(axis=0)
    total = np.where(counted, y, 0.0).sum(axis=0)
    middle = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    squares = np.where(counted, (y - middle) ** 2, 0.0).sum(axis=0)
    variance = np.divide(squares, n - 1, out=np.zeros(total.shape), where=n > 1)
    return middle, np.sqrt(np.divide(variance, n, out=np.zeros(total.shape), where=n > 0))


@panel
def plot_scalars(
    scalars: Mapping[str, tuple[Array, Array]],
    *,
    ax: Axes | None = None,
    title: str = "",
    unit: str = "step",
    color: str | None = None,
    marks: Sequence[int] = (),
) -> list[Line2D]:
    """Some scalars over steps on one pair of axes: training solid, validation dashed; the last value stands at the end
    of each line, gaps are values that are no numbers. ``marks`` are steps at which something was found."""
    ax = canvas(ax, (3.6, 2.4))
    lines: list[Line2D] = []
    for i, (name, (steps, values)) in enumerate(scalars.items()):
        dashed = DASHES[1] if is_validation(name) else DASHES[0]
        style = {"color": color or COLOURS[i % len(COLOURS)], "ls": dashed}
        style |= {"marker": "o", "mfc": "white" if is_validation(name) else None} if len(steps) == 1 else {}
        lines += ax.plot(steps, array(values), label=shorten(name, 28), ms=4, **style)
    for steps, values in scalars.values():
        _shade_broken(ax, np.asarray(steps), array(values))
    once = {int(step) for steps, _ in scalars.values() for step in steps}
    for step in dict.fromkeys(marks):
        ax.axvline(step, color="#b35900", lw=0.8, ls=DASHES[2], zorder=0)
    ax.grid(axis="y")
    ax.set_xlabel(unit, color=MUTED)
    ax.set_title(title)
    ax.locator_params(axis="x", nbins=6, integer=True)
    if len(once) == 1:
        ax.set_xticks(list(once))
    if len(scalars) > 1:
        ax.legend()
    return lines


def _shade_broken(ax: Axes, steps: Array, values: Array) -> None:
    """Stretches in which the value was no number, in the colour of broken values; those of two curves lie on each other."""
    broken = np.flatnonzero(~np.isfinite(values))
    half = float(np.median(np.diff(steps))) / 2 if steps.size > 1 else 0.5
    for run in np.split(broken, np.flatnonzero(np.diff(broken) > 1) + 1) if broken.size else []:
        ax.axvspan(float(steps[run[0]]) - half, float(steps[run[-1]]) + half, color=BROKEN, alpha=0.4, lw=0, zorder=0)


_HELD_OUT = ("val_", "valid_", "validation_", "test_", "val/", "val.", "eval_")


def is_validation(name: str) -> bool:
    """Whether a scalar was measured on held-out data, by the usual prefixes."""
    return name.lower().startswith(_HELD_OUT)


def stem(name: str) -> str:
    """A scalar's name without train or validation, so that the two come on one pair of axes."""
    for prefix in (*_HELD_OUT, "train_", "training_", "train/", "train."):
        if name.lower().startswith(prefix):
            return name[len(prefix) :]
    return name
