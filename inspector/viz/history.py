"""The picture of a training: what was found first, then the curves, then every layer at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec

from inspector.records import History, Stats
from inspector.viz.curves import plot_scalars, stem
from inspector.viz.figure import Figure, shorten
from inspector.viz.flow import plot_gradient_flow, plot_histogram, plot_update_ratio
from inspector.viz.layers import NAMED, grid_of, layers_bar, pairs_of, plot_layers
from inspector.viz.scales import Array, number
from inspector.viz.style import COLOURS, styled

_FIRST = {
    "param_grad": ("norm", "rms", "std", "absmax"),
    "output": ("std", "rms", "absmax", "mean"),
    "update": ("ratio", "rms"),
}


def show_history(
    history: History,
    *more: History,
    heat: list[tuple[str, str]] | None = None,
    histograms: list[tuple[str, str]] | None = None,
    panels: int = 4,
    **figure: Any,
) -> Figure:
    """``heat``: which (kind, statistic) to draw layer by layer (default: two telling ones). ``histograms``: of which
    (kind, name) to draw how values spread (default: two). Several histories: see ``show_histories``."""
    if more:
        from inspector.viz.runs import show_histories  # it needs what is here

        return show_histories(history, *more, panels=panels, heat=heat, **figure)
    groups = dict(list(scalar_groups(history).items())[:panels])
    chosen = heat if heat is not None else telling(history.stats)
    with styled():
        spread = histograms if histograms is not None else _spread(history)
        drawn = _compose(history, groups, chosen, spread, figure)
    drawn.head(title_of(history), _facts(history, len(groups)), *alarms_of(history))
    return drawn


def scalar_groups(history: History) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Scalars that belong together, such as loss and val_loss, under their common name."""
    groups: dict[str, dict[str, tuple[Array, Array]]] = {}
    for name, column in history.scalars.items():
        groups.setdefault(stem(name), {})[name] = column
    return groups


def telling(stats: Stats, count: int = 2) -> list[tuple[str, str]]:
    """The statistics to draw when none were chosen: gradients as applied, then outputs."""
    there = pairs_of(stats)
    best = [(kind, s) for kind, order in _FIRST.items() for s in order if (kind, s) in there]
    by_kind = {kind: (kind, s) for kind, s in reversed(best)}
    ordered = [by_kind[kind] for kind in _FIRST if kind in by_kind]
    return [*ordered, *(pair for pair in there if pair[0] not in by_kind)][:count]


def title_of(history: History) -> str:
    """What a run is called."""
    return str(history.meta.get("title") or history.meta.get("class") or "training")


def _facts(history: History, shown: int) -> str:
    count = max((len(steps) for steps, _ in history.scalars.values()), default=int(max(history.stats.steps, default=0)))
    groups = len(scalar_groups(history))
    last = [f"{shorten(name, 24)} {number(float(v[-1]))}" for name, (_, v) in history.scalars.items() if len(v)][:6]
    some = [f"{shown} of {groups} curves shown"] if shown < groups else []
    return " · ".join(
        [f"{count:,} {history.unit}{'s' * (count != 1)}", *(["last: " + ", ".join(last)] if last else []), *some]
    )


def alarms_of(history: History, most: int = 5, run: str = "") -> list[str]:
    """The gravest, told in the order in which they began."""
    ordered = sorted(history.findings[:most], key=lambda finding: finding.step)
    found = [f"▲ {run}{history.unit} {f.step} · {shorten(f.message, 220)}" for f in ordered]
    rest = len(history.findings) - most
    return [*found, *([f"… {run}{rest} more finding{'s' * (rest > 1)}"] if rest > 0 else [])]


def _spread(history: History) -> list[tuple[str, str]]:
    """One output and one gradient: of the layer of the gravest finding that has one, else the last that is no bias."""
    found = [f.name for f in history.findings if f.name]
    chosen = []
    for kind in ("output", "param_grad", "grad", "param", "update"):
        names = list(history.histograms.get(kind, {}))
        plain = [name for name in names if not name.endswith("bias")] or names
        if names:
            chosen.append((kind, next((name for name in found if name in names), plain[-1])))
    return chosen[:2]


