"""``fit``: train a classifier, and say how it went as a History of epochs.

It draws from random numbers of its own, seeded, so that the same call gives the same weights and the caller's random
state is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from inspector.models.answers import all_class_scores, class_scores, class_target
from inspector.models.restore import as_found, own_randomness
from inspector.provenance import provenance
from inspector.records.history import History
from inspector.records.samples import Samples, Task
from inspector.records.splitting import stratified

Report = Callable[[int, Mapping[str, float]], None]


def fit(
    model: nn.Module,
    data: Task | Samples,
    *,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    validation: float | Samples = 0.1,
    seed: int = 0,
    progress: bool | Report = True,
) -> History:
    """Train in place with Adam on the cross-entropy, lr falling along a cosine; scalars per epoch: loss, accuracy,
    validation_loss and validation_accuracy.

    data: Samples with a class target, or a Task, whose test half is not touched. validation: the share of the samples
    held out to watch (0: none), or other Samples. progress: a bar, or a function of the epoch and its scalars.
    Raises FloatingPointError when the loss is not finite, before that step changes the weights.
    """
    train, held = _halves(data.train if isinstance(data, Task) else data, validation, seed)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs, 1))
    rows: list[dict[str, float]] = []
    with as_found(model), own_randomness(model, seed) as draw, _reporting(progress, epochs) as report:
        for epoch in range(1, epochs + 1):
            batches = _batches(torch.randperm(len(train), generator=draw), batch_size)
            row = _epoch(model, optimizer, [train[rows] for rows in batches], epoch)
            rows.append(row | (_watch(model, held, batch_size) if held else {}))
            decay.step()
            report(epoch, rows[-1])
    steps = np.arange(1, epochs + 1)
    scalars = {name: (steps, np.array([row[name] for row in rows])) for name in (rows[0] if rows else {})}
    return History("epoch", scalars, meta=provenance(model, seed=seed) | {"lr": lr, "batch_size": batch_size})


def _halves(samples: Samples, validation: float | Samples, seed: int) -> tuple[Samples, Samples | None]:
    target = class_target(samples)
    if isinstance(validation, Samples):
        return samples, validation
    if validation == 0:
        return samples, None
    train, held = stratified(target.cpu(), validation, seed)
    return samples[train], samples[held]


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """Row numbers by batch; a last batch of one joins the one before, because batch norm cannot train on it."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1 < size:
        starts.pop()
    return [order[i:j] for i, j in pairwise([*starts, len(order)])]


def _epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Samples], epoch: int) -> dict[str, float]:
    """One step per batch; loss and accuracy over all, as they were when each batch's turn came."""
    model.train()
    total, right, size = 0.0, 0, sum(map(len, batches))
    for batch in batches:
        scores = class_scores(model, batch)
        target = class_target(batch).to(scores.device)
        loss = cross_entropy(scores, target)
        if not math.isfinite(value := loss.item()):
            advice = "lower lr, or look for NaN and very large values in the inputs"
            raise FloatingPointError(f"the loss is {value} in epoch {epoch}; the weights are those before it: {advice}")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += value * len(batch)
        right += int((scores.argmax(1) == target).sum())
    return {"loss": total / size, "accuracy": right / size}


def _watch(model: nn.Module, samples: Samples, batch_size: int) -> dict[str, float]:
    scores, target = all_class_scores(model, samples, batch_size), class_target(samples).cpu()
    accuracy = (scores.argmax(1) == target).double().mean()
    return {"validation_loss": cross_entropy(scores, target).item(), "validation_accuracy": accuracy.item()}


@contextmanager
def _reporting(progress: bool | Report, epochs: int) -> Iterator[Report]:
    """The caller's own function, or one that moves a bar."""
    if not isinstance(progress, bool):
        yield progress
        return
    from tqdm import tqdm

    with tqdm(total=epochs, unit="epoch", disable=None if progress else True) as bar:

        def show(epoch: int, scalars: Mapping[str, float]) -> None:
            bar.set_postfix({name.replace("validation", "val"): f"{value:.3f}" for name, value in scalars.items()})
            bar.update()

        yield show
