"""Pictures of the small nouns: samples, scores, one curve, coverage and findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from inspector.records import Coverage, Curve, Finding, Samples, Scores, Task
from inspector.tensors import Leaf, format_leaf, shape_text, walk
from inspector.viz.anything import plot_tensor, tensor_figure
from inspector.viz.bars import plot_intervals
from inspector.viz.board import Board
from inspector.viz.curves import plot_curves
from inspector.viz.figure import Figure, bare, canvas, shorten
from inspector.viz.images import as_picture, outline
from inspector.viz.lettering import clipped
from inspector.viz.scales import Array, Scale, array, colour_bar, sequential
from inspector.viz.sequences import plot_steps
from inspector.viz.style import ALARM, COLOURS, MUTED, SMALL, panel, styled
from inspector.viz.titles import evidence_note, shown_of
from inspector.viz.tokens import LINE, lines_of, plot_tokens, unpadded
from inspector.words.facts import evidence_of, tokens_of, true_of, valid_of

MOST_FINDINGS, MOST_ROWS = 40, 60


def show_samples(samples: Samples, *, count: int = 12, **figure: Any) -> Figure:
    """The first ``count`` samples with their answers; true evidence is outlined."""
    if not len(samples):
        raise ValueError("there are no samples to show: the batch is empty")
    if count < 1:
        raise ValueError(f"count={count} shows nothing; ask for 1 or more of the {len(samples)}")
    first = next(walk(samples.inputs))[1]
    shown = min(count, len(samples))
    with styled():
        if all(tensor.dim() == 1 for _, tensor in walk(samples.inputs)):
            drawn = _columns(samples, shown, figure)
        elif "tokens" in samples.names or not first.is_floating_point():
            shown = min(shown, 8)
            drawn = _tokens(samples, first, shown, figure)
        elif first.dim() == 4:
            drawn = _images(samples, first, shown, figure)
        elif first.dim() == 3:
            shown = min(shown, 6)
            drawn = _series(samples, first, shown, figure)
        else:
            shown = min(len(samples), 60)
            drawn = _matrix(samples, first[:shown], figure)
    drawn.head("Samples", _facts(samples, shown))
    return drawn


def _facts(samples: Samples, shown: int) -> str:
    """How many are drawn, of what shape, and what is known of them."""
    known = [name for name in ("target", "evidence", "valid", "groups") if getattr(samples, name) is not None]
    shapes = ", ".join(shape_text(tensor) for _, tensor in walk(samples.inputs))
    return " · ".join([shown_of(shown, len(samples)), f"inputs {shapes}", *([f"with {', '.join(known)}"] if known else [])])


def _matrix(samples: Samples, rows: Tensor, options: dict[str, Any]) -> Figure:
    """Samples of features (n, F) as rows of a matrix, with the features' names where there is room."""
    if rows.dim() != 2:
        return tensor_figure(rows, **options)
    names = [shorten(str(name), 18) for name in samples.names.get("features", ())]
    scale = sequential(rows, over="the samples shown")
    drawn = Figure(natural=(min(max(0.24 * rows.shape[1] + 2.4, 5.0), 10.0), 0.05 * len(rows) + 2.8), **options)
    ax = drawn.add_subplot()
    colour_bar(ax, plot_tensor(rows, ax=ax, axes=("sample", "feature")), scale)
    ax.set_aspect("auto")
    if len(names) == rows.shape[1] <= 40:
        ax.set_xticks(range(len(names)), labels=names, rotation=50, ha="right", rotation_mode="anchor")
    drawn.foot(f"Colours: {scale}.")
    return drawn


