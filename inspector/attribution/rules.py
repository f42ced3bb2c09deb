"""Methods that change the rules of the backward pass: DeepLift, guided backpropagation, deconvolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from inspector.attribution.bent import Bending, Bent, Called, frozen
from inspector.attribution.gradients import Values, total
from inspector.attribution.lockstep import Lockstep
from inspector.attribution.question import Question
from inspector.attribution.seen import Axis, Pass, Seen, run_pass
from inspector.hooks import Where
from inspector.sites import Kind, Site


def deep_lift(question: Question) -> tuple[Values, Tensor]:
    """The difference from the baseline, passed back by the rescale rule (Shrikumar et al. 2017)."""
    return _deep_lift(question, question.values, question.baselines)


def deep_lift_shap(question: Question) -> tuple[Values, Tensor]:
    """The mean of deep_lift over a distribution of baselines (n, ...) (Lundberg and Lee 2017)."""
    n = len(question.baselines[0])
    found, delta = [torch.zeros_like(v) for v in question.values], torch.zeros(())
    if n > 1:
        question.weigh()
    for start, count in question.parts(n):
        values = [v.repeat(count, *[1] * (v.dim() - 1)) for v in question.values]
        bases = [b[start : start + count].repeat_interleave(question.size, 0) for b in question.baselines]
        part, off = _deep_lift(question, values, bases)
        found = [f + p.reshape(count, *f.shape).sum(0) / n for f, p in zip(found, part, strict=True)]
        delta = delta + off.reshape(count, -1).sum(0) / n
    return tuple(found), delta


def _deep_lift(question: Question, values: Sequence[Tensor], bases: Sequence[Tensor]) -> tuple[Values, Tensor]:
    steps = Lockstep()
    with frozen(question.model):
        with steps.baseline():
            there = question.score(*bases)
        fresh = [value.detach().requires_grad_() for value in values]
        with steps.input():
            here = question.score(*fresh)
        gradients = question.gradient(here, fresh)
    found = tuple(g * (v - b) for g, v, b in zip(gradients, values, bases, strict=True))
    return found, total(found) - (here - there).detach()


def layers_deep_lift(question: Question, where: Where, *, kinds: Sequence[Kind] = ("output",)) -> dict[Site, Seen]:
    """Every layer's difference from the baseline and its multiplier, from one pass of each."""
    steps = Lockstep()
    with frozen(question.model):
        with steps.baseline():
            there = run_pass(question, where, question.baselines, kinds=kinds, gradient=False, scored=True)
        with steps.input():
            here = run_pass(question, where, question.fresh(), kinds=kinds)
    axis, found = Axis(question, where, kinds), {}
    for site in here.grads:
        place = axis.of(here, site)
        if place is not None:
            found[site] = _difference(question, here, there, site, place)
    return found


def _difference(question: Question, here: Pass, there: Pass, site: Site, axis: int) -> Seen:
    seen = here.seen(question, site, axis)
    seen.activation = seen.activation - there.look.values[site].movedim(axis, 0)
    assert here.score is not None
    assert there.score is not None  # both were scored
    seen.delta = total((seen.activation * seen.grad,)) - (here.score - there.score)
    return seen


def guided_backprop(question: Question) -> Values:
    """The gradient with every negative part dropped at each ReLU (Springenberg et al. 2015)."""
    return _at_relus(question, "guided_backprop", lambda gradient, x: gradient.clamp(min=0) * (x > 0))


def deconvolution(question: Question) -> Values:
    """The gradient with each ReLU applied to it instead of its derivative (Zeiler and Fergus 2014)."""
    return _at_relus(question, "deconvolution", lambda gradient, _: gradient.clamp(min=0))


def _at_relus(question: Question, name: str, rule: Callable[[Tensor, Tensor], Tensor]) -> Values:
    met = []

    def bend(call: Called) -> Tensor:
        met.append(call.name)
        x = call.operands[0].detach().clone()
        value = F.relu(x)
        return call.answer(Bent.apply(value, lambda gradient: [rule(gradient, x)], *call.operands))

    values = question.fresh()
    with Bending(bend, ("relu",)):
        score = question.score(*values)
    if not met and not (question.sharing is not None and question.sharing.again):
        raise ValueError(
            f"{name} changes what happens at ReLUs, and this model has none, so it would be the plain gradient; "
            "take saliency or input_x_gradient"
        )
    return question.gradient(score, values)
