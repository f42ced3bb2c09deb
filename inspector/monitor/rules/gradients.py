"""Rules about the course of a run: exploding and vanishing gradients, loss spikes, skipped steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.monitor.rules.judge import Held, largest, lasting, usual, weights, window
from inspector.records.history import Column, Finding, History
from inspector.records.stats import Grid

_EMPTY: tuple[Column, Column] = (np.array([], dtype=np.int64), np.array([]))


def exploding(history: History) -> Iterator[Finding]:
    """The norm of the applied gradient over five steps is ten times what it was, both lately and at the start, and above
    every single one of sixty steps before, of which a few hard samples may make peaks; or gradients grow 100,000-fold on
    their way back through the layers."""
    steps, norms = history.watch.get("grad_norm", _EMPTY)
    yield from _across_depth(history, grows=True)
    if len(norms) < 15 or not np.isfinite(norms[-5:]).all():
        return
    highest = float(largest(norms[-80:-20], axis=0))
    if norms[-5:].max() <= highest:
        return
    now, before = window(norms, -5), max(window(norms, 0, 10), window(norms, -60, -5))
    limit = max(10.0 * before, highest)
    if now > limit and before > 0 and not _learning(history):
        name = _grew_most(history, int(steps[-5]))
        message = f"the gradient norm is {now:.3g}, {now / before:.0f} times what it was; most of all {name or 'everywhere'}"
        source = "10 times the running median, as AWS SageMaker Debugger's ExplodingTensor and SPAM (ICLR 2025) look for"
        yield Finding("exploding", name, int(steps[-5]), now, limit, message, _CALM, source)


_CALM = "Lower the learning rate, clip the gradient norm, or warm up."


def _learning(history: History) -> bool:
    """Does the loss go down? Then a growing gradient is a model that leaves a plateau."""
    _, _, values = _loss(history)
    return len(values) > 10 and window(values, -5) < window(values, -25, -5)


def _loss(history: History) -> tuple[str, Column, Column]:
    """The first scalar that was logged under a name with "loss" in it, and that name."""
    name = next((n for n in history.scalars if "loss" in n.lower()), "")
    return (name, *history.scalars.get(name, _EMPTY))


def _grew_most(history: History, step: int) -> str:
    """The parameter whose gradient grew by the largest factor around ``step``."""
    grid = history.stats.grid("param_grad", "rms")
    before, after = grid.values[:, grid.steps < step], grid.values[:, grid.steps >= step]
    if not before.shape[1] or not after.shape[1]:
        return ""
    with np.errstate(all="ignore"):
        grown = np.nan_to_num(after[:, -1] / usual(before), nan=0.0)
    return grid.names[int(grown.argmax())] if len(grown) else ""


def vanishing(history: History) -> Iterator[Finding]:
    """The gradient of a layer's weight is 100,000 times smaller than that of a layer nearer to the loss, and has been for
    twenty steps: branches that begin as nearly nothing leave that sooner."""
    yield from _across_depth(history, grows=False)


def _across_depth(history: History, *, grows: bool) -> Iterator[Finding]:
    """Compares each weight's gradient with the largest of those nearer to the loss, or nearer to the input."""
    grid, mixing = history.stats.grid("param_grad", "absmax"), weights(history)
    keep = [i for i, name in enumerate(grid.names) if name in mixing]
    if len(keep) < 2:
        return
    size, present = np.nan_to_num(grid.values[keep], nan=0.0), grid.present[keep]
    if not _far_below(size[:, -3:], present[:, -3:], grows)[1].all(axis=1).any():
        return  # as nearly always, and that is told from three steps
    share, bad = _far_below(size, present, grows)
    some = Grid([grid.names[i] for i in keep], grid.steps, share, present)
    held = list(lasting(some, bad, 3))
    if not grows:
        held = [h for h in held if grid.steps[-1] - h.since >= 19]
    if held:
        yield _grown(held, some, size) if grows else _vanished(held)


def _far_below(size: Column, present: Column, grows: bool) -> tuple[Column, Column]:
    """Gradients (weights, steps) as shares of the largest that they are compared with, and which are too small."""
    beyond = np.maximum.accumulate(size if grows else size[::-1])
    top = beyond if grows else beyond[::-1]
    share = size / np.where(top > 0, top, np.inf)
    return share, (share < 1e-5) & present & (top > 0)


def _vanished(held: list[Held]) -> Finding:
    """Named by the one that is furthest from the loss: of the gradients of a chain of layers it is what arrives there that
    shrinks, while a weight's own also grows with its input, which may be large just there."""
    first, least = held[0], min(held, key=lambda h: h.value)
    smallest = f", the least that of {least.name}" if least.name != first.name else ""
    others = f" (and {len(held) - 1} more{smallest})" if len(held) > 1 else ""
    share = f"{least.value:.1e} of" if least.value else "exactly zero, unlike"
    message = f"the gradient of {first.name}{others} is {share} that of a layer nearer to the loss: it does not learn"
    advice = "Use a non-saturating activation, normalisation, residual connections, or a larger initial scale."
    return Finding(
        "vanishing", first.name, first.since, least.value, 1e-5, message, advice, _DEPTH.format("VanishingGradient")
    )


