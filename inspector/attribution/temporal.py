"""Sequences: saliency of time and of features apart, because maps of recurrent models mix them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inspector.attribution.gradients import Values
from inspector.attribution.question import Question


def temporal_saliency_rescaling(question: Question, *, of: str = "saliency", alpha: float = 0.0) -> Values:
    """Temporal saliency rescaling (Ismail et al. 2020) of the input method ``of``: how much its map changes without a
    step, times how much it changes without a feature, for steps above ``alpha`` of the largest."""
    from inspector.attribution.table import METHODS

    row, whole = METHODS[of], question.values
    if row.run is None or len(whole) != 1 or whole[0].dim() != 3 or question.slots[0].positions != (1,):
        raise ValueError("temporal_saliency_rescaling explains one input (batch, time, features) by an input method")
    if row.baselines and not question.baselines:
        question.baselines = (torch.zeros_like(whole[0]),)
    value, base = whole[0], question.baselines[0] if question.baselines else torch.zeros_like(whole[0])
    plain = _map(question, row, value)
    time = torch.stack([_change(question, row, value, base, plain, (slice(None), t)) for t in range(value.shape[1])], 1)
    feature = torch.stack([_change(question, row, value, base, plain, (..., f)) for f in range(value.shape[2])], 1)
    question.values = whole
    time = torch.where(time > alpha * time.amax(1, keepdim=True), time, 0.0)
    return (time[:, :, None] * feature[:, None],)


def _change(question: Question, row: Any, value: Tensor, base: Tensor, plain: Tensor, where: Any) -> Tensor:
    masked = value.clone()
    masked[where] = base[where]
    return (_map(question, row, masked) - plain).abs().flatten(1).sum(1)


def _map(question: Question, row: Any, value: Tensor) -> Tensor:
    question.values = (value,)
    found = row.run(question)
    values = found[0] if isinstance(found[0], tuple) else found
    return values[0].detach()  # type: ignore[no-any-return]  # of the method's own
