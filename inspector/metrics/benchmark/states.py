"""The hidden-Markov state task with a recurrent classifier, as published with the time_interpret library.

Two hidden states; at each step one of three features, which one depends on the state, decides the label. The salient
feature is known at every step, and a GRU learns to tell it. Each step is explained by its own value given its past, all
steps of a series in one pass: the past of a step is run before it and holds no gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspector.attribution import METHODS, attribute
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
OTHER_SCALES = ("AUR, one scale", "AUR, top cut")
CUT = 0.02  # share of a series' entries that are cut to the height of the next
AT_ONCE = 50  # series that are explained together
PUBLISHED: Published = {
    ("states", method, name): number
    for method, numbers in PUBLISHED_NUMBERS.items()
    for name, number in zip(NAMES, numbers, strict=True)
}


class Size(NamedTuple):
    """The published sizes; smaller ones run in minutes. test: how many series are explained."""

    train: int = 800
    test: int = 200
    steps: int = 200
    hidden: int = 200
    epochs: int = 50


WHOLE = Size()


class StateClassifier(nn.Module):
    """(batch, time, 3) -> (batch, 2) for the last step."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(3, hidden, batch_first=True)
        self.head = nn.Sequential(nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0][:, -1])  # type: ignore[no-any-return]

    def past(self, x: Tensor) -> Tensor:
        """(batch, time, hidden) the state before each step. It belongs to the graph, because DeepLift compares it with that
        of the baseline, but hands on a gradient of zero."""
        before = F.pad(self.gru(x)[0][:, :-1], (0, 0, 1, 0))
        if before.requires_grad:
            before.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]
        return before


class LastStep(nn.Module):
    """(rows, 3) and the states before them (rows, hidden) -> (rows, 2)."""

    def __init__(self, model: StateClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, row: Tensor, before: Tensor) -> Tensor:
        return self.model.head(self.model.gru(row[:, None], before[None].contiguous())[0][:, 0])  # type: ignore[no-any-return]


class EveryStep(LastStep):
    """(batch, time, 3) -> (batch, time, 2): what the classifier answers to each prefix. The gradient of an answer is that of
    its own step alone, as if it were asked prefix by prefix."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        answers = super().forward(x.flatten(0, 1), self.model.past(x).flatten(0, 1))
        return answers.reshape(*x.shape[:2], -1)


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


def train(size: Size, seed: int, tick: Callable[[str], None] = lambda text: None) -> tuple[StateClassifier, Tensor, Tensor]:
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
    """AUP, AUR, AUROC and AUPRC over all entries of all series, per seed, beside the published ones. methods: label ->
    options of ``attribute``; None is ``by_default``. The published size takes about ten minutes a seed on one core."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for seed in range(seeds):
        model, x, salient = train(size, seed, tick)
        mean = draw(size.train, size.steps, torch.Generator().manual_seed(seed))[0].mean(0, keepdim=True)
        for label, options in (methods or by_default(x, mean)).items():
            tick(f"seed {seed}, {label}")
            maps = torch.cat([explained(model, some, {"method": label} | options) for some in torch.split(x, AT_ONCE)])
            for metric, number in pooled(maps.abs(), salient).items():
                found.setdefault(("states", label, metric), []).append(number)
    return rows_of(found, PUBLISHED)


def by_default(x: Tensor, mean: Tensor) -> dict[str, dict[str, Any]]:
    """Methods with their published options, for series (series, time, 3) and the training mean (1, time, 3)."""
    return {
        "integrated_gradients": {},
        "deep_lift": {},
        "gradient_shap": {"n_samples": 50, "stdevs": 1e-4, "baselines": torch.cat([torch.zeros_like(x), x])},
        "feature_ablation": {},
        "occlusion": {"method": "feature_ablation", "baselines": mean},
        "saliency": {},
    }


def explained(model: StateClassifier, x: Tensor, options: dict[str, Any]) -> Tensor:
    """(series, time, 3): what each step's features counted for the class that is predicted at that step. What takes features
    away is asked row by row; what needs gradients, of all steps at once."""
    with torch.no_grad():
        classes = EveryStep(model)(x).argmax(2)
    method = options["method"]
    if isinstance(method, str) and METHODS[method].needs == "perturbation":
        rows: dict[str, Any] = {k: v.expand_as(x).flatten(0, 1) if isinstance(v, Tensor) else v for k, v in options.items()}
        inputs = x.flatten(0, 1), model.past(x).detach().flatten(0, 1)
        found = attribute(LastStep(model), inputs, target=classes.flatten(), explain=0, **rows)
        return found.values.reshape(x.shape)  # type: ignore[no-any-return]
    with warnings.catch_warnings():  # of course: what the steps before count for is left out
        warnings.filterwarnings("ignore", ".*is off by")
        of_each = lambda answers: answers.gather(2, classes[..., None]).sum((1, 2))  # noqa: E731
        return attribute(EveryStep(model), x, target=of_each, **options).values  # type: ignore[no-any-return]


def pooled(maps: Tensor, salient: Tensor) -> dict[str, float]:
    """The published numbers, of all entries of all series in one ranking, each series scaled to 0..1 by itself. AUR depends
    on that scale, so it comes twice more: with one scale for all, and with the largest 2 % of each series cut to its top."""
    flat, truth = maps.double().flatten(1), salient.reshape(1, -1)
    low, high, everywhere = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True), torch.ones_like(truth)
    own, one = (flat - low) / (high + 1e-5), (flat - low.min()) / (high.max() - low.min())
    cut = (own / own.quantile(1 - CUT, 1, keepdim=True)).clamp(max=1)
    (precision, recall), *others = (threshold_areas(w.reshape(1, -1), truth, everywhere) for w in (own, one, cut))
    weight = own.reshape(1, -1)
    both = roc_area(weight, truth, everywhere), average_precision(weight, truth, everywhere)
    found = (precision, recall, *both, *(area[1] for area in others))
    return dict(zip((*NAMES, *OTHER_SCALES), (number.item() for number in found), strict=True))
