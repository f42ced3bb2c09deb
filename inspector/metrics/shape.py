"""How much a map asks of its reader: a few strong positions are read at a glance, a haze is not.

These say nothing of truth: a map may be sparse and wrong. Padding counts for nothing; an all-zero map is judged as a
constant one, because it says as little.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inspector.metrics.surface import Surface, surface
from inspector.records import Attribution


def sparseness(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) Gini coefficient of the absolute map (Chalasani et al. 2020): 0 all positions alike, towards 1 a single
    one."""
    laid = surface(attribution)
    weight = _weights(laid)
    place = weight.masked_fill(~laid.valid, -1).argsort(1).argsort(1) - (~laid.valid).sum(1, keepdim=True) + 1
    count = laid.count[:, None]
    gini = (weight * (2 * place - count - 1) * laid.valid).sum(1) / laid.count
    return gini.clamp(0, 1).masked_fill(laid.broken, torch.nan)  # rounding makes -1e-17 of a constant map


def complexity(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) entropy in nats of the absolute map's shares (Bhatt et al. 2020): 0 a single position, log(positions) all
    alike."""
    laid = surface(attribution)
    return entropy(_weights(laid)).masked_fill(laid.broken, torch.nan)


def entropy(shares: Tensor) -> Tensor:
    """(batch,) of shares that sum to 1, in nats."""
    return -torch.xlogy(shares, shares).sum(1)


def _weights(laid: Surface) -> Tensor:
    """(batch, positions) shares of the absolute map, 0 where padded."""
    weight = laid.heat.abs().nan_to_num(posinf=0.0) * laid.valid
    weight = torch.where(weight.amax(1, keepdim=True) > 0, weight, laid.valid.double())
    weight = weight / weight.amax(1, keepdim=True)  # first by the largest, so that tiny maps do not underflow
    return weight / weight.sum(1, keepdim=True)
