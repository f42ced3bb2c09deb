"""Gradient and path methods through Captum, which sees the model only as ``question.for_captum``.

Captum's own gradient function is replaced by the question's, which says what is wrong where no gradient arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inspector.attribution.question import Question

Values = tuple[Tensor, ...]


def saliency(question: Question, *, abs: bool = True) -> Values:
    """The gradient of the score, without its sign unless abs=False (Simonyan et al. 2014)."""
    return _captum("Saliency", question, abs=abs)


def input_x_gradient(question: Question) -> Values:
    """Input times gradient (Shrikumar et al. 2017)."""
    return _captum("InputXGradient", question)


def integrated_gradients(question: Question, *, n_steps: int = 50, rule: str = "gausslegendre") -> tuple[Values, Tensor]:
    """The gradient averaged on the straight line from the baseline, times the way (Sundararajan et al. 2017).

    n_steps: points on the line; rule: gausslegendre, riemann_trapezoid, riemann_middle, riemann_left or riemann_right.
    """
    _check_path(rule, n_steps)
    difference = question.difference()
    chunk = min(n_steps, question.copies()) * question.size
    batch = chunk if chunk < n_steps * question.size else None
    options = {"n_steps": n_steps, "method": rule, "internal_batch_size": batch}
    values = _captum("IntegratedGradients", question, baselines=question.baselines, **options)
    return values, total(values) - difference


def weights(rule: str, n: int) -> tuple[list[float], list[float]]:
    """Step sizes and places of n points between 0 and 1."""
    from captum.attr._utils.approximation_methods import approximation_parameters

    _check_path(rule, n)
    sizes, places = approximation_parameters(rule)
    return sizes(n), places(n)


def _check_path(rule: str, n: int) -> None:
    from captum.attr._utils.approximation_methods import SUPPORTED_METHODS

    if rule not in SUPPORTED_METHODS:
        raise ValueError(f"rule={rule!r} is no quadrature; there are {', '.join(SUPPORTED_METHODS)}")
    if n < 2:
        raise ValueError(f"n_steps={n} is no path; take at least 2")


def total(values: Values) -> Tensor:
    """(batch,) the sum over everything of one sample."""
    return sum((value.reshape(len(value), -1).sum(1) for value in values), torch.zeros(()).to(values[0]))


def _captum(name: str, question: Question, **options: Any) -> Values:
    import captum.attr

    explainer = getattr(captum.attr, name)(question.for_captum)
    explainer.gradient_func = _gradient(question)
    values = question.fresh()
    found = explainer.attribute(values, additional_forward_args=question.rows(values[0]), **options)
    return tuple(value.detach() for value in found)


def _gradient(question: Question) -> Callable[..., Values]:
    def gradient(forward_fn: Any, inputs: Values, target_ind: Any = None, additional_forward_args: Any = ()) -> Values:
        rows = additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
        return question.gradient(forward_fn(*inputs, *rows), inputs)

    return gradient