def _compose(
    history: History,
    groups: dict[str, Any],
    heat: list[tuple[str, str]],
    spread: list[tuple[str, str]],
    options: dict[str, Any],
) -> Figure:
    tall = [heat_height(history.stats, pair) for pair in heat]
    curves = 2.3 * (-(-len(groups) // 2)) if groups else 0.0
    alarms = room_for(alarms_of(history))
    extra = _flow(history.stats)
    ratios = [curves] * bool(groups) + tall + [2.7] * bool(extra) + [2.4] * bool(spread)
    figure = Figure(natural=(9.4, max(sum(ratios), 1.0) + 0.9 + alarms), **options)
    if not ratios:
        figure.foot("Neither scalars nor statistics were recorded.")
        return figure
    outer = GridSpec(len(ratios), 1, figure=figure, height_ratios=ratios)
    if groups:
        _curves(figure, outer[0], history, groups)
    steps = _common_steps(history.stats, heat)
    for i, (kind, statistic) in enumerate(heat, start=bool(groups)):
        ax = figure.add_subplot(outer[i])
        drawn = plot_layers(history.stats, kind, statistic, ax=ax, findings=history.findings, steps=steps, unit=history.unit)
        layers_bar(ax, drawn)
    below = [extra] * bool(extra) + [[_histogram(history, *place) for place in spread]] * bool(spread)
    for row, panels in enumerate(below, start=len(ratios) - len(below)):
        inner = GridSpecFromSubplotSpec(1, len(panels), subplot_spec=outer[row])
        for i, draw in enumerate(panels):
            draw(figure.add_subplot(inner[i]))
    if heat:
        figure.foot("Layers in execution order; yellow: not finite; pale grey: not measured; orange: a finding begins.")
    return figure


def room_for(alarms: list[str]) -> float:
    """Inches that they take."""
    return 0.2 * sum(1 + len(line) // 110 for line in alarms)


def _common_steps(stats: Stats, heat: list[tuple[str, str]]) -> Array:
    """The steps that any of the maps has, so that all share one axis."""
    found = [stats.grid(kind, statistic).steps for kind, statistic in heat]
    return np.unique(np.concatenate(found)) if found else np.empty(0)


def _flow(stats: Stats) -> list[Callable[[Axes], Any]]:
    """Update ratios and gradient flow, where they were watched."""
    there = set(pairs_of(stats))
    drawn: list[Callable[[Axes], Any]] = []
    if any(kind == "param_grad" for kind, _ in there):
        drawn.append(lambda ax: plot_gradient_flow(stats, ax=ax))
    if ("update", "ratio") in there:
        drawn.append(lambda ax: plot_update_ratio(stats, ax=ax))
    return drawn


def _histogram(history: History, kind: str, name: str) -> Callable[[Axes], Any]:
    return lambda ax: plot_histogram(history, kind, name, ax=ax)


def heat_height(stats: Stats, pair: tuple[str, str]) -> float:
    """Inches that a map of one (kind, statistic) takes."""
    layers = len(grid_of(stats, *pair).names)
    return 0.65 + 0.155 * min(layers, NAMED)


def _curves(figure: Figure, place: Any, history: History, groups: dict[str, Any]) -> None:
    wide = min(2, len(groups))
    inner = GridSpecFromSubplotSpec(-(-len(groups) // wide), wide, subplot_spec=place)
    marks = [finding.step for finding in history.findings]
    for i, (name, scalars) in enumerate(groups.items()):
        ax = figure.add_subplot(inner[i // wide, i % wide])
        color = COLOURS[i % len(COLOURS)]
        plot_scalars(scalars, ax=ax, title=shorten(name, 30), unit=history.unit, marks=marks, color=color)
