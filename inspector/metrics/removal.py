"""Faithfulness by removal: take away what the map calls relevant, and see whether the model's output follows.

Steps are shares of each sample's own positions, so that sequences of different length, images and rows give curves
on one axis; channels of a position go together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from inspector.attribution.untouched import untouched
from inspector.metrics.baselines import Baseline, base_tensors
from inspector.metrics.forward import by_batch, outputs, passes
from inspector.metrics.surface import Surface, surface
from inspector.records import Attribution, Curve
from inspector.tensors import Leaf

Masks = Callable[[slice], Tensor]  # which masks -> (masks, batch, positions), True stays
STEPS = 20
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of the tokens, after DeYoung et al.


def deletion(
    model: nn.Module, attribution: Attribution, *, steps: int = STEPS, baseline: Baseline = "mean", order: str = "most"
) -> Curve:
    """Output at the target while ``order`` relevant positions are removed first (Petsiuk et al. 2018).

    x: the share removed, from 0 to 1; y: (batch, steps + 1), the target's own output. order: "most" or "least". At most
    one step a position. A faithful map makes a low area with "most" and a high one with "least".
    """
    laid = surface(attribution)
    removed, shares = removed_counts(laid, steps)
    rank = laid.rank if _most(order) else laid.count[:, None] - 1 - laid.rank
    return _curve(model, attribution, laid, lambda some: rank >= removed[some, :, None], shares, baseline)


def insertion(
    model: nn.Module, attribution: Attribution, *, steps: int = STEPS, baseline: Baseline = "mean", order: str = "most"
) -> Curve:
    """Output at the target while ``order`` relevant positions come back into an input of nothing but baseline.

    x: the share that is back; y: (batch, steps + 1). A faithful map makes a high area with "most".
    """
    laid = surface(attribution)
    back, shares = removed_counts(laid, steps)
    rank = laid.rank if _most(order) else laid.count[:, None] - 1 - laid.rank
    return _curve(model, attribution, laid, lambda some: rank < back[some, :, None], shares, baseline)


def deletion_gap(model: nn.Module, attribution: Attribution, *, steps: int = STEPS, baseline: Baseline = "mean") -> Tensor:
    """(batch,) the area between removing the least and the most relevant first (Samek et al. 2017): what both share by
    being unnatural inputs cancels out."""
    least = deletion(model, attribution, steps=steps, baseline=baseline, order="least")
    return least.area - deletion(model, attribution, steps=steps, baseline=baseline).area


def comprehensiveness(
    model: nn.Module, attribution: Attribution, *, shares: tuple[float, ...] = SHARES, baseline: Baseline = "mean"
) -> Tensor:
    """(batch,) mean fall of the output when the top shares of positions are removed (DeYoung et al. 2020)."""
    laid = surface(attribution)
    counts = top_counts(laid, shares)
    return _mean_fall(model, attribution, laid, laid.rank >= counts[..., None], baseline)


def sufficiency(
    model: nn.Module, attribution: Attribution, *, shares: tuple[float, ...] = SHARES, baseline: Baseline = "mean"
) -> Tensor:
    """(batch,) mean fall of the output when only the top shares of positions are kept (DeYoung et al. 2020)."""
    laid = surface(attribution)
    counts = top_counts(laid, shares)
    return _mean_fall(model, attribution, laid, laid.rank < counts[..., None], baseline)


def removed_counts(laid: Surface, steps: int) -> tuple[Tensor, Tensor]:
    """How many positions each step removes, (steps + 1, batch), and the shares that they are."""
    if steps < 1:
        raise ValueError(f"steps={steps}; a curve needs at least one step")
    most = max(1, int(laid.count.max())) if len(laid.count) else 1
    steps = min(steps, most)
    step = torch.arange(steps + 1, device=laid.count.device)
    return (2 * step[:, None] * laid.count + steps) // (2 * steps), step / steps  # halves up, exactly


def top_counts(laid: Surface, shares: tuple[float, ...]) -> Tensor:
    """(shares, batch) positions in each share, at least one."""
    wanted = torch.tensor(shares, dtype=torch.float64, device=laid.count.device)[:, None] * laid.count
    return (wanted - 1e-9).ceil().long().clamp(min=1)  # a tenth of 30 is 3, whatever floating point says


def masked_outputs(
    model: nn.Module, attribution: Attribution, laid: Surface, count: int, masks: Masks, base: dict[Leaf, Tensor]
) -> Tensor:
    """(count, batch) outputs, on the CPU, with the positions outside of each mask removed; many masks share a pass.

    A mask that leaves a sample as the one before did, because what it removes is already at its baseline, is not run.
    """
    score, size, whole = outputs(model, attribution), len(attribution.samples), by_batch(attribution)
    ran, found = torch.ones(count, size, dtype=torch.bool), []
    with untouched(model):
        at_once, lay = passes(score, laid.inputs, size, count)
        at_once = max(1, at_once // size) * size if whole else at_once
        for some, keep, news in _rounds(laid, count, masks, base, max(1, 8 * at_once // size)):
            ran[some] = news | whole
            places, rows = ran[some].nonzero(as_tuple=True)
            for own, of in zip(torch.split(keep[places, rows], at_once), torch.split(rows, at_once), strict=True):
                found.append(score(lay(laid.changed(own, of, base)), of))
    return _filled(torch.cat(found).cpu(), ran)


def _rounds(
    laid: Surface, count: int, masks: Masks, base: dict[Leaf, Tensor], length: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Runs of ``length`` masks, so that never all of them are in memory: which, the masks, and for which samples
    (masks, batch) each changes what the one before left."""
    matters, before = laid.matters(base), None
    for start in range(0, count, length):
        some = slice(start, min(start + length, count))
        keep = masks(some)
        last = ~keep[:1] if before is None else before
        news = ((keep ^ torch.cat([last, keep[:-1]])) & matters).any(-1)
        if before is None:
            news[0] = True
        before = keep[-1:]
        yield some, keep, news


def _filled(y: Tensor, ran: Tensor) -> Tensor:
    """The outputs of the runs at their places in (masks, batch), each followed by copies of itself until the next one."""
    whole = torch.empty(ran.shape, dtype=torch.float32 if y.dtype in (torch.float16, torch.bfloat16) else y.dtype)
    whole[ran] = y.to(whole)
    latest = torch.where(ran, torch.arange(len(ran))[:, None], 0).cummax(0).values
    return whole.gather(0, latest)


def _curve(
    model: nn.Module, attribution: Attribution, laid: Surface, masks: Masks, shares: Tensor, baseline: Baseline
) -> Curve:
    y = masked_outputs(model, attribution, laid, len(shares), masks, base_tensors(model, laid, baseline)).T.contiguous()
    return Curve(shares.to(y), y.masked_fill(laid.broken[:, None], torch.nan))


def _mean_fall(model: nn.Module, attribution: Attribution, laid: Surface, keep: Tensor, baseline: Baseline) -> Tensor:
    whole = torch.cat([torch.ones_like(keep[:1]), keep])
    y = masked_outputs(model, attribution, laid, len(whole), whole.__getitem__, base_tensors(model, laid, baseline))
    return (y[0] - y[1:]).mean(0).masked_fill(laid.broken, torch.nan)


def _most(order: str) -> bool:
    if order not in ("most", "least"):
        raise ValueError(f"order={order!r}; there are 'most' and 'least' relevant first")
    return order == "most"
