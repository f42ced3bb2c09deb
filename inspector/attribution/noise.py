"""Methods that average over noise or over drawn baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inspector.attribution.gradients import Values
from inspector.attribution.question import Question

FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda mean, square: mean,
    "square": lambda mean, square: square,
    "variance": lambda mean, square: square - mean**2,
}


def smooth_grad(question: Question, *, n_samples: int = 25, stdevs: Any = None, form: str = "mean") -> Values:
    """The gradient averaged over noisy copies (Smilkov et al. 2017). stdevs: of the noise, one or one per input, by
    default 15 % of each sample's range. form: "mean", "square" or "variance" of the gradient."""

    def draw(count: int, value: Tensor, i: int) -> Tensor:
        return noisy(value.repeat(count, *[1] * (value.dim() - 1)), _one(stdevs, i))

    return _averaged(question, n_samples, draw, lambda gradient, *_: gradient, form)


def gradient_shap(question: Question, *, n_samples: int = 5, stdevs: Any = 0.0) -> Values:
    """Gradient times distance from a baseline drawn from the distribution, at a random point between them, averaged
    (Lundberg and Lee 2017). It sums to the difference of outputs in the limit of many samples only."""
    return expected_gradients(question, n_samples=n_samples, stdevs=stdevs)


def expected_gradients(question: Question, *, n_samples: int = 50, stdevs: Any = 0.0) -> Values:
    """Integrated gradients averaged over baselines drawn from the data, one random point each (Erion et al. 2021)."""
    picks = torch.randint(len(question.baselines[0]), (n_samples * question.size,))
    places = torch.rand(n_samples * question.size)
    starts = [0]
    bases: list[Tensor] = []

    def draw(count: int, value: Tensor, i: int) -> Tensor:
        rows = slice(starts[0], starts[0] + count * question.size)
        base = question.baselines[i][picks[rows].to(value.device)]
        noise = noisy(value.repeat(count, *[1] * (value.dim() - 1)), _one(stdevs, i))
        bases.append(noise - base)
        starts[0] += count * question.size if i == len(question.values) - 1 else 0
        place = places[rows].to(value).reshape(-1, *[1] * (value.dim() - 1))
        return base + place * (noise - base)

    return _averaged(question, n_samples, draw, lambda gradient, i: gradient * bases.pop(0), "mean")


def noisy(value: Tensor, stdev: Any) -> Tensor:
    """With Gaussian noise; by default of 15 % of each sample's range."""
    flat = value.reshape(len(value), -1)
    scale = 0.15 * (flat.amax(1) - flat.amin(1)) if stdev is None else torch.full((len(value),), float(stdev)).to(value)
    return value + torch.randn_like(value) * scale.reshape(-1, *[1] * (value.dim() - 1))


def combined(found: Sequence[Values], form: str) -> Values:
    """The mean, mean square or variance of several answers."""
    if form not in FORMS:
        raise ValueError(f"form={form!r} is no way to combine noisy answers; there are {', '.join(FORMS)}")
    stacked = [torch.stack(parts) for parts in zip(*found, strict=True)]
    return tuple(FORMS[form](parts.mean(0), (parts**2).mean(0)) for parts in stacked)


def _averaged(
    question: Question,
    n: int,
    draw: Callable[[int, Tensor, int], Tensor],
    weigh: Callable[[Tensor, int], Tensor],
    form: str,
) -> Values:
    if form not in FORMS:
        raise ValueError(f"form={form!r} is no way to combine noisy answers; there are {', '.join(FORMS)}")
    mean, square = ([torch.zeros_like(v) for v in question.values] for _ in range(2))
    question.weigh()
    for _, count in question.parts(n):
        values = [draw(count, v, i).detach().requires_grad_() for i, v in enumerate(question.values)]
        gradients = question.gradient(question.score(*values), values)
        for i, gradient in enumerate(gradients):
            parts = weigh(gradient, i).reshape(count, *question.values[i].shape)
            mean[i] += parts.sum(0) / n
            square[i] += (parts**2).sum(0) / n
    return tuple(FORMS[form](m, s) for m, s in zip(mean, square, strict=True))


def _one(given: Any, i: int) -> Any:
    return given[i] if isinstance(given, (tuple, list)) else given
