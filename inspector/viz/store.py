"""The picture of a store: what passed through each module, in run order, before any single map is looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec
from torch import Tensor

from inspector.records import Call, Store
from inspector.sites import Kind
from inspector.tensors import format_leaf, walk
from inspector.viz.board import Board
from inspector.viz.figure import Figure, canvas, shorten
from inspector.viz.images import activity, broken_paint, thin, tile
from inspector.viz.scales import Array, array, sequential
from inspector.viz.spreads import NAMED, Spread, plot_spreads, spread_of
from inspector.viz.style import panel, styled
from inspector.words.facts import earliest, innermost


def tensors_of(store: Store, kind: Kind) -> dict[str, Tensor]:
    """Every floating tensor of one kind, in run order, by its address without the kind."""
    found: dict[str, Tensor] = {}
    for name in store:
        for leaf, tensor in walk(_value(store[name], kind)):
            if tensor.is_floating_point() and not tensor.is_meta and not tensor.is_nested and tensor.numel():
                found[(name + format_leaf(leaf)) or "(model)"] = tensor
    return found


def _value(call: Call, kind: Kind) -> Any:
    try:
        return getattr(call, kind)
    except RuntimeError:  # a borrowed value that was overwritten: the table says so
        return None


def show_store(
    store: Store, *more: Store, kind: Kind | None = None, sample: int = 0, maps: int = 6, **figure: Any
) -> Figure:
    """An overview of one store: feature maps of one ``sample`` from up to ``maps`` layers, and the spread of every
    site. ``kind="attention"``: all layers and heads, and their rollout. Two stores: what differs at the sites they share."""
    if kind == "attention":
        from inspector.viz.call import show_layers_of_attention

        return show_layers_of_attention(store, sample=sample, **figure)
    if more:
        from inspector.viz.difference import show_difference

        return show_difference(store, *more, **figure)
    kinds = [k for k in ([kind] if kind else store.kinds) if tensors_of(store, k)][:2]
    spreads = aligned(store, kinds)
    alarms = [*_broken(spreads), *_alarms(store)]
    with styled():
        drawn = _compose(spreads, _pick_maps(store, sample, maps), len(alarms), figure)
    drawn.head(f"Store of {store.model or 'a model'}", _facts(store), *alarms)
    return drawn


def _facts(store: Store) -> str:
    calls = len(store)
    return f"{calls} call{'s' * (calls != 1)} in run order · {', '.join(store.kinds)}"


def _alarms(store: Store) -> list[str]:
    missing = store.coverage.missing
    lines = [
        f"not captured: {shorten(path or '(model)', 40)}: {status.reason}" for path, status in list(missing.items())[:3]
    ]
    return [*lines, *([f"… {len(missing) - 3} more modules never ran"] if len(missing) > 3 else [])]


def _pick_maps(store: Store, sample: int, most: int) -> dict[str, Array]:
    """Feature maps (channels, H, W) of one sample from layers spread evenly over the depth."""
    outputs = tensors_of(store, "output") if "output" in store.kinds else {}
    found = {n: t[sample] for n, t in outputs.items() if t.dim() == 4 and t.shape[0] > sample and min(t.shape[2:]) > 1}
    names = innermost(list(found))
    at = dict.fromkeys(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int).tolist())
    return {names[i]: array(found[names[i]]) for i in at}


def _broken(spreads: dict[Kind, list[Spread]]) -> list[str]:
    found = {kind: [s.name for s in row if s.broken] for kind, row in spreads.items()}
    said = [(kind, names) for kind, names in found.items() if names]
    return [f"▲ {kind} not finite at {_sites(len(names))}, first at {earliest(names, kind)}" for kind, names in said]


def _sites(count: int) -> str:
    return f"{count:,} site{'s' * (count != 1)}"


def _compose(spreads: dict[Kind, list[Spread]], mosaics: dict[str, Array], alarms: int, options: dict[str, Any]) -> Figure:
    kinds = list(spreads)
    rows = max(map(len, spreads.values()), default=0)
    tall = 0.9 + 0.2 * rows if rows <= NAMED else 3.2
    heights = [0.55 + 1.4 * _tallest(mosaics)] * bool(mosaics) + [tall] * bool(kinds)
    figure = Figure(natural=(9.0, sum(heights) + 1.1 + 0.2 * alarms), **options)
    if not heights:
        figure.foot("There is no floating-point tensor to draw.")
        return figure
    outer = GridSpec(len(heights), max(len(kinds), 1), figure=figure, height_ratios=heights)
    if mosaics:
        plot_thumbnails(mosaics, ax=figure.add_subplot(outer[0, :]))
        figure.foot("Maps: one sample, the most active channels of each layer; each layer on its own scale.")
    for column, kind in enumerate(kinds):
        plot_spreads(spreads[kind], ax=figure.add_subplot(outer[-1, column]), title=kind, named=column == 0)
    middle = "dot" if rows <= NAMED else "dark line"
    figure.foot(f"Palest: smallest to largest; paler: 1st to 99th percentile; darkest: the middle half; {middle}: median.")
    return figure


def aligned(store: Store, kinds: list[Kind]) -> dict[Kind, list[Spread]]:
    """For each kind one row per site, the same rows in all; a site that lacks a kind has an empty row there."""
    tensors = {kind: tensors_of(store, kind) for kind in kinds}
    names = list(dict.fromkeys(name for found in tensors.values() for name in found))
    return {
        kind: [spread_of(n, found[n]) if n in found else Spread(n, "", np.full(7, np.nan), 0.0, 0) for n in names]
        for kind, found in tensors.items()
    }


def _tallest(mosaics: dict[str, Array]) -> float:
    """Height over width of the tallest mosaic, one at most."""
    return float(min(max([0.4, *(maps.shape[1] / maps.shape[2] for maps in mosaics.values())]), 1.0))


@panel
def plot_thumbnails(mosaics: dict[str, Array], *, ax: Axes | None = None, most: int = 16) -> list[Any]:
    """The most active maps of each layer as small mosaics side by side, each layer on its own scale."""
    ax = canvas(ax, (8, 2))
    board = Board(ax, 1, len(mosaics), _tallest(mosaics))
    drawn, labels = [], []
    for column, (name, maps) in enumerate(mosaics.items()):
        scale = sequential(maps)
        kept = maps[np.argsort(-activity(maps), kind="stable")[:most]]
        kept = thin(kept)
        pixels, corners = tile(kept, math.ceil(len(kept) ** 0.5), max(1, kept.shape[1] // 14))
        drawn.append(board.put(pixels, 0, column, **scale.style | {"cmap": scale.cmap.with_extremes(bad="white")}))
        paint = broken_paint(pixels, corners, kept.shape[1:])
        if paint is not None:
            board.put(paint, 0, column)
        some = f"{len(kept)} of {len(maps)}" if len(kept) < len(maps) else f"{len(maps)}"
        size = "×".join(map(str, maps.shape[1:]))
        dead = int((activity(maps) == 0).sum())
        labels.append(f"{shorten(name, 17)}\n{some}, {size}\n{scale.range_text}{f', {dead} dead' if dead else ''}")
    board.label_columns(labels)
    return drawn
