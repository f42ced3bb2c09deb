"""The picture of a store: what passed through each module, in run order, before any single map is looked at."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec
from torch import Tensor

from inspector.records import Call, Store
from inspector.sites import Kind
from inspector.tensors import format_leaf, shape_text, walk
from inspector.viz.board import Board
from inspector.viz.figure import Figure, canvas, shorten, symlog
from inspector.viz.images import activity, broken_paint, thin, tile
from inspector.viz.scales import BROKEN, Array, array, sequential, share
from inspector.viz.style import ALARM, COLOURS, MUTED, SMALL, panel, styled

NAMED = 40  # more sites than these become bands over depth
_SEEN = 200_000  # elements looked at for the spread of one tensor


class Spread(NamedTuple):
    """How the values at one site are spread: quantiles at 0, 1, 25, 50, 75, 99, 100 %, share of zeros, broken values."""

    name: str
    shape: str
    quantiles: Array
    zeros: float
    broken: int


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


def spread_of(name: str, tensor: Tensor) -> Spread:
    """The spread of one tensor, from every n-th element where it has very many."""
    flat = array(tensor).reshape(-1)
    flat = flat[:: max(1, flat.size // _SEEN)]
    finite = flat[np.isfinite(flat)]
    levels = np.quantile(finite, [0, 0.01, 0.25, 0.5, 0.75, 0.99, 1]) if finite.size else np.full(7, np.nan)
    zeros = float((finite == 0).mean()) if finite.size else 0.0
    return Spread(name, shape_text(tensor), levels, zeros, flat.size - finite.size)


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
    names = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]  # what containers hold
    at = dict.fromkeys(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int).tolist())
    return {names[i]: array(found[names[i]]) for i in at}


def _broken(spreads: dict[Kind, list[Spread]]) -> list[str]:
    found = [(kind, s.name) for kind, row in spreads.items() for s in row if s.broken]
    return [f"▲ not finite at {len(found)} sites, first {found[0][0]} of {found[0][1]}"] if found else []


def _compose(spreads: dict[Kind, list[Spread]], mosaics: dict[str, Array], alarms: int, options: dict[str, Any]) -> Figure:
    kinds = list(spreads)
    rows = max(map(len, spreads.values()), default=0)
    tall = 0.9 + 0.2 * rows if rows <= NAMED else 3.2
    heights = [1.95] * bool(mosaics) + [tall] * bool(kinds)
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
    figure.foot("Line: smallest to largest; bar: 1st to 99th percentile; thick: the middle half; dot: median.")
    return figure


def aligned(store: Store, kinds: list[Kind]) -> dict[Kind, list[Spread]]:
    """For each kind one row per site, the same rows in all; a site that lacks a kind has an empty row there."""
    tensors = {kind: tensors_of(store, kind) for kind in kinds}
    names = list(dict.fromkeys(name for found in tensors.values() for name in found))
    return {
        kind: [spread_of(n, found[n]) if n in found else Spread(n, "", np.full(7, np.nan), 0.0, 0) for n in names]
        for kind, found in tensors.items()
    }


@panel
def plot_thumbnails(mosaics: dict[str, Array], *, ax: Axes | None = None, most: int = 16) -> list[Any]:
    """The most active maps of each layer as small mosaics side by side, each layer on its own scale."""
    ax = canvas(ax, (8, 2))
    board = Board(ax, 1, len(mosaics), 1.0)
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
        labels.append(f"{shorten(name, 17)}\n{some}, {size}\n{scale.range_text}")
    board.label_columns(labels)
    return drawn


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
    levels = np.array([s.quantiles for s in spreads])
    depth = np.arange(len(spreads))
    for low, high, alpha in ((0, 6, 0.15), (1, 5, 0.3), (2, 4, 0.6)):
        ax.fill_between(depth, levels[:, low], levels[:, high], color=COLOURS[0], alpha=alpha, lw=0)
    ax.plot(depth, levels[:, 3], color="white", lw=1.0)
    for site in (i for i, spread in enumerate(spreads) if spread.broken):
        ax.axvspan(site - 0.5, site + 0.5, color=BROKEN, alpha=0.4, lw=0, zorder=0)
    sizes = _sizes(spreads)
    if sizes.size and sizes.max() > 8 * sizes.min():
        symlog(ax, "y", sizes)
    at = np.unique(np.linspace(0, len(spreads) - 1, 8).round().astype(int))
    ax.set_xticks(at, labels=[shorten(spreads[i].name, 18) for i in at], rotation=30, ha="right", rotation_mode="anchor")
    ax.set_xlim(0, len(spreads) - 1)
    ax.set_xlabel(f"{len(spreads):,} sites in run order", color=MUTED)
    return ax
