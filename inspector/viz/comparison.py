"""The picture of a comparison: what each method says about the same samples, and whether any of it can be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec
from matplotlib.lines import Line2D

from inspector.records import Comparison, Cost
from inspector.viz.bars import plot_intervals
from inspector.viz.curves import looks, plot_curves
from inspector.viz.figure import Figure, canvas, log_axis, shorten
from inspector.viz.grid import Rows, Shared, check_scale, count_of, draw_grid, grid_height, is_images
from inspector.viz.lettering import clipped
from inspector.viz.scales import Array, array, colour_map
from inspector.viz.style import MUTED, SMALL, panel, styled
from inspector.viz.titles import shown_of
from inspector.words.facts import target_of

Part = Literal["grid", "scores", "curves", "agreement", "cost"]
ALL: tuple[Part, ...] = ("grid", "scores", "curves", "agreement", "cost")
Panel = Callable[[Axes], Any]


def show_comparison(
    comparison: Comparison,
    *,
    samples: int | None = None,
    scale: Shared = "row",
    parts: Sequence[Part] = ALL,
    **figure: Any,
) -> Figure:
    """``scale``: "row" = shared within a method, "shared" = one for all, "panel" = each map its own; printed in any case.
    ``parts`` chooses among the grid of maps, score intervals, curves, agreement, and quality against cost."""
    _check(scale, parts)
    scores = _score_panels(comparison) if "scores" in parts else []
    others = [panel for part in parts if part in _PANELS for panel in _PANELS[part](comparison)]
    images = is_images(Rows(comparison.attributions).pieces)
    shown = count_of(samples, _count(comparison), images=images)
    with styled():
        drawn = _compose(comparison, [*_in_rows(scores), *_in_rows(others)], shown, scale, "grid" in parts, figure)
    drawn.head(_title(comparison), _facts(comparison, shown if "grid" in parts else None), *_alarms(comparison))
    return drawn


def _check(scale: str, parts: Sequence[str]) -> None:
    check_scale(scale)
    unknown = [part for part in parts if part not in ALL]
    if unknown or not parts:
        raise ValueError(f"parts={list(parts)!r}: choose from {', '.join(ALL)}")


def _count(comparison: Comparison) -> int:
    return max((len(a.samples) for a in comparison.attributions.values()), default=0)


def _title(comparison: Comparison) -> str:
    first = next(iter(comparison.attributions.values()))
    target, count, controls = target_of(first), len(comparison.methods), len(comparison.controls)
    against = f" against {controls} control{'s' * (controls != 1)}" if controls else " compared"
    return f"{count} method{'s' * (count != 1)}{against}" + (f" → {target}" if target else "")


def _facts(comparison: Comparison, shown: int | None) -> str:
    total = _count(comparison)
    model = str(next(iter(comparison.attributions.values())).model.get("class", ""))
    settings = {k: v for k, v in comparison.settings.items() if isinstance(v, (int, float, str)) and k != "samples"}
    said = [f"{k}={v}" for k, v in settings.items() if v != ""]
    return " · ".join(filter(None, [model, shown_of(total if shown is None else shown, total), *said]))


def _alarms(comparison: Comparison, most: int = 4) -> list[str]:
    lines = [f"! {clipped(warning, 170)}" for warning in comparison.warnings[:most]]
    rest = len(comparison.warnings) - most
    return [*lines, *([f"… {rest} more warnings; print(comparison) lists them"] if rest > 0 else [])]


def _compose(
    comparison: Comparison, rows: list[list[Panel]], shown: int, scale: Shared, grid: bool, options: dict[str, Any]
) -> Figure:
    maps = Rows(comparison.attributions, comparison.controls, shown, scale)
    heights = [grid_height(maps)] * grid + [_LEGEND * (1 + (len(comparison.labels) - 1) // 4)] * bool(rows)
    labels = len(comparison.labels)
    heights += [0.75 + 0.21 * labels if row[0].__name__ == "scores" else max(2.3, 0.15 * labels + 0.6) for row in rows]
    size = (9.8, sum(heights) + 1.2 + 0.18 * len(_alarms(comparison)))
    figure = Figure(natural=size, **options)
    outer = GridSpec(len(heights), 1, figure=figure, height_ratios=heights)
    if grid:
        draw_grid(maps, figure, outer[0])
    if rows:
        _legend(figure, outer[int(grid)], comparison)
    for row, panels in enumerate(rows, start=grid + 1):
        inner = GridSpecFromSubplotSpec(1, len(panels), subplot_spec=outer[row])
        for column, draw in enumerate(panels):
            ax = figure.add_subplot(inner[column])
            draw(ax)
            if draw.__name__ == "scores" and column:
                ax.tick_params(labelleft=False)
    return figure


_LEGEND = 0.28


def _in_rows(panels: list[Panel], wide: int = 4) -> list[list[Panel]]:
    """Rows of at most ``wide`` panels, as even as they can be."""
    count = -(-len(panels) // wide)
    return [panels[i * len(panels) // count : (i + 1) * len(panels) // count] for i in range(count)]


def _legend(figure: Figure, place: Any, comparison: Comparison) -> None:
    ax = figure.add_subplot(place)
    ax.axis("off")
    styles = looks(comparison.labels, comparison.controls)
    rows = Rows(comparison.attributions, comparison.controls)
    handles = [Line2D([], [], label=rows.named(label), **style) for label, style in styles.items()]
    ax.legend(handles=handles, loc="center", ncols=min(len(handles), 4))
    control = f"; grey: controls; dashed: the mean of {comparison.controls[0]}" if comparison.controls else ""
    figure.foot(f"Whiskers: 95% bootstrap interval of the mean over samples; bands: 1.96 standard errors{control}.")


def _score_panels(comparison: Comparison) -> list[Panel]:
    def panel(metric: str) -> Panel:
        def scores(ax: Axes) -> Any:
            return plot_scores(comparison, metric, ax=ax)

        return scores

    return [panel(metric) for metric in comparison.scores.metrics]


@panel
def plot_scores(comparison: Comparison, metric: str, *, ax: Axes | None = None) -> list[Any]:
    """One metric: mean and 95 % interval for every method, the control as a dashed line."""
    scores, styles = comparison.scores, looks(comparison.labels, comparison.controls)
    rows = {label: scores.interval(label, metric) for label in comparison.labels if metric in scores.by_label.get(label, {})}
    control = next((rows[c][0] for c in comparison.controls if c in rows), None)
    better = {"high": "higher is better →", "low": "← lower is better"}.get(str(scores.better(metric)), "")
    colours = {label: style["color"] for label, style in styles.items()}
    ax = canvas(ax, (3, 0.28 * len(rows) + 0.8))
    ax.set_xlabel(better, color=MUTED)
    return plot_intervals(rows, ax=ax, reference=control, title=shorten(metric, 22), colours=colours)


def _curve_panels(comparison: Comparison) -> list[Panel]:
    names = dict.fromkeys(name for row in comparison.curves.values() for name in row)
    styles = looks(comparison.labels, comparison.controls)

    def panel(name: str) -> Panel:
        curves = {label: row[name] for label, row in comparison.curves.items() if name in row}
        return lambda ax: plot_curves(curves, ax=ax, styles=styles, title=f"{name} curve")

    return [panel(name) for name in names]


def _agreement_panels(comparison: Comparison) -> list[Panel]:
    """Only the first measure of agreement: the others say much the same and are in the record."""
    if not comparison.agreement:
        return []
    name, matrix = next(iter(comparison.agreement.items()))
    return [lambda ax: plot_agreement(array(matrix), comparison.labels, ax=ax, title=f"agreement ({name})")]


@panel
def plot_agreement(matrix: Array, labels: Sequence[str], *, ax: Axes | None = None, title: str = "") -> Any:
    """(labels, labels) on a fixed scale from −1 to 1; the numbers stand in the cells where there is room."""
    ax = canvas(ax, (3.2, 2.8))
    drawn = ax.imshow(matrix, vmin=-1, vmax=1, cmap=colour_map("RdBu_r"), interpolation="nearest")
    names = [shorten(label, 20) for label in labels]
    every = max(1, -(-len(names) // 10))
    ax.set_xticks(range(0, len(names), every), labels=[str(i + 1) for i in range(0, len(names), every)])
    ax.set_yticks(range(len(names)), labels=[f"{name}  {i + 1}" for i, name in enumerate(names)])
    ax.tick_params(length=0)
    if len(names) <= 8:
        for row, column in np.ndindex(matrix.shape):
            value = float(matrix[row, column])
            ink = "white" if abs(value) > 0.6 else "black"
            text = _digits(value, 2 if len(names) <= 5 else 1)
            ax.text(column, row, text, ha="center", va="center", size=SMALL - 1, color=ink)
    ax.set_title(title)
    return drawn


def _digits(value: float, count: int) -> str:
    return "–" if value != value else f"{round(value, count) + 0.0:.{count}f}".replace("-", "−")


def _cost_panels(comparison: Comparison) -> list[Panel]:
    metrics = [m for m in comparison.scores.metrics if comparison.scores.better(m)]
    return [lambda ax: plot_cost(comparison, metrics[0], ax=ax)] if metrics and comparison.cost else []


@panel
def plot_cost(comparison: Comparison, metric: str, *, ax: Axes | None = None) -> list[Any]:
    """The mean of one metric against seconds, or passes where no time was taken, with its interval; the first control
    is a line, because it costs nothing."""
    ax = canvas(ax, (3.2, 2.4))
    costs = {label: comparison.cost.get(label, Cost()) for label in comparison.labels}
    timed = any(cost.seconds > 0 for cost in costs.values())
    dots: list[Any] = []
    _control_line(ax, comparison, metric)
    for label, style in looks(comparison.methods).items():
        if metric not in comparison.scores.by_label.get(label, {}):
            continue
        middle, low, high = comparison.scores.interval(label, metric)
        x = costs[label].seconds if timed else costs[label].forwards + costs[label].backwards
        ax.plot([x, x], [low, high], color=style["color"], lw=1.6, alpha=0.45)
        dots += ax.plot([x], [middle], "o", color=style["color"], ms=4.5)
    _log_axis(ax, [dot.get_xdata()[0] for dot in dots])
    ax.set_xlabel("seconds" if timed else "passes through the model", color=MUTED)
    ax.grid(axis="y")
    ax.set_title(f"{shorten(metric, 24)} against cost")
    return dots


def _control_line(ax: Axes, comparison: Comparison, metric: str) -> None:
    scored = [c for c in comparison.controls if metric in comparison.scores.by_label.get(c, {})]
    if scored:
        ax.axhline(comparison.scores.interval(scored[0], metric)[0], color=MUTED, lw=0.9, ls=(0, (4, 2)), zorder=0)


def _log_axis(ax: Axes, values: list[float]) -> None:
    positive = [v for v in values if v > 0]
    if positive and max(positive) > 20 * min(positive) and len(positive) == len(values):
        log_axis(ax, "x", min(positive) / 1.5, max(positive) * 1.5)
    else:
        ax.locator_params(axis="x", nbins=4)


_PANELS: dict[str, Callable[[Comparison], list[Panel]]] = {
    "curves": _curve_panels,
    "agreement": _agreement_panels,
    "cost": _cost_panels,
}