def _grown(held: list[Held], grid: Grid, size: Column) -> Finding:
    """The layer where it is largest is the one that suffers."""
    last = max(held, key=lambda h: grid.names.index(h.name))
    name, times = grid.names[int(size[:, -1].argmax())], 1.0 / max(min(h.value for h in held), 1e-30)
    message = f"gradients grow {times:.1e}-fold on their way back from {last.name} to {name}"
    if not last.value:
        message = f"the gradient of {last.name} is exactly zero, unlike that of {name}, which is further from the loss"
    advice = "Start from smaller weights, normalise, or clip the gradient norm."
    return Finding("exploding", name, last.since, times, 1e5, message, advice, _DEPTH.format("ExplodingTensor"))


_DEPTH = "relative form of AWS SageMaker Debugger's {}; Pascanu et al. 2013, arXiv 1211.5063"


def loss_spike(history: History) -> Iterator[Finding]:
    """The loss jumps far above all of its recent values, or above them all and stays there; names what moved first."""
    name, steps, values = _loss(history)
    if len(values) < 25:
        return
    late = max(len(values) - 32, 20)  # a look may come that late
    before = values[late - 1 : -1]
    for i in (late + np.flatnonzero(values[late:] > before + 0.25 * np.abs(before))).tolist():
        recent, after = values[max(i - 50, 0) : i], values[i : i + _STAYS]
        highest = float(recent.max() + 0.25 * abs(recent.max()))
        if not np.isfinite(values[i]) or values[i] <= highest:
            continue
        stays = len(after) == _STAYS and bool((after > highest).all())
        limit = highest if stays else _usual_range(values[max(i - 200, 0) : i])
        if values[i] > limit:
            first = _moved_first(history, int(steps[i]))
            message = (
                f"the {name} jumped to {values[i]:.3g} from about {window(recent, 0):.3g}{' and stays there' * stays}"
                + (f"; first moved {first}" if first else "")
            )
            source = "robust z-score over 50 steps; spikes follow outliers of the gradient (Wortsman 2023, arXiv 2304.13013)"
            yield Finding("loss_spike", first, int(steps[i]), float(values[i]), limit, message, _OUTLIER, source)
            return


_STAYS = 10  # values in a row above all of the fifty before them: no chance of a few hard samples
_OUTLIER = "Look at the data of that step; clip gradients, or skip batches whose gradient norm is an outlier."


def _usual_range(before: Column) -> float:
    """Of the last fifty, ten robust standard deviations above the median, and a quarter above all of them. Losses near zero
    spread evenly only in logarithms, where one hard sample is a hundred times the median: there six deviations, and twice
    as far as any of those before stood above its neighbours. Ten times the highest is always out of range, and nothing
    less where that is itself a hundred times the median: what is nearly solved has not shown all its hard samples."""
    recent = before[-50:]
    middle, highest = window(recent, 0), float(recent.max())
    limit = max(middle + 10.0 * _spread(recent), 1.25 * middle, 1.25 * highest)
    if (before < 0).any():
        return limit
    logs = np.log(np.maximum(before, 1e-30))
    level, spread, peak = float(np.median(logs[-20:])), _spread(logs[-20:]), _furthest(logs)
    apart = 80.0 if highest > 100.0 * middle else max(6.0 * spread, 2.0 * peak)
    return max(limit, 1.25 * float(np.exp(level + peak)), min(float(np.exp(level + apart)), 10.0 * highest))


def _furthest(values: Column) -> float:
    """How far the highest stands above the median of its ten neighbours on either side."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(values, 10, mode="reflect"), 21)
    return float((values - np.median(around, axis=1)).max())


def _spread(values: Column) -> float:
    """The standard deviation, told from the median distance to the median."""
    return float(np.median(np.abs(values - np.median(values)))) * 1.4826


def _moved_first(history: History, step: int) -> str:
    """What was furthest from its usual size at the measured steps up to the spike: outputs before gradients."""
    for kind in ("output", "param_grad"):
        grid = history.stats.grid(kind, "absmax")
        lately = (grid.steps <= step) & (grid.steps > step - 10)
        before = grid.steps <= step - 10
        if lately.any() and before.any():
            with np.errstate(all="ignore"):
                moved = np.nan_to_num(largest(grid.values[:, lately], axis=1) / usual(grid.values[:, before]))
            if len(moved) and moved.max() > 3.0:
                return grid.names[int(np.flatnonzero(moved > 3.0)[0])]
    return ""


def skipped(history: History) -> Iterator[Finding]:
    """In a model that computes in float16, more than one step in twenty was thrown away, after the first fifty. Elsewhere
    gradients that nobody applied are no overflow: who trains two models against each other clears them on purpose."""
    steps, counts = history.watch.get("skipped", _EMPTY)
    done = history.watch.get("grad_norm", _EMPTY)[0]
    last = int(max([0, *steps[-1:], *done[-1:]]))
    lately = (steps > max(50, last - 200)) & (steps > 50)
    share = float(counts[lately].sum()) / max(min(last - 50, 200), 1)
    if last > 60 and counts[lately].sum() >= 4 and share > 0.05 and _in_half(history):
        message = (
            f"the gradients of {100 * share:.0f} % of the steps were thrown away, as a GradScaler does when they overflow"
        )
        advice = "Find the layer whose range float16 cannot hold, train in bfloat16, or lower the GradScaler's growth."
        first = int(steps[lately][0])
        yield Finding("skipped", "", first, share, 0.05, message, advice, "GradScaler lowers its scale until none overflows")


def _in_half(history: History) -> bool:
    """Was anything measured that is of float16?"""
    return any(series.statistic == "subnormal" for series in history.stats.series)
