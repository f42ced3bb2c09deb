"""The hidden-Markov state task with a recurrent classifier, as published with the time_interpret library.

Two hidden states; at each step one of three features, which one depends on the state, decides the label. The salient
feature is known at every step, and a GRU learns to tell it. Each step is explained by its own value given its past.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspector.attribution import attribute
from inspector.metrics.benchmark.rows import Published, Row, rows_of
from inspector.metrics.evidence import average_precision, roc_area, threshold_areas

MEANS = ((0.1, 1.6, 0.5), (-0.1, -0.4, -1.5))
PUBLISHED_NUMBERS = {
    "integrated_gradients": ((0.918, 0.017), (0.454, 0.010), (0.936, 0.018), (0.909, 0.022)),
    "deep_lift": ((0.920, 0.017), (0.454, None), (0.938, 0.017), (0.912, None)),
    "gradient_shap": ((0.849, 0.027), (0.414, None), (0.852, 0.024), (0.798, None)),
    "occlusion": ((0.866, None), (0.393, None), (0.870, None), (0.817, None)),
    "lime": ((0.932, None), (0.438, None), (0.937, None), (0.912, None)),
}
NAMES = ("AUP", "AUR", "AUROC", "AUPRC")
PUBLISHED: Published = {
    ("states", method, name): number
    for method, numbers in PUBLISHED_NUMBERS.items()
    for name, number in zip(NAMES, numbers, strict=True)
}


class Size(NamedTuple):
    """The published sizes; smaller ones run in minutes. ends: how many steps of a test series are explained."""

    train: int = 800
    test: int = 200
    steps: int = 200
    hidden: int = 200
    epochs: int = 50
    ends: int = 200


WHOLE = Size()


class StateClassifier(nn.Module):
    """(batch, time, 3) -> (batch, 2) for the last step."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(3, hidden, batch_first=True)
        self.head = nn.Sequential(nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1])  # type: ignore[no-any-return]


def draw(series: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (series, steps, 3), labels (series, steps) and the salient entries (series, steps, 3)."""
    states = _states(series, steps, generator)
    roots = torch.stack([torch.linalg.cholesky(_covariance(other)) for other in (1, 2)])
    noise = torch.randn(series, steps, 3, generator=generator)
    x = torch.tensor(MEANS)[states] + (roots[states] @ noise[..., None])[..., 0]
    salient = F.one_hot(1 + states, 3).bool()
    chance = torch.sigmoid(2 * x[salient].reshape(series, steps))
    return x, torch.bernoulli(chance, generator=generator).long(), salient


def _states(series: int, steps: int, generator: torch.Generator) -> Tensor:
    """A run of state 1 gets the likelier to end the longer it lasts: P(1 | 1) = 0.95 - run / 500, not below 0.8."""
    state = torch.randint(0, 2, (series,), generator=generator)
    run, found = torch.zeros(series), []
    for _ in range(steps):
        found.append(state)
        stay = torch.where(state == 1, (0.95 - run / 500).clamp(min=0.8), 0.05)
        following = torch.bernoulli(stay, generator=generator).long()
        run = torch.where(following == state, run + 1, 0.0)
        state = following
    return torch.stack(found, 1)


def _covariance(other: int) -> Tensor:
    sigma = 0.801 * torch.eye(3)
    sigma[0, other] = sigma[other, 0] = 0.01
    return sigma


def train(size: Size, seed: int, tick: Callable[[str], None] = lambda text: None) -> tuple[nn.Module, Tensor, Tensor]:
    """A trained classifier, test inputs and their salient entries. Random state of the caller is kept."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        x, labels, _ = draw(size.train, size.steps, generator)
        model = StateClassifier(size.hidden)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-3)
        for epoch in range(size.epochs):
            tick(f"seed {seed}, epoch {epoch}")
            for rows in torch.split(torch.randperm(size.train), 32):
                end = int(torch.randint(1, size.steps + 1, ()))
                loss = F.cross_entropy(model(x[rows, :end]), labels[rows, end - 1])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        test, _, salient = draw(size.test, size.steps, generator)
    return model.eval(), test, salient


def states(
    seeds: int = 5,
    *,
    size: Size = WHOLE,
    methods: dict[str, dict[str, Any]] | None = None,
    tick: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """AUP, AUR, AUROC and AUPRC over all explained entries, per seed, beside the published ones. methods: label -> options
    of ``attribute``; None is ``by_default``. The published size takes hours on a CPU: give a smaller ``size``."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for seed in range(seeds):
        model, x, salient = train(size, seed, tick)
        ends = torch.linspace(1, size.steps, min(size.ends, size.steps)).round().long()
        mean = draw(size.train, size.steps, torch.Generator().manual_seed(seed))[0].mean(0, keepdim=True)
        maps: dict[str, list[Tensor]] = {}
        for end in ends.tolist():
            tick(f"seed {seed}, step {end}")
            prefix = x[:, :end]
            for label, options in (methods or by_default(prefix, mean[:, :end])).items():
                maps.setdefault(label, []).append(_at_end(model, prefix, {"method": label} | options))
        for label, steps in maps.items():
            for metric, number in pooled(torch.stack(steps, 1).abs(), salient[:, ends - 1]).items():
                found.setdefault(("states", label, metric), []).append(number)
    return rows_of(found, PUBLISHED)


def by_default(prefix: Tensor, mean: Tensor) -> dict[str, dict[str, Any]]:
    """Methods with their published options, for a prefix (series, time, 3) and the training mean (1, time, 3). Only the last
    step is judged, so all that takes features away takes the earlier steps as one."""
    last = {"feature_mask": F.pad(torch.arange(1, 4)[None], (0, 0, prefix.shape[1] - 1, 0))}
    either = torch.cat([torch.zeros_like(prefix), prefix])
    asked: dict[str, dict[str, Any]] = {
        "integrated_gradients": {"n_steps": 30},
        "deep_lift": {},
        "gradient_shap": {"n_samples": 50, "stdevs": 1e-4, "baselines": either},
        "feature_ablation": last,
        "occlusion": {"method": "feature_ablation", "baselines": mean} | last,
        "saliency": {},
    }
    return asked


def pooled(maps: Tensor, salient: Tensor) -> dict[str, float]:
    """The published numbers, of all entries of all series in one ranking."""
    weight, truth = maps.double().reshape(1, -1), salient.reshape(1, -1)
    everywhere, scaled = torch.ones_like(truth), (weight - weight.min()) / (weight.max() - weight.min())
    precision, recall = threshold_areas(scaled, truth, everywhere)
    both = roc_area(weight, truth, everywhere), average_precision(weight, truth, everywhere)
    return dict(zip(NAMES, (t.item() for t in (precision, recall, *both)), strict=True))


def _at_end(model: nn.Module, prefix: Tensor, options: dict[str, Any]) -> Tensor:
    """(series, 3): what the last step of a prefix counted for the class that is predicted there."""
    with torch.no_grad():
        target = model(prefix).argmax(1)
    return attribute(model, prefix, target=target, **options).values[:, -1]  # type: ignore[no-any-return]
