"""Does the map stay where it is when the input hardly moves?

A map that never moves is perfectly robust and says nothing, so read these beside faithfulness. The radius is a share
of the input's own spread, so that it means the same for pixels and for standardized rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution.untouched import untouched
from inspector.metrics.explaining import Explain, again, explain_copies, flat_values
from inspector.records import Attribution
from inspector.tensors import rebuild, walk


def max_sensitivity(
    model: nn.Module,
    attribution: Attribution,
    *,
    radius: float = 0.05,
    draws: int = 8,
    explain: Explain | None = None,
    seed: int = 0,
) -> Tensor:
    """(batch,) largest relative change of the map, ||new - old|| / ||old||, over ``draws`` inputs within ``radius``
    standard deviations of the input (Yeh et al. 2019). 0 for an all-zero map that stays so, NaN for one that does not."""
    moves = _moves(model, attribution, radius, draws, explain, seed)
    before = flat_values(attribution).norm(dim=1)
    changes = torch.stack([_relative(change, before) for change, _ in moves])
    return _worst(changes)


def local_lipschitz(
    model: nn.Module,
    attribution: Attribution,
    *,
    radius: float = 0.05,
    draws: int = 8,
    explain: Explain | None = None,
    seed: int = 0,
) -> Tensor:
    """(batch,) largest ||map change|| / ||input change|| over ``draws`` inputs within ``radius`` standard deviations
    (Alvarez-Melis, Jaakkola 2018). It has the unit of the map, so compare it between inputs and not between methods."""
    moves = _moves(model, attribution, radius, draws, explain, seed)
    return _worst(torch.stack([_relative(change, step) for change, step in moves]))


def _moves(
    model: nn.Module, attribution: Attribution, radius: float, draws: int, explain: Explain | None, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each draw how far the map and the input moved, (batch,) twice."""
    old, inputs = flat_values(attribution), attribution.samples.inputs
    near = nearby(attribution, radius, draws, seed)
    with untouched(model, seed=seed):
        maps = explain_copies(model, attribution, near, explain or again(attribution))
    for new, moved in zip(maps, near, strict=True):
        yield (new.to(old) - old).norm(dim=1), _distance(moved, inputs)


def nearby(attribution: Attribution, radius: float, draws: int, seed: int) -> list[Any]:
    """``draws`` inputs uniformly within ``radius`` standard deviations of each floating input; padding stays."""
    generator = torch.Generator().manual_seed(seed)
    samples = attribution.samples

    def move(_: Any, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or not tensor.dim():
            return tensor
        luck = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
        step = luck.to(tensor) * radius * tensor.detach().std(correction=0)
        if samples.valid is not None and tensor.shape[: samples.valid.dim()] == samples.valid.shape:
            step = step * samples.valid.reshape(samples.valid.shape + (1,) * (tensor.dim() - samples.valid.dim()))
        return tensor.detach() + step

    return [rebuild(samples.inputs, move) for _ in range(draws)]


def _distance(first: Any, second: Any) -> Tensor:
    pairs = zip((t for _, t in walk(first)), (t for _, t in walk(second)), strict=True)
    squares = [(a - b).cpu().double().flatten(1).square().sum(1) for a, b in pairs if a.is_floating_point() and a.dim()]
    return torch.stack(squares).sum(0).sqrt()


def _relative(change: Tensor, size: Tensor) -> Tensor:
    """0 where nothing changed, whatever the size; NaN stays NaN."""
    return torch.where(change == 0, 0.0, change / size)


def _worst(changes: Tensor) -> Tensor:
    """Over the draws; NaN where one is undefined."""
    return changes.masked_fill(torch.isinf(changes), torch.nan).amax(0)
