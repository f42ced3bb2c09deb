"""Rules about ranges: massive activations, attention that looks at one place, numbers too small or large for float16."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inspector.monitor.rules.judge import lasting
from inspector.records.history import Finding, History


def massive(history: History) -> Iterator[Finding]:
    """A few activations are a thousand times larger than the typical one of their layer, and over 100."""
    median, largest = (history.stats.grid("output", statistic) for statistic in ("median", "absmax"))
    if not (largest.values > 100.0).any():
        return
    known = set(median.names)
    rows = [i for i, name in enumerate(largest.names) if name in known]
    top = largest.values[rows][:, np.isin(largest.steps, median.steps)]
    if top.shape != median.values.shape:
        return
    share = top / np.where(median.values > 0, median.values, np.inf)
    held = list(lasting(median._replace(values=share), (share > 1000.0) & (top > 100.0), 2))
    if held:
        name, since, value = held[0]
        others = f" (and in {len(held) - 1} layers after it)" if len(held) > 1 else ""
        message = f"the largest output of {name or 'the model'} is {value:.0f} times its median{others}"
        advice = "Look at the unit that makes it; low precision and quantisation suffer. Normalise, or clip."
        source = "Sun et al. 2024, arXiv 2402.17762: over 100 and over 1,000 times the median"
        yield Finding("massive", name, since, value, 1000.0, message, advice, source)


def attention(history: History) -> Iterator[Finding]:
    """Attention looks at one place only, whatever the input: its entropy is gone. Or its logits have grown to more than
    100 and ten times what they began with, which is how that begins."""
    grid = history.stats.grid("output", "entropy")
    logits = history.stats.grid("output", "logits")
    collapsed = list(lasting(grid, grid.values < 0.05, 3))
    for held in collapsed:
        size = logits.values[logits.names.index(held.name), -1] if held.name in logits.names else float("nan")
        left = f"{100 * held.value:.1f} % of its possible entropy"
        message = f"the attention of {held.name} has {left} left (logits up to {size:.0f})"
        source = "entropy collapse: Zhai et al. 2023 (sigma-Reparam); logit growth: Dehghani et al. 2023, arXiv 2302.05442"
        yield Finding("attention", held.name, held.since, held.value, 0.05, message, _LOGITS, source)
    grown = logits.values > np.maximum(100.0, 10.0 * logits.values[:, :1])
    for held in lasting(logits, grown, 3, set(logits.names) - {h.name for h in collapsed}):
        began = logits.values[logits.names.index(held.name), 0]
        message = f"the attention logits of {held.name} have grown from {began:.3g} to {held.value:.3g}"
        source = "Dehghani et al. 2023, arXiv 2302.05442; Wortsman et al. 2023, arXiv 2309.14322"
        yield Finding("attention", held.name, held.since, held.value, 100.0, message, _LOGITS, source)


_LOGITS = "Normalise queries and keys, divide the logits by the root of their size, or lower the learning rate."


def low_precision(history: History) -> Iterator[Finding]:
    """In float16: a fifth of the values is too small to be held in full, or the largest is near the end of the range."""
    for kind in ("output", "grad", "param_grad", "param"):
        small = history.stats.grid(kind, "subnormal")
        if not small.names:
            continue  # none of it was float16
        large = history.stats.grid(kind, "absmax")
        for held in lasting(small, small.values > 0.2, 2):
            message = f"{100 * held.value:.0f} % of the {kind} of {held.name} are below what float16 holds in full precision"
            advice = "Scale the loss (GradScaler), or train in bfloat16."
            yield Finding("low_precision", held.name, held.since, held.value, 0.2, message, advice, _RANGE)
            return
        for held in lasting(large, large.values > 32768.0, 2, set(small.names)):
            message = f"the largest {kind} of {held.name} is {held.value:.3g}, near float16's end at 65,504"
            yield Finding("low_precision", held.name, held.since, held.value, 32768.0, message, "Train in bfloat16.", _RANGE)
            return


_RANGE = "float16 holds 2**-14 to 65,504 in full precision (Micikevicius et al. 2018, arXiv 1710.03740)"