def _images(samples: Samples, images: Tensor, shown: int, options: dict[str, Any]) -> Figure:
    wide = min(shown, 6)
    rows, tall = -(-shown // wide), float(min(max(images.shape[2] / images.shape[3], 0.25), 2.0))
    figure = Figure(natural=(1.35 * wide + 0.6, (1.3 * tall + 0.3) * rows + 1.0), **options)
    for row in range(rows):
        chosen = range(row * wide, min((row + 1) * wide, shown))
        board = Board(figure.add_subplot(rows, 1, row + 1), 1, wide, tall)
        for column, i in enumerate(chosen):
            drawn = board.put(as_picture(images[i])[0], 0, column)
            outline(board.ax, evidence_of(samples, i, _first(samples)), drawn.get_extent())
        board.label_columns([_caption(samples, i) for i in chosen])
    figure.foot(evidence_note(samples, _first(samples)))
    return figure


def _first(samples: Samples) -> Leaf:
    """The input that is drawn."""
    return next(walk(samples.inputs))[0]


def _caption(samples: Samples, index: int) -> str:
    true = true_of(samples, index)
    return f"{index}: {shorten(true, 14)}" if true else str(index)


def _series(samples: Samples, series: Tensor, shown: int, options: dict[str, Any]) -> Figure:
    figure = Figure(natural=(8.0, 1.3 * shown + 0.9), **options)
    axes = np.atleast_1d(figure.subplots(shown, 1, sharex=True))
    for i, ax in enumerate(axes):
        _one_series(samples, array(series[i]), i, ax)
    axes[-1].set_xlabel("step", color=MUTED)
    figure.foot(evidence_note(samples, _first(samples)))
    return figure


def _one_series(samples: Samples, signal: Array, index: int, ax: Axes) -> None:
    if signal.shape[1] <= 8:
        for lane in range(signal.shape[1]):
            ax.plot(signal[:, lane], lw=0.9, color=COLOURS[lane % len(COLOURS)])
    else:
        low, high = float(np.nanmin(signal)), float(np.nanmax(signal))
        scale = Scale(low, max(high, low + 1e-9), "range of the input")
        plot_steps(signal, scale=scale, cmap="Greys", valid=valid_of(samples, index, len(signal)), ax=ax)
    true = evidence_of(samples, index, _first(samples))
    if true is not None:
        steps = true if true.dim() == 1 else true.any(1)
        for step in np.flatnonzero(steps.cpu().numpy()):
            ax.axvspan(step - 0.5, step + 0.5, color=COLOURS[4], alpha=0.25, lw=0)
    ax.set_title(_caption(samples, index))


def _tokens(samples: Samples, ids: Tensor, shown: int, options: dict[str, Any]) -> Figure:
    length = ids.shape[1] if ids.dim() > 1 else 1
    words = [unpadded(tokens_of(samples, i, length), valid_of(samples, i, length)) for i in range(shown)]
    lines = [lines_of(text, 92) for text in words]
    figure = Figure(natural=(8.6, sum(lines) * 0.33 + 0.42 * shown + 0.8), **options)
    grid = figure.add_gridspec(shown, 1, height_ratios=[n * LINE + 0.5 for n in lines])
    for i, text in enumerate(words):
        ax = figure.add_subplot(grid[i])
        true = samples.evidence_at(_first(samples))
        marks = array(true[i].float()) if true is not None and true.shape[1:] == (length,) else np.zeros(length)
        scale = Scale(-2.0, 2.0, "evidence")
        plot_tokens(text, marks[: len(text)], scale=scale, columns=92, ax=ax, numbers=False)
        ax.set_title(_caption(samples, i))
    if samples.evidence_at(_first(samples)) is not None:
        figure.foot("Red and underlined: the true evidence.")
    return figure


def _columns(samples: Samples, shown: int, options: dict[str, Any]) -> Figure:
    """Inputs of one number each, such as user and item, as a small table."""
    columns = {format_leaf(leaf).strip("[]") or "input": tensor for leaf, tensor in walk(samples.inputs)}
    figure = Figure(natural=(1.3 * len(columns) + 3.0, 0.24 * shown + 1.3), **options)
    ax = bare(figure.add_subplot())
    ax.set_xlim(0, len(columns) + 1)
    ax.set_ylim(shown - 0.4, -1.6)
    for x, (name, column) in enumerate([*columns.items(), ("answer", None)]):
        ax.text(x + 0.5, -1, shorten(name, 16), ha="center", va="center", weight="bold", size=SMALL)
        for i in range(shown):
            value = true_of(samples, i) if column is None else f"{column[i].item():g}"
            ax.text(x + 0.5, i, shorten(value, 16), ha="center", va="center", size=SMALL)
    ax.axhline(-0.5, color=MUTED, lw=0.6)
    return figure


def show_task(task: Task, **options: Any) -> Figure:
    """The first samples of the test half."""
    drawn = show_samples(task.test, **options)
    drawn.head(
        task.name or "Task", f"{len(task.train):,} samples to train on, {len(task.test):,} to test; test samples shown"
    )
    return drawn


def show_scores(scores: Scores, **figure: Any) -> Figure:
    """A panel per metric: mean and 95 % interval of every label."""
    metrics, labels = scores.metrics, list(scores)
    wide = min(max(len(metrics), 1), 3)
    rows = -(-len(metrics) // wide)
    with styled():
        size = (3.1 * wide + 1.0, (0.8 + 0.24 * len(labels)) * max(rows, 1) + 0.8)
        drawn = Figure(natural=size, **figure)
        for i, metric in enumerate(metrics):
            ax = drawn.add_subplot(rows, wide, i + 1)
            found = {label: scores.interval(label, metric) for label in labels if metric in scores[label]}
            plot_intervals(found, title=shorten(metric, 26), ax=ax)
            ax.set_xlabel({"high": "higher is better →", "low": "← lower is better"}.get(str(scores.better(metric)), ""))
    count = f"{len(labels)} method{'s' * (len(labels) != 1)}, {len(metrics)} metric{'s' * (len(metrics) != 1)}"
    drawn.head("Scores", count)
    drawn.foot("Whiskers: 95% bootstrap interval of the mean over samples.")
    return drawn


def show_curve(curve: Curve, *more: Curve, **figure: Any) -> Figure:
    """The mean over the samples with its band; several: one line each."""
    curves = {f"curve {i}": c for i, c in enumerate([curve, *more])}
    with styled():
        drawn = Figure(natural=(4.6, 3.2), **figure)
        ax = drawn.add_subplot()
        plot_curves(curves, ax=ax)
        if more:
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03))
    areas = ", ".join(f"{c.area.double().mean().item():.3g}" for c in curves.values())
    drawn.head(
        "Curve" if not more else f"{len(curves)} curves", f"{shown_of(len(curve.y), len(curve.y))} · mean area {areas}"
    )
    drawn.foot("Band: 1.96 standard errors of the mean over samples.")
    return drawn


