"""The number that is explained, for many changed copies of a batch at once, one value a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution.layout import Layout, as_it_is, faster
from inspector.attribution.question import Question
from inspector.attribution.targets import Target
from inspector.counting import PeakMemory
from inspector.records import Attribution
from inspector.tensors import rebuild, walk

ON_CPU, ON_DEVICE = (128, 1 << 20), (512, 1 << 23)  # (examples, elements of one input) in one forward pass
CACHED = 8 << 20  # bytes in use at one time on a CPU; with more a pass leaves its caches and takes up to twice as long

Score = Callable[[Any, Tensor], Tensor]  # inputs of n rows, which sample each is of -> (n,)


def outputs(model: nn.Module, attribution: Attribution) -> Score:
    """A function of changed inputs and of the samples (rows,) that they are of -> (rows,) scores, without a graph.

    Where ``by_batch``, give whole batches in order, one after the other.
    """
    samples = attribution.samples
    target = Target(asked(attribution), samples)

    def score(inputs: Any, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return Question(model, samples, inputs, target).score(rows=rows)

    return score


def by_batch(attribution: Attribution) -> bool:
    """Whether the target is a function, which may know the samples by their place in the batch."""
    return callable(attribution.target) and not isinstance(attribution.target, Tensor)


def asked(attribution: Attribution) -> Any:
    """The target as it was asked for: None where it is the one that came with the samples, which may not be a choice of
    the output at all but the value that a regression should have given."""
    target, own = attribution.target, attribution.samples.target
    if isinstance(target, Tensor) and isinstance(own, Tensor) and target.shape == own.shape:
        return None if torch.equal(target, own.to(target.device)) else target
    return target


def repeat(inputs: Any, copies: int) -> Any:
    """The same inputs ``copies`` times along the batch axis."""
    return rebuild(inputs, lambda _, t: t.repeat(copies, *[1] * (t.dim() - 1)) if t.dim() else t)


def examples_at_once(inputs: Any) -> int:
    """How many examples fit in one forward pass."""
    tensors = [t for _, t in walk(inputs) if t.dim()]
    examples, elements = ON_CPU if all(t.device.type == "cpu" for t in tensors) else ON_DEVICE
    return max(1, min(examples, elements // max(1, *(t[:1].numel() for t in tensors))))


def passes(score: Score, inputs: Any, size: int, count: int) -> tuple[int, Layout]:
    """How to run ``count`` changed copies of a batch: how many examples at once, and how they lie in memory.

    Both are found by trying, on a CPU and where it is worth it: channels last is 2 to 3 times as fast there for images, and
    is chosen where the model answers the same to it.
    """
    at_once, tensors = examples_at_once(inputs), [t for _, t in walk(inputs)]
    if count * size <= at_once // 2 or any(t.device.type != "cpu" for t in tensors):
        return at_once, as_it_is
    rows = torch.arange(size)
    with PeakMemory() as memory:
        plain = score(inputs, rows)
    at_once = max(8, min(ON_DEVICE[0], CACHED * size // max(1, memory.peak)))
    return at_once, faster(inputs, count, plain, lambda laid: score(laid, rows))
