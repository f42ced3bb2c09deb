"""Several records of one kind on shared axes, where what is compared is an amount each: scores, counts, spreads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from inspector.records import Call, Comparison, Coverage, Samples, Scores, Summary, Task
from inspector.records.summary import in_bytes, in_seconds
from inspector.tensors import walk
from inspector.viz.bars import plot_intervals
from inspector.viz.figure import Figure, canvas, shorten
from inspector.viz.spreads import plot_spreads, spread_of
from inspector.viz.style import COLOURS, MUTED, SMALL, panel, styled
from inspector.words.facts import class_name

_MARKS = "osD^v<>P"


def several_scores(*scores: Scores, **figure: Any) -> Figure:
    """A panel per metric that any of them has: every label of each with its interval, on one axis."""
    metrics = list(dict.fromkeys(metric for one in scores for metric in one.metrics))
    rows = {
        metric: {
            f"{i + 1}: {label}": one.interval(label, metric)
            for i, one in enumerate(scores)
            for label in one
            if metric in one[label]
        }
        for metric in metrics
    }
    tall = max(map(len, rows.values()), default=1)
    with styled():
        drawn = Figure(natural=(9.0, (0.24 * tall + 0.9) * max(len(metrics), 1) + 0.8), **figure)
        for k, metric in enumerate(metrics):
            ax = drawn.add_subplot(len(metrics), 1, k + 1)
            colours = {name: COLOURS[(int(name.split(":")[0]) - 1) % len(COLOURS)] for name in rows[metric]}
            plot_intervals(rows[metric], ax=ax, title=shorten(metric, 40), colours=colours)
            better = next((one.better(metric) for one in scores if one.better(metric)), None)
            ax.set_xlabel({"high": "higher is better →", "low": "← lower is better"}.get(str(better), ""), color=MUTED)
    drawn.head(f"{len(scores)} sets of scores")
    drawn.foot("Whiskers: 95% bootstrap interval of the mean over samples.")
    return drawn


def several_comparisons(*comparisons: Comparison, **figure: Any) -> Figure:
    """Their scores; what each says of single samples is in its own picture."""
    drawn = several_scores(*(c.scores for c in comparisons), **figure)
    sizes = (f"{i + 1}: {len(c.samples)} samples" for i, c in enumerate(comparisons))
    drawn.head(f"{len(comparisons)} comparisons", " · ".join(sizes))
    return drawn


def several_summaries(*summaries: Summary, **figure: Any) -> Figure:
    """Parameters, multiply-adds, memory and time of each as bars, as far as they are known."""
    amounts: dict[str, list[float | None]] = {
        "parameters": [s.parameters for s in summaries],
        "multiply-adds": [s.multiply_adds for s in summaries],
        "kept for backward": [s.saved_bytes for s in summaries],
        "time": [s.seconds for s in summaries],
    }
    known = {name: values for name, values in amounts.items() if any(value is not None for value in values)}
    names = [f"{i + 1}: {shorten(s.model, 24)}" for i, s in enumerate(summaries)]
    with styled():
        drawn = Figure(natural=(2.3 * len(known) + 1.6, 0.34 * len(names) + 1.4), **figure)
        for k, (name, values) in enumerate(known.items()):
            ax = drawn.add_subplot(1, len(known), k + 1)
            bars = {n: v or 0.0 for n, v in zip(names, values, strict=True)}
            plot_bars(bars, texts=["not known" if v is None else _written(name, v) for v in values], ax=ax, title=name)
            ax.tick_params(labelleft=k == 0)
    drawn.head(f"{len(summaries)} summaries")
    return drawn


def _written(name: str, value: float) -> str:
    if name == "kept for backward":
        return in_bytes(int(value))
    return in_seconds(value) if name == "time" else _plain(value)


def _plain(value: float) -> str:
    return f"{value:,.0f}"


@panel
def plot_bars(
    amounts: Mapping[str, float], *, texts: Sequence[str] | None = None, ax: Axes | None = None, title: str = ""
) -> Any:
    """A bar from 0 for each name with its amount written at its end; returns the bars."""
    ax = canvas(ax, (4, 0.3 * len(amounts) + 0.6))
    bars = ax.barh(range(len(amounts)), list(amounts.values()), color=COLOURS[0], alpha=0.6, height=0.6)
    for y, (amount, text) in enumerate(zip(amounts.values(), texts or map(_plain, amounts.values()), strict=True)):
        ax.annotate(text, (amount, y), xytext=(3, 0), textcoords="offset points", va="center", size=SMALL)
    ax.set_yticks(range(len(amounts)), labels=[shorten(name, 28) for name in amounts])
    ax.set_ylim(len(amounts) - 0.4, -0.6)
    ax.set_xlim(0, 1.6 * (max(amounts.values(), default=0.0) or 1.0))
    ax.set_xticks([])  # the amounts stand at the bars
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_title(title)
    return bars


def several_coverages(*coverages: Coverage, **figure: Any) -> Figure:
    """How often each module ran in each of them; 0 where it was chosen and never ran, no mark where it was not chosen."""
    paths = list(dict.fromkeys(path for coverage in coverages for path in coverage))
    differ = [p for p in paths if len({c[p].calls if p in c else None for c in coverages}) > 1]
    shown = (differ + [path for path in paths if path not in differ])[:60] if len(paths) > 60 else paths
    with styled():
        drawn = Figure(natural=(7.6, 0.22 * len(shown) + 1.6), **figure)
        ax = drawn.add_subplot()
        for i, coverage in enumerate(coverages):
            at = [(coverage[path].calls, y) for y, path in enumerate(shown) if path in coverage]
            x, y = zip(*at, strict=True) if at else ((), ())
            style: dict[str, Any] = {"ls": "none", "mfc": "none", "ms": 5 + 2 * i, "color": COLOURS[i % len(COLOURS)]}
            ax.plot(x, y, _MARKS[i % len(_MARKS)], label=f"{i + 1}", **style)
        ax.set_yticks(range(len(shown)), labels=[shorten(path or "(model)", 34) for path in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_xlabel("calls", color=MUTED)
        ax.set_xlim(-0.3, None)
        ax.locator_params(axis="x", nbins=6, integer=True)
        ax.grid(axis="x")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03))
    some = f" · {len(shown)} of {len(paths):,} modules shown, those that differ first" if len(shown) < len(paths) else ""
    drawn.head(f"{len(coverages)} coverages", f"{len(differ)} of {len(paths)} modules differ{some}")
    return drawn


def several_samples(*samples: Samples, **figure: Any) -> Figure:
    """The share of each class in each of them; where there are no classes, how many samples there are."""
    with styled():
        drawn = Figure(natural=(7.0, 3.2), **figure)
        ax = drawn.add_subplot()
        counts = [_classes(one) for one in samples]
        if all(counts):
            _shares(ax, counts)
        else:
            plot_bars({f"{i + 1}": float(len(one)) for i, one in enumerate(samples)}, ax=ax, title="samples")
    drawn.head(f"{len(samples)} sets of samples", " · ".join(f"{i + 1}: {len(one):,}" for i, one in enumerate(samples)))
    return drawn


def several_tasks(*tasks: Task, **figure: Any) -> Figure:
    """The test halves beside each other."""
    drawn = several_samples(*(task.test for task in tasks), **figure)
    names = (f"{i + 1}: {task.name or 'task'}, {len(task.test):,} to test" for i, task in enumerate(tasks))
    drawn.head(f"{len(tasks)} tasks", " · ".join(names))
    return drawn


def _classes(samples: Samples) -> dict[str, int]:
    target = samples.target
    if not isinstance(target, Tensor) or target.dim() != 1 or target.is_floating_point():
        return {}
    found, counts = torch.unique(target, return_counts=True)
    return {class_name(samples, c): n for c, n in zip(found.tolist(), counts.tolist(), strict=True)}


def _shares(ax: Axes, counts: list[dict[str, int]]) -> None:
    names = list(dict.fromkeys(name for one in counts for name in one))
    width = 0.8 / len(counts)
    for i, one in enumerate(counts):
        at = np.arange(len(names)) - 0.4 + width * (i + 0.5)
        heights = [100 * one.get(name, 0) / max(sum(one.values()), 1) for name in names]
        ax.bar(at, heights, width=0.9 * width, color=COLOURS[i % len(COLOURS)], label=f"{i + 1}")
    every = max(1, -(-len(names) // 25))
    crowded = max(map(len, names)) * len(names) > 60
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    ax.set_xticks(range(0, len(names), every), labels=[shorten(name, 14) for name in names[::every]], **turned)
    ax.set_ylabel("% of the samples", color=MUTED)
    ax.grid(axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.03))


def several_tensors(*tensors: Tensor, **figure: Any) -> Figure:
    """How the values of each are spread, a row each."""
    return _spreads({f"{i + 1}": tensor for i, tensor in enumerate(tensors)}, f"{len(tensors)} tensors", figure)


def several_calls(*calls: Call, **figure: Any) -> Figure:
    """How the values of each are spread, a row for each tensor of each kind."""
    rows = {
        f"{i + 1}: {call.site._replace(kind=kind, path=call.site.path or '(model)', leaf=leaf)}": tensor
        for i, call in enumerate(calls)
        for kind in call.kinds
        for leaf, tensor in walk(getattr(call, kind))
    }
    return _spreads(rows, f"{len(calls)} calls", figure)


def _spreads(rows: dict[str, Tensor], title: str, options: dict[str, Any]) -> Figure:
    kept = {name: t for name, t in rows.items() if not t.is_meta and not t.is_nested and t.numel()}
    if not kept:
        raise ValueError(f"{title} hold no number to draw")
    with styled():
        drawn = Figure(natural=(7.6, 0.24 * min(len(kept), 40) + 1.7), **options)
        plot_spreads([spread_of(name, tensor) for name, tensor in kept.items()], ax=drawn.add_subplot())
    drawn.head(title)
    drawn.foot("Palest: smallest to largest; paler: 1st to 99th percentile; darkest: the middle half; dot: median.")
    return drawn
