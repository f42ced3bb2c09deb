"""The picture of a summary: the modules in run order, with where the parameters and the work are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec

from inspector.records import Row, Summary
from inspector.records.summary import in_bytes, in_seconds
from inspector.viz.figure import Figure, canvas, shorten
from inspector.viz.style import COLOURS, MUTED, SMALL, panel, styled

_COLUMNS: dict[str, Callable[[Row], Any]] = {
    "parameters": lambda row: row.parameters,
    "multiply_adds": lambda row: row.multiply_adds,
    "saved_bytes": lambda row: row.saved_bytes,
    "seconds": lambda row: row.seconds,
}
_WORDS = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "saved_bytes": "kept for backward",
    "seconds": "time",
}


def show_summary(summary: Summary, *, rows: int = 60, **figure: Any) -> Figure:
    """The module tree with bars of what is known of each module. Deep levels are folded into their parents until at
    most ``rows`` remain; the sums stay the same."""
    shown, depth = fold(list(summary.rows), rows)
    columns = [name for name, of in _COLUMNS.items() if any(of(row) for row in shown)][:3] or ["parameters"]
    with styled():
        drawn = Figure(natural=(9.0, 0.2 * len(shown) + 1.5), **figure)
        grid = GridSpec(1, 1 + len(columns), figure=drawn, width_ratios=[3.4, *[1.5] * len(columns)])
        plot_tree(shown, ax=drawn.add_subplot(grid[0]))
        for i, name in enumerate(columns, start=1):
            plot_amounts(shown, name, ax=drawn.add_subplot(grid[i]))
    deeper = any(row.depth > depth for row in summary.rows)
    folded = f" Modules below depth {depth} are folded into their parents." if deeper else ""
    some = f" {len(shown)} of {len(summary.rows):,} rows shown." if len(shown) < len(summary.rows) else ""
    drawn.head(summary.model, " · ".join(summary.totals()).removeprefix(f"{summary.model}: "))
    drawn.foot("Bars: share of the column's largest." + some + folded)
    return drawn


def fold(rows: list[Row], most: int) -> tuple[list[Row], int]:
    """At most ``most`` rows and the depth they reach: deeper rows are added to their parents, and where one level alone
    is too long, its tail is summed in a last row."""
    deepest = max((row.depth for row in rows), default=0)
    for depth in range(deepest, -1, -1):
        kept = sum(row.depth <= depth for row in rows)
        if kept <= most and (kept >= most // 6 or depth == deepest):
            return _folded(rows, depth), depth
    depth = next(d for d in range(deepest + 1) if sum(row.depth <= d for row in rows) > most // 6)
    flat = _folded(rows, depth)
    tail = _folded([replace(row, depth=1 - (i == 0)) for i, row in enumerate(flat[most - 1 :])], 0)
    last = replace(tail[0], name=f"… {len(flat) - most + 1} more", kind="", output="", call=None, depth=depth)
    return [*flat[: most - 1], last], depth


def _folded(rows: list[Row], depth: int) -> list[Row]:
    kept: list[Row] = []
    for row in rows:
        if row.depth <= depth or not kept:
            kept.append(row)
            continue
        last = kept[-1]
        sums = {name: _add(of(last), of(row)) for name, of in _COLUMNS.items()}
        kept[-1] = replace(last, **sums)
    return kept


def _add(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other


@panel
def plot_tree(rows: list[Row], *, ax: Axes | None = None) -> Axes:
    """Names indented by depth, with type and output shape beside."""
    ax = canvas(ax, (5, 0.2 * len(rows) + 0.5))
    ax.set_xlim(0, 1)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.axis("off")
    for y, row in enumerate(rows):
        ax.text(min(row.depth, 8) * 0.025, y, shorten(_short_name(row), 22), va="center", size=SMALL)
        ax.text(0.42, y, shorten(row.kind, 22), va="center", size=SMALL, color=MUTED)
        ax.text(1.0, y, shorten(row.output, 24), va="center", ha="right", size=SMALL, color=MUTED)
    return ax


@panel
def plot_amounts(rows: list[Row], column: str, *, ax: Axes | None = None) -> Any:
    """One amount for each row as a bar with its number; nothing is drawn where it is not known."""
    ax = canvas(ax, (2, 0.2 * len(rows) + 0.5))
    amounts = [_COLUMNS[column](row) or 0 for row in rows]
    lengths = [0 if row.name.startswith("…") else amount for row, amount in zip(rows, amounts, strict=True)]
    largest = max(lengths, default=0) or 1
    bars = ax.barh(range(len(rows)), lengths, color=COLOURS[0], alpha=0.55, height=0.7)
    for y, (amount, length) in enumerate(zip(amounts, lengths, strict=True)):
        if amount:
            ax.annotate(
                _text(column, amount), (length, y), xytext=(2, 0), textcoords="offset points", va="center", size=SMALL - 0.5
            )
    ax.set_xlim(0, 1.55 * largest)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.axis("off")
    ax.set_title(_WORDS[column])
    return bars


def _text(column: str, amount: float) -> str:
    if column == "saved_bytes":
        return in_bytes(int(amount))
    return in_seconds(amount) if column == "seconds" else f"{int(amount):,}"


def _short_name(row: Row) -> str:
    """The last part of the name; what is above it is told by the indent."""
    name = row.name if row.name.startswith("…") else row.name.rpartition(".")[2]
    return (name or "(model)") + ("" if row.call is None else f"@{row.call}")