def show_coverage(coverage: Coverage, **figure: Any) -> Figure:
    """How often each chosen module ran; modules that never ran say why."""
    rows = sorted(coverage.items(), key=lambda row: bool(row[1].calls))  # what is missing first, else in order
    rows = (rows if len(rows) > MOST_ROWS else list(coverage.items()))[:MOST_ROWS]
    with styled():
        drawn = Figure(natural=(7.6, 0.22 * len(rows) + 1.3), **figure)
        ax = drawn.add_subplot()
        bars = ax.barh(range(len(rows)), [status.calls for _, status in rows], color=COLOURS[0], height=0.6)
        for y, (_, status) in enumerate(rows):
            note = f"{status.calls}" if status.calls else clipped(status.reason or "never ran", 95)
            style: dict[str, Any] = {"size": SMALL, "color": MUTED if status.calls else ALARM}
            ax.annotate(note, (status.calls, y), xytext=(3, 0), textcoords="offset points", va="center", **style)
        ax.set_yticks(range(len(bars)), labels=[shorten(path or "(model)", 34) for path, _ in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlabel("calls", color=MUTED)
        ax.locator_params(axis="x", nbins=6, integer=True)
        ax.set_xlim(0, 1.15 * max([s.calls for _, s in rows] + [1]))
    some = f" · {len(rows)} of {len(coverage):,} shown, the missing first" if len(rows) < len(coverage) else ""
    drawn.head("Coverage", f"{len(coverage) - len(coverage.missing)} of {len(coverage)} chosen modules ran{some}")
    return drawn


def show_findings(findings: Sequence[Finding], **figure: Any) -> Figure:
    """Each finding from its step on, the earliest first."""
    ordered = sorted(findings, key=lambda finding: finding.step)[:MOST_FINDINGS]
    with styled():
        drawn = Figure(natural=(8.0, 0.42 * len(ordered) + 1.2), **figure)
        plot_findings(ordered, ax=drawn.add_subplot())
    some = f", {len(ordered)} shown" if len(ordered) < len(findings) else ""
    drawn.head(f"{len(findings)} finding{'s' * (len(findings) != 1)}{some}", "" if findings else "No rule found anything.")
    return drawn


@panel
def plot_findings(findings: Sequence[Finding], *, ax: Axes | None = None) -> list[Any]:
    """A line per finding that begins at its step, with its message above it."""
    ax = canvas(ax, (7, 0.42 * len(findings) + 0.8))
    last = max((f.step for f in findings), default=0) * 1.25 + 1
    lines = []
    for y, finding in enumerate(findings):
        lines += ax.plot([finding.step, last], [y, y], color=ALARM, lw=1.6, alpha=0.6)
        ax.plot([finding.step], [y], ">", color=ALARM, ms=6)
        where: dict[str, Any] = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "size": SMALL}
        ax.annotate(clipped(finding.message, 110), (0, y), xytext=(2, 6), va="bottom", **where)
    ax.set_yticks(range(len(findings)), labels=[shorten(f.rule, 26) for f in findings])
    ax.set_ylim(len(findings) - 0.4, -0.9)
    ax.set_xlim(0, last)
    ax.set_xlabel("step", color=MUTED)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_axis_on() if findings else ax.set_axis_off()
    return lines
