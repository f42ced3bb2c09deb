"""Attention: each head as a matrix of queries by sources on one scale from 0, layers by heads at a glance, and rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from inspector.viz.board import Board
from inspector.viz.figure import Figure, canvas, shorten
from inspector.viz.images import thin
from inspector.viz.lettering import apart
from inspector.viz.scales import Array, Scale, array, colour_bar, sequential
from inspector.viz.style import MUTED, panel, styled
from inspector.viz.tokens import visible

NAMED = 28  # more tokens than these are not named one by one
MOST_HEADS, MOST_LAYERS = 24, 24


def rollout(layers: Sequence[Tensor | Array]) -> Array:
    """(T, T): how much each last-layer position draws on each input position, if attention were all there is.

    Heads are averaged and half of each step is the residual connection (Abnar, Zuidema 2020). layers: (heads, T, T) each.
    """
    total: Array | None = None
    for weights in layers:
        step = array(weights).mean(axis=0)
        if step.ndim != 2 or step.shape[0] != step.shape[1]:
            raise ValueError(f"rollout needs self-attention, whose matrices are square; one here is {step.shape}")
        step = 0.5 * step + 0.5 * np.eye(len(step))
        step /= step.sum(axis=1, keepdims=True)
        total = step if total is None else step @ total
    if total is None:
        raise ValueError("rollout of no layers")
    return total


@panel
def plot_attention(
    weights: Tensor | Array,
    *,
    tokens: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    scale: Scale | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> AxesImage:
    """One matrix (queries, sources): a row says where that position looks. ``sources`` names the columns where they are
    not the same tokens as the rows."""
    values = array(weights)
    ax = canvas(ax, (4.4, 4.0))
    extent = (-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5)
    drawn = ax.imshow(thin(values), extent=extent, **(scale or sequential(values)).style)
    ax.set_aspect("equal" if 0.2 < values.shape[0] / values.shape[1] < 5 else "auto")
    _name(ax, "y", tokens, values.shape[0])
    _name(ax, "x", sources if sources is not None else tokens, values.shape[1])
    ax.set_ylabel("looks from", color=MUTED)
    ax.set_xlabel("to", color=MUTED)
    ax.set_title(title)
    return drawn


def _name(ax: Axes, which: str, tokens: Sequence[str] | None, count: int) -> None:
    if tokens is None or len(tokens) != count or count > NAMED:
        ax.locator_params(axis="x" if which == "x" else "y", nbins=8, integer=True)
        return
    labels = [shorten(visible(str(token)), 14 if count <= 12 else 10) for token in tokens]
    if which == "x":
        ax.set_xticks(range(count), labels=labels, rotation=60, ha="right", rotation_mode="anchor")
    else:
        ax.set_yticks(range(count), labels=labels)


@panel
def plot_heads(
    layers: Mapping[str, Tensor | Array], *, scale: Scale | None = None, ax: Axes | None = None
) -> list[AxesImage]:
    """Layers (heads, queries, sources) as rows and heads as columns, all on one scale; at most 24 of each are drawn."""
    shown = {name: array(weights)[:MOST_HEADS] for name, weights in list(layers.items())[:MOST_LAYERS]}
    heads = max(len(weights) for weights in shown.values())
    first = next(iter(shown.values()))
    tall = min(max(first.shape[1] / first.shape[2], 0.4), 1.6)
    ax = canvas(ax, (0.9 * heads + 1.5, 0.9 * len(shown) * tall + 0.8))
    scale = scale or sequential(list(shown.values()), over="all heads")
    board = Board(ax, len(shown), heads, float(tall))
    drawn = [
        board.put(thin(weights[head]), row, head, **scale.style)
        for row, weights in enumerate(shown.values())
        for head in range(len(weights))
    ]
    board.label_rows([shorten(name, 24) for name in apart(list(layers))[:MOST_LAYERS]])
    board.label_columns([f"head {head}" if heads <= 8 else str(head) for head in range(heads)])
    return drawn


@panel
def plot_patches(
    weights: Tensor | Array, grid: tuple[int, int], *, query: int = 0, ax: Axes | None = None
) -> list[AxesImage]:
    """Where one query looks in an image of ``grid`` patches: a map per head. weights: (heads, queries, sources), where
    sources beyond the patches, such as a class token, come first and are left out."""
    values, (rows, columns) = array(weights), grid
    extra = values.shape[2] - rows * columns
    if extra < 0:
        raise ValueError(f"{values.shape[2]} sources are fewer than {rows}x{columns} patches")
    maps = values[:MOST_HEADS, query, extra:].reshape(-1, rows, columns)
    ax = canvas(ax, (1.1 * len(maps) + 1, 1.9 * rows / columns))
    scale = sequential(maps, over="all heads")
    board = Board(ax, 1, len(maps), rows / columns)
    drawn = [board.put(one, 0, head, **scale.style) for head, one in enumerate(maps)]
    board.label_columns([f"head {head}" if len(maps) <= 8 else str(head) for head in range(len(maps))])
    return drawn


def attention_figure(
    layers: Mapping[str, Tensor],
    *,
    tokens: Sequence[str] | None = None,
    patches: tuple[int, int] | None = None,
    query: int = 0,
    title: str = "attention",
    **figure: Any,
) -> Figure:
    """One sample's attention: the mean over heads (of several layers the rollout, where it is defined) with the tokens
    as axes, and every head beside it. layers: (heads, queries, sources) each."""
    values = {name: array(weights) for name, weights in layers.items()}
    scale = sequential(list(values.values()), over="all heads of all layers shown")
    beside = min(max(1.0 * min(max(len(w) for w in values.values()), MOST_HEADS), 1.6), 9.0)
    whole = 3.4 + (0.9 if tokens is not None else 0.0)  # names of tokens take their room
    cell = 0.95 * beside / min(max(map(len, values.values())), MOST_HEADS)
    heights = [max(whole, cell * min(len(values), MOST_LAYERS) + 0.8)] + [1.5] * (patches is not None)
    with styled():
        drawn = Figure(natural=(whole + 1.2 + beside, sum(heights) + 0.8), **figure)
        place = drawn.add_gridspec(len(heights), 2, width_ratios=[whole + 0.6, beside], height_ratios=heights)
        _draw_whole(drawn.add_subplot(place[0, 0]), values, tokens, 0.7 * whole / heights[0])
        right = drawn.add_subplot(place[0, 1])
        colour_bar(right, plot_heads(layers, scale=scale, ax=right)[0], scale, shrink=0.5, anchor=(0.0, 0.92))
        right.set_anchor("NE")
        if patches is not None:
            plot_patches(list(values.values())[-1], patches, query=query, ax=drawn.add_subplot(place[1, :]))
    drawn.head(title, _facts(values))
    drawn.foot(f"Heads: {scale}.", "Attention says where a layer reads from, not what made the model decide.")
    return drawn


def _draw_whole(ax: Axes, values: Mapping[str, Array], tokens: Sequence[str] | None, bar: float) -> None:
    whole, word = _whole(values)
    colour_bar(
        ax, plot_attention(whole, tokens=tokens, ax=ax, title=word), sequential(whole), shrink=bar, anchor=(0.0, 0.92)
    )
    ax.set_anchor("NE")


def _whole(values: Mapping[str, Array]) -> tuple[Array, str]:
    square = all(w.shape[1] == w.shape[2] == next(iter(values.values())).shape[1] for w in values.values())
    if len(values) > 1 and square:
        return rollout(list(values.values())), "rollout over all layers"
    last = list(values.values())[-1].mean(axis=0)
    return last, "mean over heads" + (" of the last layer" if len(values) > 1 else "")


def _facts(values: Mapping[str, Array]) -> str:
    first = next(iter(values.values()))
    heads = [len(w) for w in values.values()]
    entropy = np.mean([_entropy(w) for w in values.values()])
    layers = f"{len(values)} layers of " if len(values) > 1 else ""
    some = [f"{MOST_LAYERS} of {len(values)} layers shown"] if len(values) > MOST_LAYERS else []
    some += [f"{MOST_HEADS} of {max(heads)} heads shown"] if max(heads) > MOST_HEADS else []
    size = f"{layers}{heads[0]} head{'s' * (heads[0] != 1)}, {first.shape[1]} × {first.shape[2]}"
    return " · ".join([size, f"mean entropy {entropy:.2f} of {np.log(first.shape[2]):.2f} nats", *some])


def _entropy(weights: Array) -> float:
    kept = np.where(weights > 0, weights, 1.0)
    return float(-(np.nan_to_num(weights) * np.log(kept)).sum(axis=-1).mean())
