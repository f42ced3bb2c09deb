"""Does the map find what is known to matter? These need ``Samples.evidence``: True at the positions that count.

All take the absolute map, because evidence may speak for or against a target, and all give ties their expected value
under random tie-breaking, so that a constant map scores as chance does. All inputs that were explained are ranked
together; padding is never ranked, nor is an input whose evidence is None. NaN for a sample whose map holds a NaN, or
whose evidence is nothing (or, for the areas under ROC, everything).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from inspector.metrics.surface import Surface, surface
from inspector.metrics.truth import truth_of
from inspector.records import Attribution


def auroc(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) chance that a position of the evidence is above one outside of it; 0.5 is chance, 1 is perfect."""
    laid, truth = _laid_with_evidence(attribution)
    return _defined(roc_area(_weight(laid), truth, laid.valid), laid, truth)


def auprc(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) average precision of the positions by their weight; the share of evidence is chance, 1 is perfect."""
    laid, truth = _laid_with_evidence(attribution)
    return _defined(average_precision(_weight(laid), truth, laid.valid), laid, truth)


def relevance_mass(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) share of the absolute map that lies on the evidence (Arras et al. 2022)."""
    laid, truth = _laid_with_evidence(attribution)
    weight = _weight(laid) * laid.valid
    weight = torch.where(weight.amax(1, keepdim=True) > 0, weight, laid.valid.double())
    weight = weight / weight.amax(1, keepdim=True)
    return _defined((weight * truth).sum(1) / weight.sum(1), laid, truth)


def relevance_rank(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) of as many top positions as there is evidence, the share that lies on it (Arras et al. 2022)."""
    laid, truth = _laid_with_evidence(attribution)
    return _defined(_top_share(laid, truth, truth.sum(1)), laid, truth)


def pointing_game(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) 1 where the highest position lies on the evidence, else 0 (Zhang et al. 2018)."""
    laid, truth = _laid_with_evidence(attribution)
    return _defined(_top_share(laid, truth, torch.ones_like(truth.sum(1))), laid, truth)


def aup(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) area under precision over all thresholds of the absolute map scaled to 0..1 (Crabbe, van der Schaar 2021)."""
    return _area(attribution, 0)


def aur(model: nn.Module, attribution: Attribution) -> Tensor:
    """(batch,) area under recall over all thresholds of the absolute map scaled to 0..1 (Crabbe, van der Schaar 2021). It
    grows with how evenly the evidence is lit, so it depends on the map's scale and not on its order alone."""
    return _area(attribution, 1)


def roc_area(weight: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """(batch,) area under the ROC curve of (batch, positions), ties counting a half (Mann and Whitney)."""
    found, others = truth.sum(1), (~truth & valid).sum(1)
    ranks = (mid_ranks(weight.masked_fill(~valid, torch.inf)) * truth).sum(1)
    return (ranks - found * (found + 1) / 2) / (found * others)


def average_precision(weight: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """(batch,) area under precision by recall, as steps; equals enter together."""
    precision, _ = _precision_recall(weight, truth, valid)
    return (precision * truth).sum(1) / truth.sum(1)


def threshold_areas(weight: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(batch,) areas under precision and recall as functions of the threshold; ``weight`` in 0..1."""
    order = weight.masked_fill(~valid, torch.inf).argsort(1)
    heights = weight.masked_fill(~valid, torch.inf).gather(1, order)
    inside = valid.gather(1, order)
    width = torch.where(inside[:, 1:], heights[:, 1:] - heights[:, :-1], 0)
    both = [curve.gather(1, order) for curve in _precision_recall(weight, truth, valid)]
    first, second = (((y[:, 1:] + y[:, :-1]) / 2 * width).nan_to_num().sum(1) for y in both)
    return first, second


def mid_ranks(values: Tensor) -> Tensor:
    """(batch, n) ranks from 1 in ascending order; equals share the mean of their ranks."""
    order = _order(values)
    ordered = values.gather(1, order)
    place = torch.arange(values.shape[1], device=values.device).expand_as(order)
    edge = torch.ones_like(order[:, :1], dtype=torch.bool)
    differs = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(torch.cat([edge, differs], 1), place, 0).cummax(1).values
    last = torch.where(torch.cat([differs, edge], 1), place, place.shape[1]).flip(1).cummin(1).values.flip(1)
    mean = (first + last + 2).double() / 2
    return torch.empty_like(mean).scatter_(1, order, mean)


def _order(values: Tensor) -> Tensor:
    """Places in ascending order, equals in any; of NumPy on the CPU, which sorts doubles several times as fast."""
    if values.device.type != "cpu" or values.dtype == torch.bfloat16:
        return values.argsort(1)
    return torch.from_numpy(values.detach().numpy().argsort(1))


def _area(attribution: Attribution, which: int) -> Tensor:
    laid, truth = _laid_with_evidence(attribution)
    weight = _weight(laid)
    low = weight.masked_fill(~laid.valid, torch.inf).amin(1, keepdim=True)
    span = weight.masked_fill(~laid.valid, -torch.inf).amax(1, keepdim=True) - low
    scaled = torch.where(span > 0, (weight - low) / span, 0)
    return _defined(threshold_areas(scaled, truth, laid.valid)[which], laid, truth)


def _precision_recall(weight: Tensor, truth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """At each position: precision and recall of all positions that are as high or higher."""
    weight = weight.contiguous()
    everyone = weight.masked_fill(~valid, -torch.inf).sort(1).values
    evidence = weight.masked_fill(~truth, -torch.inf).sort(1).values
    size = weight.shape[1]
    chosen = (size - torch.searchsorted(everyone, weight)).clamp(min=1).double()
    hit = (size - torch.searchsorted(evidence, weight)).double()
    return hit / chosen, hit / truth.sum(1, keepdim=True)


def _top_share(laid: Surface, truth: Tensor, count: Tensor) -> Tensor:
    """The expected share of the ``count`` highest positions that lies on the evidence, over random orders of equals."""
    weight = _weight(laid).masked_fill(~laid.valid, -torch.inf)
    edge = weight.sort(1, descending=True).values.gather(1, (count - 1).clamp(min=0)[:, None])
    above, level = weight > edge, weight == edge
    places = count - above.sum(1)
    return ((above & truth).sum(1) + places * (level & truth).sum(1) / level.sum(1)) / count


def _laid_with_evidence(attribution: Attribution) -> tuple[Surface, Tensor]:
    """The map and the truth of its positions; an input of which nothing is known is left out like padding."""
    laid, samples = surface(attribution), attribution.samples
    truth, known = truth_of(laid, samples)
    laid = replace(laid, valid=laid.valid & known)
    return laid, truth & laid.valid


def _weight(laid: Surface) -> Tensor:
    return laid.heat.abs().nan_to_num(posinf=0.0)


def _defined(values: Tensor, laid: Surface, truth: Tensor) -> Tensor:
    return values.double().masked_fill(laid.broken | ~truth.any(1), torch.nan)
