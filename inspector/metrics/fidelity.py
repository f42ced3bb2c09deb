"""Faithfulness by value: do the numbers of the map foretell how much the output falls when positions go away?

Removing a random set of positions is one draw; the map foretells the sum of its values there. That holds for every
method and layer, and for methods that sum to the difference of outputs it should be exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inspector.metrics.baselines import Baseline, base_tensors
from inspector.metrics.removal import masked_outputs
from inspector.metrics.surface import Surface, surface
from inspector.records import Attribution
from inspector.tensors import walk


def infidelity(
    model: nn.Module,
    attribution: Attribution,
    *,
    draws: int = 50,
    share: float = 0.1,
    normalize: bool = True,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> Tensor:
    """(batch,) mean squared error of the foretold fall of the output (Yeh et al. 2019), over random removals of ``share``.

    ``normalize``: the map is first scaled by the one factor that fits best, and the error is given as a share of the mean
    squared fall, so that neither the map's nor the output's unit counts: 0 is exact, 1 foretells nothing. Without it,
    the paper's own number. NaN where no removal changes the output.
    """
    laid = surface(attribution)
    removed = random_removals(laid, _per_sample(laid, share, draws), seed)
    foretold, fall = _foretold_and_fall(model, attribution, laid, removed, baseline)
    if not normalize:
        return (foretold - fall).square().mean(0)
    power = foretold.square().sum(0)
    scale = torch.where(power > 0, (foretold * fall).sum(0) / power, 0)
    return (scale * foretold - fall).square().sum(0) / fall.square().sum(0)


def sensitivity_n(
    model: nn.Module,
    attribution: Attribution,
    *,
    sizes: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75),
    draws: int = 30,
    baseline: Baseline = "mean",
    seed: int = 0,
) -> Tensor:
    """(batch,) correlation of the foretold with the true fall over random sets of n positions (Ancona et al. 2018), mean
    over set sizes, given as shares. 1 is perfect. A constant map correlates with nothing: 0. NaN where the output never
    changes."""
    laid = surface(attribution)
    found = []
    for number, share in enumerate(sizes):
        removed = random_removals(laid, _per_sample(laid, share, draws), seed + number)
        found.append(correlation(*_foretold_and_fall(model, attribution, laid, removed, baseline)))
    return torch.stack(found).nanmean(0)


def completeness(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) how far the values are from summing to the difference of outputs, as a share of that difference
    (Sundararajan et al. 2017). 0 is exact. NaN where the method does not claim it. Needs no pass through the model: it is
    the attribution's own delta."""
    size = len(attribution.samples)
    total = sum(values.detach().cpu().double().reshape(size, -1).sum(1) for _, values in walk(attribution.values))
    weight = sum(values.detach().cpu().double().abs().reshape(size, -1).sum(1) for _, values in walk(attribution.values))
    if attribution.delta is None or not isinstance(total, Tensor) or not isinstance(weight, Tensor):
        return torch.full((size,), torch.nan, dtype=torch.float64)
    delta = attribution.delta.detach().cpu().double()
    floor = (1e-9 * weight).clamp(min=torch.finfo(torch.float64).tiny)  # a difference of nothing divides by nothing
    return delta.abs() / torch.maximum((total - delta).abs(), floor)


def random_removals(laid: Surface, counts: Tensor, seed: int) -> Tensor:
    """(draws, batch, positions) True where a random set of ``counts`` (draws, batch) valid positions is removed."""
    generator = torch.Generator().manual_seed(seed)
    draws, positions = len(counts), laid.heat.shape[1]
    luck = torch.rand(draws, 1, positions, generator=generator, dtype=torch.float64).to(laid.heat.device)
    if not laid.valid.all():  # padding comes last in each sample's own order; else all share one, which is far smaller
        luck = luck.expand(-1, len(laid.heat), -1).masked_fill(~laid.valid, torch.inf)
    return luck.argsort(-1).argsort(-1) < counts[..., None]


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's along axis 0; 0 where only ``first`` is constant, NaN where ``second`` is."""
    raw = first.double().square().sum(0)
    first, second = (x.double() - x.double().mean(0) for x in (first, second))
    power, other = first.square().sum(0), second.square().sum(0)
    flat = power <= 1e-20 * raw  # what is left of a constant is rounding
    found = (first * second).sum(0) / (power * other).sqrt()
    return torch.where(flat & (other > 0), 0.0, found).clamp(-1, 1)


def _foretold_and_fall(
    model: nn.Module, attribution: Attribution, laid: Surface, removed: Tensor, baseline: Baseline
) -> tuple[Tensor, Tensor]:
    """(draws, batch) twice, in double precision; NaN for maps that hold one."""
    keep = torch.cat([torch.zeros_like(removed[:1]), removed]).logical_not()
    base = base_tensors(model, laid, baseline)
    y = masked_outputs(model, attribution, laid, len(keep), keep.__getitem__, base).double()
    foretold = (removed * laid.heat.nan_to_num()).sum(-1)
    return foretold.masked_fill(laid.broken, torch.nan), (y[0] - y[1:]).to(foretold.device)


def _per_sample(laid: Surface, share: float, draws: int) -> Tensor:
    """(draws, batch) how many positions a share is, at least one and never all of several."""
    counts = (share * laid.count + 0.5).floor().long().clamp(min=1)
    return torch.minimum(counts, (laid.count - 1).clamp(min=1)).expand(draws, -1)
