"""The number that is explained, for many changed copies of a batch at once, one value a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution.question import Question
from inspector.attribution.targets import Target
from inspector.records import Attribution
from inspector.tensors import batch_size, rebuild, walk

LARGEST = 1 << 23  # elements of one input in one forward pass
EXAMPLES = 512  # examples in one forward pass; more save no time on a CPU

Score = Callable[[Any], Tensor]


def outputs(model: nn.Module, attribution: Attribution) -> Score:
    """A function of inputs that hold whole copies of the batch, one after the other -> (copies * batch,), without a graph.

    A target that is a function sees one copy at a time, because it may know the samples by their position.
    """
    samples = attribution.samples
    target = Target(asked(attribution), samples)

    def score(inputs: Any) -> Tensor:
        rows = torch.arange(batch_size(inputs)) % len(samples)
        with torch.no_grad():
            return Question(model, samples, inputs, target).score(rows=rows)

    return score


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


def copies_at_once(inputs: Any, size: int) -> int:
    """How many copies of the batch fit in one forward pass."""
    elements = max(t.numel() for _, t in walk(inputs))
    return max(1, min(EXAMPLES // size, LARGEST // max(1, elements)))
