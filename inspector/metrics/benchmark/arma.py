"""The white box of Crabbe and van der Schaar (2021): a sum of squares over a known salient set, of ARMA series.

Nothing is trained and the exact attribution is x squared on the salient set, so every deviation is the method's own.
Series by series, with time as the batch axis, as the published runs did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inspector.attribution import attribute
from inspector.metrics.benchmark.rows import Published, Row, rows_of
from inspector.metrics.evidence import threshold_areas

SERIES, TIME, FEATURES, FEW = 10, 50, 50, 5
MIDDLE = slice(12, 37)
Salience = Literal["rare_feature", "rare_time"]

PUBLISHED: Published = {
    ("rare_feature", "integrated_gradients", "AUP"): (1.000, None),
    ("rare_feature", "integrated_gradients", "AUR"): (0.1345, 0.0038),
    ("rare_feature", "integrated_gradients", "information"): (463.8, 13.0),
    ("rare_feature", "integrated_gradients", "entropy"): (494.0, 7.0),
    ("rare_feature", "occlusion", "AUP"): (1.000, None),
    ("rare_feature", "occlusion", "AUR"): (0.1336, 0.0038),
    ("rare_feature", "occlusion", "information"): (461.7, None),
    ("rare_feature", "occlusion", "entropy"): (489.6, None),
    ("rare_feature", "permutation", "AUP"): (1.000, None),
    ("rare_feature", "permutation", "AUR"): (0.1627, 0.0059),
    ("rare_feature", "permutation", "information"): (541.3, None),
    ("rare_feature", "permutation", "entropy"): (579.2, None),
    ("rare_time", "integrated_gradients", "AUP"): (1.000, None),
    ("rare_time", "integrated_gradients", "AUR"): (0.1252, 0.0040),
    ("rare_time", "integrated_gradients", "information"): (442.7, None),
    ("rare_time", "integrated_gradients", "entropy"): (468.5, None),
}


class SquareSum(nn.Module):
    """(time, features) -> (time,): the squares of the salient entries, summed over features."""

    def __init__(self, salient: Tensor) -> None:
        super().__init__()
        self.register_buffer("salient", salient)

    def forward(self, x: Tensor) -> Tensor:
        salient = self.get_buffer("salient").to(x)
        repeats = len(x) // len(salient)
        return (x.square() * salient.repeat(repeats, 1)).sum(1)


def series(seed: int) -> Tensor:
    """(10, 50, 50) series x_t = (2 e_t - 0.5 x_{t-1} - 0.2 x_{t-2} - 0.1 x_{t-3}) / 2 from zero, e normal."""
    noise = torch.randn(SERIES, TIME, FEATURES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.zeros(SERIES, TIME + 3, FEATURES, dtype=torch.float64)
    for t in range(3, TIME + 3):
        x[:, t] = (2 * noise[:, t - 3] - 0.5 * x[:, t - 1] - 0.2 * x[:, t - 2] - 0.1 * x[:, t - 3]) / 2
    return x[:, 3:]


def salience(kind: Salience, seed: int) -> Tensor:
    """(10, 50, 50) bool: in the middle of time five features, or in the middle of features five consecutive steps."""
    generator, found = torch.Generator().manual_seed(seed), torch.zeros(SERIES, TIME, FEATURES, dtype=torch.bool)
    for each in found:
        if kind == "rare_feature":
            each[MIDDLE, torch.randperm(FEATURES, generator=generator)[:FEW]] = True
        else:
            start = int(torch.randint(0, TIME - FEW, (), generator=generator))
            each[start : start + FEW, MIDDLE] = True
    return found


def permutation(score: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """A method of our own: what the score loses when one feature is shuffled over time (Fisher et al. 2019)."""
    whole = score(values)
    found = []
    for feature in range(values.shape[1]):
        shuffled = values.clone()
        shuffled[:, feature] = values[torch.randperm(len(values)), feature]
        found.append(whole - score(shuffled))
    return torch.stack(found, 1)


METHODS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"method": "integrated_gradients", "n_steps": 50},
    "occlusion": {"method": "feature_ablation", "baselines": "mean"},
    "permutation": {"method": permutation},
    "saliency": {"method": "saliency"},
}


def arma(folds: int = 5, kinds: tuple[Salience, ...] = ("rare_feature", "rare_time")) -> list[Row]:
    """AUP, AUR, information and entropy of each method over ``folds`` draws of the series, beside the published ones."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for kind in kinds:
        for method in METHODS:
            for fold in range(folds):
                for metric, number in run(kind, method, fold).items():
                    found.setdefault((kind, method, metric), []).append(number)
    return rows_of(found, PUBLISHED)


def run(kind: Salience, method: str, fold: int) -> dict[str, float]:
    """One fold: the ten maps, each scaled to 0..1, pooled and held against the salient set."""
    x, truth = series(fold), salience(kind, 42 + fold)
    maps = [_map(SquareSum(salient), each, method, fold) for salient, each in zip(truth, x, strict=True)]
    return judged(torch.stack(maps), truth)


def judged(maps: Tensor, truth: Tensor) -> dict[str, float]:
    """The four published numbers of absolute maps in 0..1, pooled over the series."""
    weight, salient = maps.reshape(1, -1), truth.reshape(1, -1)
    precision, recall = threshold_areas(weight, salient, torch.ones_like(salient))
    lit, floor = weight[salient], 1e-5
    information = torch.log2(1 - lit + floor).abs().sum()
    entropy = (lit * torch.log2(lit + floor) + (1 - lit) * torch.log2(1 - lit + floor)).abs().sum()
    return {"AUP": precision.item(), "AUR": recall.item(), "information": information.item(), "entropy": entropy.item()}


def _map(model: nn.Module, x: Tensor, method: str, seed: int) -> Tensor:
    weight = attribute(model, x, seed=seed, **METHODS[method]).values.abs()
    return (weight - weight.min()) / (weight.max() - weight.min())  # type: ignore[no-any-return]
