"""Tokens highlighted by their attribution: hue and underline tell the sign, depth of colour and a number the size.

Letters are set one by one on a grid of a fixed-width font, so that the flow of the text needs no renderer and no
guess; special tokens are dimmed, never renamed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from torch import Tensor

from inspector.viz.figure import bare, canvas
from inspector.viz.scales import Array, Scale, array, number, signed
from inspector.viz.style import FAINT, INK, MUTED, panel

LINE = 1.75  # height of a line in the grid's units; one unit is the height of a letter's cell
_VISIBLE = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


class Placed(NamedTuple):
    text: str
    line: int
    column: int
    width: int
    at: int


def cells(text: str) -> int:
    """How many columns of a fixed-width font a text takes."""
    wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)
    return max(wide, 1)


def visible(token: str, longest: int = 40) -> str:
    """Control characters made visible, very long tokens cut."""
    shown = "".join(_VISIBLE.get(c, "�" if unicodedata.category(c) in ("Cc", "Cs") else c) for c in token)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def flow(tokens: Sequence[str], columns: int) -> list[Placed]:
    """Where each token comes to stand when they are set in lines of ``columns`` letters."""
    placed, line, column = [], 0, 0
    for index, token in enumerate(tokens):
        text = visible(token, max(columns - 1, 1))
        width = cells(text)
        if column and column + width > columns:
            line, column = line + 1, 0
        placed.append(Placed(text, line, column, width, index))
        column += width + 1
    return placed


def lines_of(tokens: Sequence[str], columns: int) -> int:
    """How many lines the tokens take."""
    return max((p.line for p in flow(tokens, columns)), default=0) + 1


def fit(tokens: Sequence[str], columns: int, lines: int) -> list[str]:
    """As many of the first tokens as have room in so many lines."""
    return [token for token, place in zip(tokens, flow(tokens, columns), strict=True) if place.line < lines]


def unpadded(tokens: Sequence[str], valid: Tensor) -> list[str]:
    """The tokens without the padding at their end."""
    real = valid.cpu().numpy()
    return list(tokens[: int(np.flatnonzero(real)[-1]) + 1 if real.any() else 1])


@panel
def plot_tokens(
    tokens: Sequence[str],
    heat: Tensor | Array,
    *,
    scale: Scale | None = None,
    columns: int = 90,
    valid: Tensor | None = None,
    ax: Axes | None = None,
    numbers: bool = True,
) -> list[Rectangle]:
    """Running text with each token on its colour; the underline is solid for + and dashed for −. Returns the boxes."""
    values, scale = array(heat), scale or signed(heat)
    placed = flow(tokens, columns)
    tall = (placed[-1].line + 1 if placed else 1) * LINE
    ax = canvas(ax, (columns * 0.082, tall * 0.2 + 0.2))
    bare(ax).set_xlim(-0.5, columns)
    ax.set_ylim(tall, -0.5)
    largest = _numbered(placed, values) if numbers else set()
    padded = ~np.ones(len(tokens), dtype=bool) if valid is None else ~valid.cpu().numpy()
    return [_token(ax, p, values[p.at], scale, bool(padded[p.at]), p.at in largest) for p in placed]


def _numbered(placed: Sequence[Placed], values: Array) -> set[int]:
    """The eight largest tokens, but for those whose number would run into that of a larger one."""
    taken: list[tuple[int, float, float]] = []
    kept: set[int] = set()
    for at in np.argsort(-np.nan_to_num(np.abs(values)), kind="stable").tolist()[:8]:
        if at >= len(placed):
            continue
        p, half = placed[at], 0.4 * len(number(values[at], sign=True)) + 0.3
        left, right = p.column + p.width / 2 - half, p.column + p.width / 2 + half
        if all(p.line != line or right < start or left > end for line, start, end in taken):
            taken.append((p.line, left, right))
            kept.add(at)
    return kept


def _token(ax: Axes, p: Placed, value: float, scale: Scale, padded: bool, numbered: bool) -> Rectangle:
    top = p.line * LINE
    colour = "none" if padded else scale.colour(value)
    box = Rectangle((p.column - 0.2, top), p.width + 0.4, 1.0, facecolor=colour, edgecolor=FAINT, linewidth=0.4)
    ax.add_patch(box)
    ink = MUTED if padded else "white" if _dark(colour) else INK
    ax.text(p.column + p.width / 2, top + 0.52, p.text, family="monospace", size=8, color=ink, ha="center", va="center")
    if value and not padded and np.isfinite(value) and abs(value) > 0.1 * scale.high:
        style: dict[str, Any] = {
            "color": INK,
            "lw": 1.1,
            "ls": "-" if value > 0 else (0, (2, 1.2)),
            "solid_capstyle": "butt",
        }
        ax.plot([p.column - 0.1, p.column + p.width + 0.1], [top + 1.07, top + 1.07], **style)
    if numbered and value and not padded:
        ax.text(
            p.column + p.width / 2, top + 1.38, number(value, sign=True), size=5.8, color=MUTED, ha="center", va="center"
        )
    return box


def _dark(colour: tuple[float, ...] | str) -> bool:
    return not isinstance(colour, str) and 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 0.5


def tokens_html(
    tokens: Sequence[str], heat: Tensor | Array, *, scale: Scale | None = None, valid: Tensor | None = None
) -> str:
    """The same as one escaped ``<p>`` without script: the value stands in each token's title and in its label for
    screen readers; the underline is solid for + and dashed for −."""
    values, scale = array(heat), scale or signed(heat)
    padded = np.zeros(len(tokens), dtype=bool) if valid is None else ~valid.cpu().numpy()
    spans = [_span(t, float(v), scale, bool(p)) for t, v, p in zip(tokens, values, padded, strict=True)]
    return f'<p style="line-height:2.1;font-family:monospace">{" ".join(spans)}</p>'


def _span(token: str, value: float, scale: Scale, padded: bool) -> str:
    text = escape(visible(token))
    if padded:
        return f'<span style="opacity:.45" title="padding">{text}</span>'
    colour = scale.colour(value)
    line = "none" if not abs(value) > 0.1 * scale.high else "solid" if value > 0 else "dashed"
    said = "not a number" if value != value else number(value, sign=True)
    style = (
        f"background:{to_hex(colour)};color:{'#fff' if _dark(colour) else '#111'};border-bottom:2px {line};padding:1px 3px"
    )
    return f'<span tabindex="0" style="{style}" title="{said}" aria-label="{text}: {said}">{text}</span>'
