"""Layer methods that follow the straight line from baseline to input: one path serves every layer at once.

The path is cut into passes that fit the memory budget; sums are kept, not the steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from inspector.attribution.gradients import weights
from inspector.attribution.question import Question
from inspector.attribution.seen import Axis, Pass, Seen, run_pass
from inspector.hooks import Where
from inspector.sites import Kind, Site


def conductance(
    question: Question, where: Where, *, kinds: Sequence[Kind] = ("output",), n_steps: int = 50, rule: str = "gausslegendre"
) -> dict[Site, Seen]:
    """How much of the input's effect flows through each unit (Dhamdhere et al. 2018): the sum over steps of the change of
    the activation times its gradient. Where every path to the target crosses the layer it is complete; delta tells."""
    difference = question.difference()
    found: dict[Site, Seen] = {}
    before: dict[Site, tuple[Tensor, Tensor]] = {}
    for seen in _along(question, where, kinds, weights(rule, n_steps + 1)[1]):
        for site, step in seen.items():
            activation, gradient = _with(before.get(site), step)
            flown = ((activation[1:] - activation[:-1]) * gradient[:-1]).sum(0)
            _add(found, site, step, flown)
            before[site] = activation[-1], gradient[-1]
    for layer in found.values():
        layer.delta = layer.activation.reshape(question.size, -1).sum(1) - difference
    return found


def internal_influence(
    question: Question, where: Where, *, kinds: Sequence[Kind] = ("output",), n_steps: int = 50, rule: str = "gausslegendre"
) -> dict[Site, Seen]:
    """The gradient at the layer averaged along the path (Leino et al. 2018)."""
    question.difference()
    found: dict[Site, Seen] = {}
    sizes, alphas = weights(rule, n_steps)
    for start, seen in zip(_starts(question, n_steps), _along(question, where, kinds, alphas), strict=True):
        for site, step in seen.items():
            gradient = step.grad
            part = torch.tensor(sizes[start : start + len(gradient)], dtype=gradient.dtype, device=gradient.device)
            _add(found, site, step, (gradient * part.reshape(-1, *[1] * (gradient.dim() - 1))).sum(0))
    return found


def flown(seen: Seen) -> Tensor:
    """What a path left behind at the layer."""
    return seen.activation


def _starts(question: Question, count: int) -> list[int]:
    return [start for start, _ in question.parts(count, copies=max(1, question.copies() // 2))]


def _along(question: Question, where: Where, kinds: Sequence[Kind], alphas: list[float]) -> Iterator[dict[Site, Seen]]:
    """Every layer's activation and gradient (steps, batch, ...) for run after run of points on the path."""
    axis = Axis(question, where, kinds)
    starts = [*_starts(question, len(alphas)), len(alphas)]
    for start, end in pairwise(starts):
        points = [_points(v, b, alphas[start:end]) for v, b in zip(question.values, question.baselines, strict=True)]
        seen = run_pass(question, where, points, kinds=kinds)
        places = {site: axis.of(seen, site) for site in seen.grads}
        yield {site: _stepwise(question, seen, site, place) for site, place in places.items() if place is not None}


def _points(value: Tensor, base: Tensor, alphas: list[float]) -> Tensor:
    return torch.cat([base + alpha * (value - base) for alpha in alphas]).requires_grad_()


def _stepwise(question: Question, seen: Pass, site: Site, axis: int) -> Seen:
    step = seen.seen(question, site, axis)
    shape = (-1, question.size, *step.activation.shape[1:])
    step.activation, step.gradient = step.activation.reshape(shape), step.grad.reshape(shape)
    return step


def _with(before: tuple[Tensor, Tensor] | None, step: Seen) -> tuple[Tensor, Tensor]:
    """The steps of this pass behind the last one of the pass before."""
    if before is None:
        return step.activation, step.grad
    return torch.cat([before[0][None], step.activation]), torch.cat([before[1][None], step.grad])


def _add(found: dict[Site, Seen], site: Site, step: Seen, part: Tensor) -> None:
    if site not in found:
        found[site] = Seen(site, torch.zeros_like(part), None, step.positions)
    found[site].activation += part
