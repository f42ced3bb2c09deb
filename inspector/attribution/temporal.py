"""Sequences: saliency of time and of features apart, because maps of recurrent models mix them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inspector.attribution.gradients import Values
from inspector.attribution.methods import of_function
from inspector.attribution.question import Question

Run = Callable[[Question], Any]


def temporal_saliency_rescaling(
    question: Question,
    *,
    of: str | Callable[..., Any] = "saliency",
    of_options: Mapping[str, Any] | None = None,
    alpha: float = 0.0,
) -> Values:
    """Temporal saliency rescaling (Ismail et al. 2020) of the input method ``of``: how much its map changes without a
    step, times how much it changes without a feature, for steps above ``alpha`` of the largest. of_options: the method's."""
    run, whole = _method(question, of, dict(of_options or {})), question.values
    if len(whole) != 1 or whole[0].dim() != 3 or question.slots[0].positions != (1,):
        raise ValueError("temporal_saliency_rescaling explains one input (batch, time, features) by an input method")
    value, base = whole[0], question.baselines[0] if question.baselines else torch.zeros_like(whole[0])
    plain = _map(question, run, value)
    time = torch.stack([_change(question, run, value, base, plain, (slice(None), t)) for t in range(value.shape[1])], 1)
    feature = torch.stack([_change(question, run, value, base, plain, (..., f)) for f in range(value.shape[2])], 1)
    question.values = whole
    time = torch.where(time > alpha * time.amax(1, keepdim=True), time, 0.0)
    return (time[:, :, None] * feature[:, None],)


def _method(question: Question, of: Any, options: dict[str, Any]) -> Run:
    """The method's function with its options; refused where it is none of inputs."""
    from inspector.attribution.table import METHODS

    row = METHODS[of] if isinstance(of, str) else of_function(of)
    if row.run is None or row.helped or row.tokens or of == "temporal_saliency_rescaling":
        raise ValueError(f"of={of!r} does not explain inputs step by step; take one that does, such as saliency")
    unknown = [option for option in options if option not in row.options and isinstance(of, str)]
    if unknown:
        raise TypeError(f"{of} has no option {unknown[0]!r}; it has {', '.join(row.options)}")
    if row.baselines and not question.baselines:
        question.baselines = (torch.zeros_like(question.values[0]),)
    return partial(row.run, **options)


def _change(question: Question, run: Run, value: Tensor, base: Tensor, plain: Tensor, where: Any) -> Tensor:
    masked = value.clone()
    masked[where] = base[where]
    return (_map(question, run, masked) - plain).abs().flatten(1).sum(1)


def _map(question: Question, run: Run, value: Tensor) -> Tensor:
    question.values = (value,)
    found = run(question)
    values = found[0] if isinstance(found[0], tuple) else found
    return values[0].detach()  # type: ignore[no-any-return]  # of the method's own
