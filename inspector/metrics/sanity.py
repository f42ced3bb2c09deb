"""Is the map about the model at all? If its layers are replaced by untrained ones, the map must change too.

Layers are replaced from the output downwards, in place and without a copy of the model: every parameter keeps its
identity and gets its own storage back. Signed maps are compared, because absolute ones hide a change of sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from inspector.attribution.untouched import untouched
from inspector.metrics.agreement import centred_ranks, correlation_of_ranks
from inspector.metrics.explaining import Explain, again, asking_again
from inspector.metrics.forward import asked
from inspector.metrics.surface import Surface, surface
from inspector.records import Attribution, Curve

BINS = 100


def randomization(
    model: nn.Module, attribution: Attribution, *, steps: int = 4, explain: Explain | None = None, seed: int = 0
) -> Curve:
    """Rank correlation of the map with itself as more layers, from the output down, are untrained (Adebayo et al. 2018).

    x: share of the layers that are untrained, y: (batch, steps + 1), 1 at the start. A map that looks at the model has a
    low area; an edge detector's is 1.
    """
    layers = layers_from_the_output(model)
    counts = sorted({round(len(layers) * i / steps) for i in range(1, steps + 1)} - {0})
    laid, ask = surface(attribution), explain or again(attribution)
    before, similar = centred_ranks(laid.heat, laid.valid), [torch.ones(len(laid.heat), dtype=torch.float64)]
    with untouched(model, seed=seed), untrained(layers) as reset:
        for start, count in pairwise([0, *counts]):
            reset(layers[start:count])
            new = _asked_again(model, attribution, ask)
            similar.append(correlation_of_ranks(before, centred_ranks(new.heat, laid.valid)).cpu())
    y = torch.stack(similar, dim=1).masked_fill(laid.broken.cpu()[:, None], torch.nan)
    return Curve(torch.tensor([0, *counts], dtype=torch.float64) / len(layers), y)


def complexity_rise(model: nn.Module, attribution: Attribution, *, explain: Explain | None = None, seed: int = 0) -> Tensor:
    """(batch,) relative rise of the map's histogram entropy when all layers are untrained (Hedstrom et al. 2024): the same
    question as ``randomization`` with one explanation. Positive: the trained model made the map orderly."""
    laid = surface(attribution)
    new = untrained_map(model, attribution, layers_from_the_output(model), explain or again(attribution), seed)
    before, after = histogram_entropy(laid), histogram_entropy(new)
    return ((after - before) / before).masked_fill((before <= 0) | laid.broken, torch.nan)


def untrained_map(
    model: nn.Module, attribution: Attribution, layers: list[nn.Module], explain: Explain, seed: int
) -> Surface:
    """The map of the same samples when ``layers`` are untrained."""
    with untouched(model, seed=seed), untrained(layers) as reset:
        reset(layers)
        return _asked_again(model, attribution, explain)


def _asked_again(model: nn.Module, attribution: Attribution, explain: Explain) -> Surface:
    with asking_again():
        return surface(explain(model, attribution.samples, asked(attribution)))


@contextmanager
def untrained(layers: list[nn.Module]) -> Iterator[Callable[[list[nn.Module]], None]]:
    """Gives a function that untrains some of ``layers`` until the block ends: fresh parameters as the layer's own
    ``reset_parameters`` draws them, or shuffled where it has none. Draws from the global random state, so fix and restore
    it around this."""
    before = [(tensor, tensor.data) for layer in layers for tensor in _own(layer)]

    def reset(some: list[nn.Module]) -> None:
        for layer in some:
            for tensor in _own(layer):
                tensor.data = tensor.data.clone()
            _reset(layer)

    try:
        yield reset
    finally:
        for tensor, data in before:
            tensor.data = data


def layers_from_the_output(model: nn.Module) -> list[nn.Module]:
    """Modules with parameters of their own, the last registered first, which is the output in every usual model."""
    return [m for m in reversed(list(model.modules())) if any(True for _ in m.parameters(recurse=False))]


def histogram_entropy(laid: Surface, bins: int = BINS) -> Tensor:
    """(batch,) entropy in nats of the histogram of a map's values, in ``bins`` of equal width between its extremes."""
    low = laid.heat.masked_fill(~laid.valid, torch.inf).amin(1, keepdim=True)
    span = laid.heat.masked_fill(~laid.valid, -torch.inf).amax(1, keepdim=True) - low
    place = torch.where(span > 0, (laid.heat - low) / span, 0).nan_to_num().mul(bins).long().clamp(0, bins - 1)
    counts = torch.zeros(len(place), bins, dtype=torch.float64, device=place.device).scatter_add_(
        1, place, laid.valid.double()
    )
    share = counts / counts.sum(1, keepdim=True)
    return -torch.xlogy(share, share).sum(1)


def _own(layer: nn.Module) -> list[Tensor]:
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


def _reset(layer: nn.Module) -> None:
    reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
    if callable(reset):
        reset()
        return
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            shuffle = torch.randperm(parameter.numel(), device="cpu").to(parameter.device)
            parameter.copy_(parameter.flatten()[shuffle].reshape(parameter.shape))
