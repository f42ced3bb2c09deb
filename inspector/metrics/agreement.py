"""Do methods agree? Agreement is no proof of truth, but disagreement means that at most one of two maps is right.

Maps are laid on the inputs first, so that a layer's coarse map can be compared with a fine one; padding is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from inspector.metrics.evidence import mid_ranks
from inspector.metrics.surface import Surface, descending, surface
from inspector.records import Attribution

Rows = Callable[[Tensor, Tensor, Tensor], Tensor]
TOP = 0.1  # share of the positions that count as the top


def agreement(attributions: Mapping[str, Attribution]) -> dict[str, Tensor]:
    """(labels, labels) for each way of agreeing: the mean over the samples, NaN samples left out. Raises ValueError where
    two maps are not of the same positions."""
    laid = _of_the_same_positions(attributions)
    found = {}
    for name, rows in AGREEMENT.items():
        means = [[rows(a.heat, b.heat.to(a.heat), a.valid).nanmean() for b in laid] for a in laid]
        found[name] = torch.stack([torch.stack(line) for line in means]).cpu()
    return found


def _of_the_same_positions(attributions: Mapping[str, Attribution]) -> list[Surface]:
    laid = {label: surface(a) for label, a in attributions.items()}
    for label, found in laid.items():
        first, other = next(iter(laid.items()))
        places = [[(area.leaf, area.shape) for area in each.areas] for each in (other, found)]
        if places[0] != places[1]:
            sizes = [" and ".join(f"{list(shape)}" for _, shape in each) for each in places]
            raise ValueError(
                f"{label} has other positions ({sizes[1]}) than {first} ({sizes[0]}), so that they cannot be compared; "
                "explain the same inputs by the same axes, or give score each by itself"
            )
    return list(laid.values())


def spearman_rows(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """(batch,) rank correlation over the valid positions; equals share their mean rank. Of two constant maps 1, of one
    constant map and another 0."""
    return correlation_of_ranks(centred_ranks(first, valid), centred_ranks(second, valid))


def centred_ranks(values: Tensor, valid: Tensor) -> Tensor:
    """(batch, positions) ranks minus their mean, 0 at padding; NaN throughout for a map that holds a NaN or Inf."""
    ranks = mid_ranks(values.double().masked_fill(~valid, torch.inf))
    mean = (ranks * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True)
    return ((ranks - mean) * valid).masked_fill(_broken(values, valid)[:, None], torch.nan)


def correlation_of_ranks(first: Tensor, second: Tensor) -> Tensor:
    """(batch,) of centred ranks."""
    power = [ranks.square().sum(1) for ranks in (first, second)]
    found = (first * second).sum(1) / (power[0] * power[1]).sqrt()
    constant = [p == 0 for p in power]
    found = torch.where(constant[0] ^ constant[1], 0.0, torch.where(constant[0] & constant[1], 1.0, found))
    return found.clamp(-1, 1).masked_fill(power[0].isnan() | power[1].isnan(), torch.nan)


def top_k_rows(first: Tensor, second: Tensor, valid: Tensor, share: float = TOP) -> Tensor:
    """(batch,) share of the top positions by absolute value that both maps have in common, 0 to 1."""
    count = (share * valid.sum(1)).ceil().clamp(min=1)
    tops = [descending(values.abs(), valid) < count[:, None] for values in (first, second)]
    common = (tops[0] & tops[1] & valid).sum(1) / count
    return common.double().masked_fill(_broken(first, valid) | _broken(second, valid), torch.nan)


def sign_rows(first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """(batch,) share of the positions at which both maps have the same sign; NaN where no position has one in both."""
    both = (first != 0) & (second != 0) & valid
    same = ((first.sign() == second.sign()) & both).sum(1) / both.sum(1)
    return same.double().masked_fill(_broken(first, valid) | _broken(second, valid), torch.nan)


AGREEMENT: dict[str, Rows] = {"spearman": spearman_rows, "top_k": top_k_rows, "sign": sign_rows}


def _broken(values: Tensor, valid: Tensor) -> Tensor:
    return (~torch.isfinite(values) & valid).any(1)
