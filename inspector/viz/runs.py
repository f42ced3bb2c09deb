"""Several trainings side by side: a colour for each run in curves, gradients and updates, and one scale for all maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec

from inspector.records import History, Stats
from inspector.viz.curves import is_validation, plot_scalars
from inspector.viz.figure import Figure, canvas, shorten
from inspector.viz.flow import NAMED, USUAL, band, gradients_at, name_layers, plain_log
from inspector.viz.history import alarms_of, heat_height, room_for, scalar_groups, telling, title_of
from inspector.viz.layers import grid_of, layers_bar, pairs_of, plot_layers
from inspector.viz.scales import Array
from inspector.viz.style import COLOURS, DASHES, MUTED, panel, styled

_MAPS = 3  # runs whose maps fit beside each other
_MARKS = "osD^v<>P"

Panel = Callable[[Axes], Any]


def show_histories(
    *histories: History, panels: int = 4, heat: Sequence[tuple[str, str]] | None = None, **figure: Any
) -> Figure:
    """Scalars, gradient flow and update ratios on shared axes, a colour for each run; of up to three runs also the maps
    in ``heat`` (default: one telling (kind, statistic) that all have), beside each other on one colour scale."""
    labels = [f"{i + 1}: {title_of(history)}" for i, history in enumerate(histories)]
    names = list(dict.fromkeys(name for history in histories for name in scalar_groups(history)))[:panels]
    curves = [_curve(histories, labels, name) for name in names]
    stats = {label: history.stats for label, history in zip(labels, histories, strict=True)}
    maps = _common(histories) if heat is None else list(heat)
    maps = maps if len(histories) <= _MAPS else []
    alarms = [line for i, history in enumerate(histories) for line in alarms_of(history, 2, f"{i + 1}: ")]
    rows = [(2.4, curves[i : i + 2], 2) for i in range(0, len(curves), 2)]
    rows += [(2.9, depth, len(depth))] if (depth := _depth(stats)) else []
    tall = [max(heat_height(history.stats, pair) for history in histories) + 0.1 for pair in maps]
    with styled():
        heights = [*(row[0] for row in rows), *tall]
        drawn = Figure(natural=(9.4, sum(heights) + 0.8 + room_for(alarms)), **figure)
        outer = GridSpec(max(len(heights), 1), 1, figure=drawn, height_ratios=heights or [1])
        for row, (_, cells, wide) in enumerate(rows):
            inner = GridSpecFromSubplotSpec(1, wide, subplot_spec=outer[row])
            for column, draw in enumerate(cells):
                draw(drawn.add_subplot(inner[column]))
        for i, pair in enumerate(maps, start=len(rows)):
            _maps(drawn, outer[i], histories, labels, pair)
    drawn.head(f"{len(histories)} runs", " · ".join(shorten(label, 40) for label in labels), *alarms)
    drawn.foot("Solid: training; dashed: held-out data.", "Maps share one colour scale; yellow: not finite." if maps else "")
    return drawn


def _curve(histories: Sequence[History], labels: list[str], name: str) -> Panel:
    def draw(ax: Axes) -> None:
        for run, history in enumerate(histories):
            for scalar, (steps, values) in scalar_groups(history).get(name, {}).items():
                dashed = DASHES[1] if is_validation(scalar) else DASHES[0]
                kept = np.where(np.isfinite(values), values, np.nan)
                ax.plot(steps, kept, color=_colour(run), ls=dashed, label=f"{shorten(labels[run], 18)} {scalar}")
        plot_scalars({}, ax=ax, title=shorten(name, 30), unit=histories[0].unit)
        ax.legend()

    return draw


def _colour(run: int) -> str:
    return COLOURS[run % len(COLOURS)]


def _depth(runs: Mapping[str, Stats]) -> list[Panel]:
    """Gradient flow and update ratios, where at least one run has them."""
    there = {pair for stats in runs.values() for pair in pairs_of(stats)}
    drawn: list[Panel] = []
    if any(kind == "param_grad" for kind, _ in there):
        drawn.append(lambda ax: plot_gradient_flows(runs, ax=ax))
    if ("update", "ratio") in there:
        drawn.append(lambda ax: plot_update_ratios(runs, ax=ax))
    return drawn


def _common(histories: Sequence[History]) -> list[tuple[str, str]]:
    """The most telling statistic that is in all of them."""
    first, *rest = [telling(history.stats, 8) for history in histories]
    return [pair for pair in first if all(pair in other for other in rest)][:1]


@panel
def plot_gradient_flows(runs: Mapping[str, Stats], *, ax: Axes | None = None) -> list[Any]:
    """Size of the applied gradient of each parameter in execution order at the last measured step of each run, by label,
    on one log scale; a gradient that is exactly 0 is marked at the foot, and one that was not measured is a gap."""
    known = {label: gradients_at(stats) for label, stats in runs.items() if "param_grad" in dict(pairs_of(stats))}
    names = list(dict.fromkeys(name for found in known.values() for name in found.names))
    place = {name: i for i, name in enumerate(names)}
    ax = canvas(ax, (6, 2.6))
    lines: list[Any] = []
    sizes = np.full((len(runs), len(names)), np.nan)
    for run, label in enumerate(runs):
        if label in known:
            sizes[run, [place[name] for name in known[label].names]] = known[label].values
            style: dict[str, Any] = {
                "marker": _MARKS[run % len(_MARKS)],
                "ms": 4.0 if len(names) <= NAMED else 1.5,
                "lw": 0.8,
            }
            line = np.where(sizes[run] > 0, sizes[run], np.nan)
            lines += ax.plot(line, color=_colour(run), label=f"{shorten(label, 18)}, step {known[label].step:,}", **style)
    ax.set_yscale("log")
    plain_log(ax, sizes)
    for run, row in enumerate(sizes):
        zero = np.flatnonzero(row == 0)
        ax.plot(zero, np.full(len(zero), ax.get_ylim()[0] * 1.3), "v", color=_colour(run), ms=5, mfc="none")
    name_layers(ax, names)
    statistics = " and ".join(dict.fromkeys(found.what for found in known.values()))
    ax.set_title(f"gradient flow at the last step ({statistics}{'; ▽: exactly 0' if (sizes == 0).any() else ''})")
    ax.grid(axis="y")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return lines


@panel
def plot_update_ratios(runs: Mapping[str, Stats], *, ax: Axes | None = None) -> list[Any]:
    """Size of updates over the size of their weights, over steps: for each run, by label, the median over its parameters
    and the range from 5 to 95 % of them."""
    ax = canvas(ax, (4, 2.4))
    lines: list[Any] = []
    seen: list[Array] = [np.array([USUAL])]
    for run, (label, stats) in enumerate(runs.items()):
        if ("update", "ratio") not in pairs_of(stats):
            continue
        grid = stats.grid("update", "ratio")
        low, middle, high = band(grid.values)
        ax.fill_between(grid.steps, low, high, color=_colour(run), alpha=0.15, lw=0)
        lines += ax.plot(grid.steps, middle, color=_colour(run), label=shorten(label, 18))
        seen += [line[np.isfinite(line)] for line in (low, middle, high)]
    ax.axhline(USUAL, color=MUTED, ls=(0, (4, 2)), lw=0.9)
    ax.set_yscale("log")
    plain_log(ax, np.concatenate(seen))
    ax.set_xlabel("step", color=MUTED)
    ax.grid(axis="y")
    ax.set_title("update / weight: median and 5–95%")
    ax.legend()
    return lines


def _maps(figure: Figure, place: Any, histories: Sequence[History], labels: list[str], pair: tuple[str, str]) -> None:
    """One map for each run on one colour scale; where all runs have the same layers these are named once."""
    kind, statistic = pair
    there = [(label, h) for label, h in zip(labels, histories, strict=True) if pair in pairs_of(h.stats)]
    grids = [grid_of(history.stats, kind, statistic) for _, history in there]
    every = np.concatenate([grid.values.ravel() for grid in grids])
    same = all(grid.names == grids[0].names for grid in grids)
    axes: list[Axes] = []
    inner = GridSpecFromSubplotSpec(1, len(there), subplot_spec=place)
    for i, (label, history) in enumerate(there):
        axes.append(figure.add_subplot(inner[i]))
        drawn = plot_layers(
            history.stats, kind, statistic, ax=axes[-1], findings=history.findings, unit=history.unit, scale_of=every
        )
        axes[-1].set_title(shorten(label, 30) if i else f"{shorten(label, 18)} · {axes[-1].get_title(loc='left')}")
        if same and i:
            axes[-1].tick_params(labelleft=False)
            axes[-1].set_ylabel("")
    layers_bar(axes, drawn)
