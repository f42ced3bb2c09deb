"""Rules about the course of a run: exploding and vanishing gradients, loss spikes, skipped steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.monitor.rules.judge import largest, lasting, usual, weights, window
from inspector.records.history import Column, Finding, History

_EMPTY: tuple[Column, Column] = (np.array([], dtype=np.int64), np.array([]))


def exploding(history: History) -> Iterator[Finding]:
    """The norm of the applied gradient over five steps is ten times what it was, both lately and at the start."""
    steps, norms = history.watch.get("grad_norm", _EMPTY)
    if len(norms) < 15 or not np.isfinite(norms[-5:]).all():
        return
    now, before = window(norms, -5), max(window(norms, 0, 10), window(norms, -60, -5))
    if now > 10.0 * before > 0 and not _learning(history):
        name = _grew_most(history, int(steps[-5]))
        message = f"the gradient norm is {now:.3g}, {now / before:.0f} times what it was; most of all {name or 'everywhere'}"
        advice = "Lower the learning rate, clip the gradient norm, or warm up."
        source = "10 times the running median, as AWS SageMaker Debugger's ExplodingTensor and SPAM (ICLR 2025) look for"
        yield Finding("exploding", name, int(steps[-5]), now, 10.0 * before, message, advice, source)


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
    """The gradient of a layer's weight is 100,000 times smaller than that of the layer with the largest one."""
    grid = history.stats.grid("param_grad", "absmax")
    keep = [i for i, name in enumerate(grid.names) if name in weights(history)]
    if len(keep) < 2:
        return
    top = largest(grid.values[keep], axis=0)
    share = grid.values / np.where(top > 0, top, np.inf)
    bad = (share < 1e-5) & grid.present & (top > 0)
    held = list(lasting(grid._replace(values=share), bad, 3, set(weights(history))))
    if held:
        name, since, value = min(held, key=lambda h: h.value)
        others = f" (and {len(held) - 1} more)" if len(held) > 1 else ""
        message = f"the gradient of {name}{others} is {value:.1e} of the largest layer's: it does not learn"
        advice = "Use a non-saturating activation, normalisation, residual connections, or a larger initial scale."
        source = "relative form of AWS SageMaker Debugger's VanishingGradient"
        yield Finding("vanishing", name, since, value, 1e-5, message, advice, source)


def loss_spike(history: History) -> Iterator[Finding]:
    """The loss jumps far above all of its recent values; names what moved first."""
    name, steps, values = _loss(history)
    if len(values) < 25:
        return
    for i in range(max(len(values) - 12, 20), len(values)):
        recent = values[max(i - 50, 0) : i]
        middle = window(recent, 0)
        spread = float(np.median(np.abs(recent - middle))) * 1.4826
        limit = max(middle + 10.0 * spread, 3.0 * middle, 1.5 * float(recent.max()))
        if values[i] > limit and np.isfinite(values[i]):
            first = _moved_first(history, int(steps[i]))
            message = f"the {name} jumped to {values[i]:.3g} from about {middle:.3g}" + (
                f"; first moved {first}" if first else ""
            )
            advice = "Look at the data of that step; clip gradients, or skip batches whose gradient norm is an outlier."
            source = "robust z-score over 50 steps; spikes follow outliers of the gradient (Wortsman 2023, arXiv 2304.13013)"
            yield Finding("loss_spike", first, int(steps[i]), float(values[i]), limit, message, advice, source)
            return


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
    """More than one step in twenty was thrown away, after the first fifty."""
    steps, counts = history.watch.get("skipped", _EMPTY)
    done = history.watch.get("grad_norm", _EMPTY)[0]
    last = int(max([0, *steps[-1:], *done[-1:]]))
    lately = (steps > max(50, last - 200)) & (steps > 50)
    share = float(counts[lately].sum()) / max(min(last - 50, 200), 1)
    if last > 60 and counts[lately].sum() >= 4 and share > 0.05:
        message = f"{100 * share:.0f} % of the steps were skipped because gradients overflowed"
        advice = "Find the layer whose range float16 cannot hold, train in bfloat16, or lower the GradScaler's growth."
        first = int(steps[lately][0])
        yield Finding("skipped", "", first, share, 0.05, message, advice, "GradScaler lowers its scale until none overflows")
