"""The picture of an assessment: who is taken for whom, how each class fares, and each group of people with its doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec
from matplotlib.ticker import MaxNLocator

from inspector.records import Assessment
from inspector.viz.bars import plot_intervals
from inspector.viz.figure import Figure, canvas, shorten
from inspector.viz.scales import array
from inspector.viz.style import COLOURS, MUTED, SMALL, panel, styled
from inspector.words.facts import wilson

WRITTEN = 14  # more classes than these have no numbers in their cells
METRICS = ("precision", "recall", "f1")


def show_assessment(assessment: Assessment, *more: Assessment, **figure: Any) -> Figure:
    """Confusion, classes and groups of one assessment; several: their accuracies side by side with intervals."""
    if more:
        return _several([assessment, *more], figure)
    classes, groups = len(assessment.classes), sum(map(len, assessment.groups.values()))
    side = min(max(0.34 * classes, 2.6), 5.2)
    below = [0.8 + 0.26 * len(rows) for rows in assessment.groups.values()]
    found = [f"! {disparity}" for disparity in assessment.disparities[:4]]
    size = (side + 4.6, side + sum(below) + 1.4 + 0.2 * len(found))
    with styled():
        drawn = Figure(natural=size, **figure)
        grid = GridSpec(1 + len(below), 2, figure=drawn, height_ratios=[side, *below], width_ratios=[side + 0.8, 3.6])
        plot_confusion(assessment, ax=drawn.add_subplot(grid[0, 0]))
        plot_classes(assessment, ax=drawn.add_subplot(grid[0, 1]))
        for i, column in enumerate(assessment.groups, start=1):
            _group_row(assessment, column, drawn, grid[i, :])
    drawn.head(assessment.name or "Assessment", _facts(assessment), *found)
    drawn.foot("Colours: share of each true class, purple where it is right, orange where it is mistaken.")
    if groups:
        drawn.foot("Whiskers: 95% interval; dashed: all samples; * too few samples to say much.", _rates(assessment))
    return drawn


def _rates(a: Assessment) -> str:
    """The short names of rates in words."""
    if a.positive is None:
        return ""
    name = shorten(str(a.positive), 30)
    return f"Selected: answered {name}. FPR: {name} though it is not true. FNR: not {name} though it is true."


def _facts(a: Assessment) -> str:
    _, low, high = _with_interval(a, "accuracy")
    interval = f"{_percent(a.accuracy)} right (95% interval {_percent(low)} to {_percent(high)})"
    macro = f"macro precision {_percent(a.precision)}, recall {_percent(a.recall)}, F1 {_percent(a.f1)}"
    return f"{a.n:,} samples · {interval} · {macro}"


def _percent(rate: float) -> str:
    return "n/a" if rate != rate else f"{100 * rate:.1f}%"


@panel
def plot_confusion(assessment: Assessment, *, ax: Axes | None = None) -> Any:
    """Counts as numbers, colours as shares of each true class, so that rare classes stay visible; the diagonal is purple
    and mistakes are orange."""
    counts = array(assessment.confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    signed = np.where(np.eye(len(counts), dtype=bool), -shares, np.sqrt(shares))
    ax = canvas(ax, (4, 4))
    drawn = ax.imshow(signed, vmin=-1.25, vmax=1.25, cmap="PuOr_r", interpolation="nearest")
    if len(counts) <= WRITTEN:
        _write_counts(ax, counts, shares)
    names = [shorten(str(name), 14) for name in assessment.classes]
    turned: dict[str, Any] = (
        {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names), default=0) > 2 else {}
    )
    every = max(1, -(-len(names) // 25))
    ax.set_xticks(range(0, len(names), every), labels=names[::every], **turned)
    ax.set_yticks(range(0, len(names), every), labels=names[::every])
    ax.set_xlabel("answered", color=MUTED)
    ax.set_ylabel("true", color=MUTED)
    ax.set_title("confusion")
    ax.tick_params(length=0)
    return drawn


def _write_counts(ax: Axes, counts: Any, shares: Any) -> None:
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            dark = shares[row, column] > (0.6 if row == column else 0.5)
            style: dict[str, Any] = {"color": "white" if dark else "black", "size": SMALL - 0.5}
            ax.text(column, row, f"{counts[row, column]:,.0f}", ha="center", va="center", **style)


@panel
def plot_classes(assessment: Assessment, *, ax: Axes | None = None) -> list[Any]:
    """Precision, recall and F1 of each class, the worst F1 named at the bottom of very many."""
    ax = canvas(ax, (3.4, 4))
    there = [m for m in METRICS if m in assessment.per_class]
    rates = {m: array(assessment.per_class[m]) for m in there}
    order = np.arange(len(assessment.classes))
    if len(order) > 25 and "f1" in rates:
        order = np.argsort(np.nan_to_num(rates["f1"], nan=2.0), kind="stable")[:25]
    marks = [
        ax.plot(
            rates[m][order], range(len(order)), marker, color=COLOURS[i], ms=4.5, label=m.replace("f1", "F1"), ls="none"
        )[0]
        for i, (m, marker) in enumerate(zip(there, "<>o", strict=False))
    ]
    ax.set_yticks(range(len(order)), labels=[shorten(str(assessment.classes[i]), 14) for i in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    for row in [k for k in range(len(order)) if there and all(np.isnan(rates[m][order[k]]) for m in there)]:
        style: dict[str, Any] = {"size": SMALL, "color": MUTED, "ha": "center", "va": "center"}
        ax.text(0.5, row, "no samples", transform=ax.get_yaxis_transform(), **style)
    lowest = min((float(np.nanmin(r[order], initial=1.0)) for r in rates.values()), default=0.0)
    low = max(0.0, lowest - 0.05)
    ax.set_xlim(low, 1 + 0.03 * (1 - low))
    ax.set_xticks([tick for tick in MaxNLocator(5).tick_values(low, 1.0) if low <= tick <= 1.0])
    ax.grid(axis="both")
    ax.tick_params(axis="y", length=0)
    ax.set_title(
        "by class" if len(order) == len(assessment.classes) else f"the worst 25 of {len(assessment.classes)} classes"
    )
    if marks:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, handletextpad=0.1)
    return marks


RATES = {"accuracy": "accuracy", "selection_rate": "selected", "false_positive_rate": "FPR", "false_negative_rate": "FNR"}


def _group_row(assessment: Assessment, column: str, figure: Figure, place: Any) -> None:
    rates = list(RATES) if assessment.positive is not None else ["accuracy"]
    inner = GridSpecFromSubplotSpec(1, len(rates), subplot_spec=place)
    for i, rate in enumerate(rates):
        ax = figure.add_subplot(inner[i])
        plot_groups(assessment, column, rate=rate, ax=ax)
        ax.tick_params(labelleft=i == 0)


@panel
def plot_groups(assessment: Assessment, column: str, *, rate: str = "accuracy", ax: Axes | None = None) -> list[Any]:
    """One rate of each group with its interval; n stands at the name, the gap in the title."""
    rows = {
        f"{shorten(label, 22)} (n = {a.n:,}){'*' * a.small}": _with_interval(a, rate)
        for label, a in assessment.groups[column].items()
    }
    gap = assessment.gaps.get(column, {}).get(rate)
    about = f"by {shorten(column, 30)}\n" if rate == "accuracy" else ""
    apart = "" if gap is None or gap != gap else f": gap {gap:.3f}"
    return plot_intervals(rows, ax=ax, reference=getattr(assessment, rate), title=f"{about}{RATES[rate]}{apart}")


def _with_interval(a: Assessment, rate: str) -> tuple[float, float, float]:
    """The record's own interval; where it has none, Wilson's for the accuracy and none for the others."""
    value = getattr(a, rate)
    low, high = a.intervals.get(rate) or (wilson(value, a.n) if rate == "accuracy" else (value, value))
    return value, low, high


def _several(assessments: list[Assessment], options: dict[str, Any]) -> Figure:
    names = [shorten(str(a.name or a.model.get("class") or "assessment"), 24) for a in assessments]
    rows = {f"{i + 1}: {names[i]} (n = {a.n:,})": _with_interval(a, "accuracy") for i, a in enumerate(assessments)}
    with styled():
        figure = Figure(natural=(6.4, 0.32 * len(rows) + 1.5), **options)
        plot_intervals(rows, ax=figure.add_subplot(), title="accuracy")
    figure.head(f"{len(rows)} assessments")
    figure.foot("Whiskers: 95% interval.")
    return figure
