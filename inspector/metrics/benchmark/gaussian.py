"""Functions of correlated Gaussian features whose conditional Shapley values are known exactly (after Liu et al. 2021).

Five features with weights 4, 3, 2, 1 and 0: an explanation must order them, and must give the last one what its
correlation with the others earns it, no more. All expectations are closed forms, so the truth has no sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution import attribute
from inspector.metrics.benchmark.rows import Row, rows_of
from inspector.metrics.fidelity import correlation
from inspector.records import Samples

WEIGHTS = (4.0, 3.0, 2.0, 1.0, 0.0)
LEVELS = ((-2.0, -0.5), (-1.0, 0.0), (1.0, 0.5), (2.0, math.inf))  # value, up to

Part = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]  # g(x), and E g(X) of X ~ N(mean, variance)


def _below(edge: float, mean: Tensor, variance: Tensor) -> Tensor:
    """P(X < edge); certain where the variance is 0."""
    standard = (edge - mean) / variance.clamp(min=1e-24).sqrt()
    return (1 + torch.erf(standard / math.sqrt(2))) / 2


def _steps(x: Tensor) -> Tensor:
    edges = torch.tensor([edge for _, edge in LEVELS[:-1]], dtype=x.dtype)
    return torch.tensor([value for value, _ in LEVELS], dtype=x.dtype)[torch.bucketize(x.contiguous(), edges, right=True)]


def _mean_steps(mean: Tensor, variance: Tensor) -> Tensor:
    total, last = torch.zeros_like(mean), torch.zeros_like(mean)
    for value, edge in LEVELS:
        below = _below(edge, mean, variance) if edge < math.inf else torch.ones_like(mean)
        total, last = total + value * (below - last), below
    return total


def _mean_abs(mean: Tensor, variance: Tensor) -> Tensor:
    deviation = variance.clamp(min=1e-24).sqrt()
    return deviation * math.sqrt(2 / math.pi) * torch.exp(-mean.square() / (2 * deviation.square())) + mean * torch.erf(
        mean / (deviation * math.sqrt(2))
    )


IDENTITY: Part = (lambda x: x, lambda mean, variance: mean)
SINE: Part = (torch.sin, lambda mean, variance: torch.sin(mean) * torch.exp(-variance / 2))
ABSOLUTE: Part = (torch.abs, _mean_abs)
SQUARE: Part = (torch.square, lambda mean, variance: mean.square() + variance)
EXPONENTIAL: Part = (torch.exp, lambda mean, variance: torch.exp(mean + variance / 2))
STEPS: Part = (_steps, _mean_steps)
FUNCTIONS: dict[str, tuple[Part, ...]] = {
    "linear": (IDENTITY,) * 5,
    "additive": (SINE, ABSOLUTE, SQUARE, EXPONENTIAL, IDENTITY),
    "piecewise constant": (STEPS,) * 5,
}
METHODS = ("input_x_gradient", "integrated_gradients", "feature_ablation", "saliency")


class Additive(nn.Module):
    """(batch, 5) -> (batch,): the weighted sum of one function per feature."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = tuple(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([w * part[0](x[:, i]) for i, (w, part) in enumerate(zip(WEIGHTS, self.parts, strict=True))]).sum(
            0
        )


def gaussian(
    correlations: tuple[float, ...] = (0.0, 0.5), *, samples: int = 200, seeds: int = 3, methods: Sequence[Any] = METHODS
) -> list[Row]:
    """Correlation of each method's values with the exact Shapley values, mean over samples. NaN where a method is constant
    where it should not be, such as gradients of a piecewise constant function."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for name, parts in FUNCTIONS.items():
        for shared in correlations:
            for seed in range(seeds):
                model, x = Additive(parts), draw(samples, shared, seed)
                truth = shapley(parts, x, shared)
                for method in methods:
                    close = correlation(_values(model, x, method).T, truth.T).nanmean().item()
                    found.setdefault((f"{name}, correlation {shared}", str(method), "correlation with truth"), []).append(
                        close
                    )
    return rows_of(found, {})


def draw(samples: int, shared: float, seed: int) -> Tensor:
    """(samples, 5) of unit variance, every pair correlated by ``shared``."""
    noise = torch.randn(samples, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    root: Tensor = torch.linalg.cholesky(covariance(shared))
    return noise @ root.T


def covariance(shared: float) -> Tensor:
    sigma = torch.full((5, 5), shared, dtype=torch.float64)
    sigma.fill_diagonal_(1.0)
    return sigma


def shapley(parts: Sequence[Part], x: Tensor, shared: float) -> Tensor:
    """(samples, 5) exact Shapley values of v(S) = E[f(X) | X_S = x_S], by all 32 sets."""
    sets = [frozenset(s) for size in range(6) for s in combinations(range(5), size)]
    value = {s: _conditional_mean(parts, x, shared, s) for s in sets}
    found = torch.zeros_like(x)
    for known in sets:
        for i in set(range(5)) - known:
            weight = math.factorial(len(known)) * math.factorial(4 - len(known)) / math.factorial(5)
            found[:, i] += weight * (value[known | {i}] - value[known])
    return found


def _conditional_mean(parts: Sequence[Part], x: Tensor, shared: float, known: frozenset[int]) -> Tensor:
    """E[f(X) | X_known], feature by feature, because the function is a sum."""
    sigma, given = covariance(shared), sorted(known)
    total = torch.zeros(len(x), dtype=x.dtype)
    for i, (weight, (g, mean_of_g)) in enumerate(zip(WEIGHTS, parts, strict=True)):
        if i in known:
            total = total + weight * g(x[:, i])
            continue
        pull = torch.linalg.solve(sigma[given][:, given], sigma[given, i]) if given else torch.zeros(0, dtype=x.dtype)
        mean, variance = x[:, given] @ pull, sigma[i, i] - pull @ sigma[given, i]
        total = total + weight * mean_of_g(mean, variance.expand_as(mean))
    return total


def _values(model: nn.Module, x: Tensor, method: Any) -> Tensor:
    try:
        return attribute(model, Samples(x), method=method).values  # type: ignore[no-any-return]
    except ValueError:  # no gradient arrives through a piecewise constant function, which is the finding
        return torch.full_like(x, torch.nan)
