"""What a removed position becomes. Nothing is truly absent from an input, so the stand-in is named and can be chosen.

The default is the mean and not zero, because zero is what most explainers start from: removing to the same value that
an explanation was built on judges it by its own assumption.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspector.metrics.surface import Area, Surface
from inspector.tensors import Leaf, shape_text, walk

Baseline = str | float | Tensor | Callable[[Tensor], Tensor] | dict[Any, Any]


def base_tensors(model: nn.Module, surface: Surface, baseline: Baseline = "mean") -> dict[Leaf, Tensor]:
    """What each explained input becomes where it is removed, broadcastable to it.

    baseline: "mean" (of each channel over positions and samples; of each feature over the samples), "zero", "blur" (of
    images and sequences), "noise" (as the input is spread), a number, a tensor, a function of the input, or a dict of
    these per input. Ids become the embedding's padding id, else 0, unless a number or tensor is given.
    """
    tensors = dict(walk(surface.inputs))
    return {area.leaf: _base(model, surface, area, tensors[area.leaf], baseline) for area in surface.areas}


def _base(model: nn.Module, surface: Surface, area: Area, tensor: Tensor, baseline: Baseline) -> Tensor:
    if isinstance(baseline, dict):
        return _base(model, surface, area, tensor, baseline[area.leaf[0]])
    if isinstance(baseline, str):
        return _named(baseline, model, surface, area, tensor)
    value = baseline(tensor) if callable(baseline) and not isinstance(baseline, Tensor) else torch.as_tensor(baseline)
    value = value.detach().to(tensor)
    try:
        return value.expand_as(tensor)
    except RuntimeError:
        raise ValueError(f"the baseline {shape_text(value)} does not fit the input {shape_text(tensor)}") from None


def _named(name: str, model: nn.Module, surface: Surface, area: Area, tensor: Tensor) -> Tensor:
    check_name(name)
    if not tensor.is_floating_point():
        return torch.full_like(tensor, _padding_id(model))
    return NAMED[name](tensor.detach(), surface, area)


def check_name(given: Any) -> None:
    """Raises LookupError for a word that names no baseline."""
    if isinstance(given, str) and given not in NAMED:
        raise LookupError(f"{given!r} is no baseline; there are {', '.join(NAMED)}, a number, a tensor or a function")


def _padding_id(model: nn.Module) -> int:
    ids = [m.padding_idx for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    return next((number for number in ids if number is not None), 0)


def _zero(tensor: Tensor, surface: Surface, area: Area) -> Tensor:
    return torch.zeros_like(tensor)


def _mean(tensor: Tensor, surface: Surface, area: Area) -> Tensor:
    if tensor.dim() == 2:  # the positions of a row are features of different kinds: each has its own mean
        return tensor.mean(0, keepdim=True) if len(tensor) > 1 else torch.zeros_like(tensor)
    weights = area.spread(surface.valid, tensor).to(tensor)
    axes = (0, *area.axes)
    counted = weights.expand_as(tensor).sum(axes, keepdim=True)
    return torch.where(weights > 0, tensor, 0).sum(axes, keepdim=True) / counted


def _noise(tensor: Tensor, surface: Surface, area: Area) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
    mean = _mean(tensor, surface, area)
    return mean + noise * (tensor - mean).square().mean().sqrt()


def _blur(tensor: Tensor, surface: Surface, area: Area) -> Tensor:
    """A box blur a quarter as wide as the input, three times, which is close to a Gaussian one."""
    if tensor.dim() < 3:
        raise ValueError("features of a row have no neighbours to blur with; choose the baseline 'mean' or 'zero'")
    channels_first = tensor.movedim(area.axes, tuple(range(-len(area.axes), 0)))
    return blurred(channels_first, len(area.axes), 0.25).movedim(tuple(range(-len(area.axes), 0)), area.axes)


def blurred(tensor: Tensor, axes: int, share: float) -> Tensor:
    """Blur over the last ``axes`` axes by a window of ``share`` of each; edges count what is there only."""
    flat = tensor.flatten(0, -axes - 1)[:, None]
    for axis in range(2, 2 + axes):
        width = 2 * max(1, int(flat.shape[axis] * share / 2)) + 1
        for _ in range(3):
            lined = flat.movedim(axis, -1)
            mean = F.avg_pool1d(lined.flatten(0, -2)[:, None], width, 1, width // 2, count_include_pad=False)
            flat = mean.reshape(lined.shape).movedim(-1, axis)
    return flat.reshape(tensor.shape)


NAMED: dict[str, Callable[[Tensor, Surface, Area], Tensor]] = {"mean": _mean, "zero": _zero, "blur": _blur, "noise": _noise}


def same_as(removed: dict[Leaf, Tensor], explained: Any, surface: Surface) -> bool:
    """Whether the explainer's baselines are the values that removal puts in, so that one assumes what the other tests."""
    given, inputs = dict(walk(explained)), dict(walk(surface.inputs))
    for area in surface.areas:
        own = given.get(area.leaf, next(iter(given.values())) if len(given) == 1 else None)
        if own is None or not _equal(own, removed[area.leaf], inputs[area.leaf]):
            return False
    return bool(given)


def _equal(first: Tensor, second: Tensor, like: Tensor) -> bool:
    try:
        one, other = (t.detach().cpu().double().expand(like.shape) for t in (first, second))
    except RuntimeError:  # of another shape, such as baselines of an embedding
        return False
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6)
