"""Methods that change the rules of the backward pass, through Captum."""

from __future__ import annotations

from torch import Tensor, nn

from inspector.attribution.gradients import Values, total
from inspector.attribution.question import Question


class _Asked(nn.Module):
    """The question as a module, for methods that put hooks on the modules below."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.model = question.model
        self._ask = question.for_captum

    def forward(self, *values_and_rows: Tensor) -> Tensor:
        return self._ask(*values_and_rows)


def deep_lift(question: Question) -> tuple[Values, Tensor]:
    """Differences from the baseline, passed back by the rescale rule (Shrikumar et al. 2017)."""
    from captum.attr import DeepLift

    values = question.fresh()
    rows = question.rows(values[0])
    asked = _Asked(question)
    asked.training = False
    found = DeepLift(asked).attribute(values, baselines=question.baselines, additional_forward_args=rows)
    assert question.last is not None
    here, there = question.last.chunk(2)
    detached = tuple(value.detach() for value in found)
    return detached, total(detached) - (here - there)
