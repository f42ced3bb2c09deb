"""CAMs that need no gradient: each channel's weight is what happens to the score when it is taken away, or alone is left.

Each needs a run per channel, so they are batched, and cost as many examples as there are channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from inspector.attribution.question import Question
from inspector.attribution.seen import Seen, once
from inspector.hooks import Where, edit
from inspector.sites import Kind, Site
from inspector.tensors import shape_text


def ablation_cam(question: Question, where: Where, *, kinds: Sequence[Kind] = ("output",)) -> dict[Site, Seen]:
    """Activations weighted by the score lost without the channel (Desai and Ramaswamy 2020); not divided by the score,
    which may be negative."""
    with torch.no_grad():
        found = _looked(question, where, kinds)
        whole = question.weighed(question.values)
        return {site: _weighted(seen, whole - _without(question, seen)) for site, seen in found.items()}


def score_cam(question: Question, where: Where, *, kinds: Sequence[Kind] = ("output",)) -> dict[Site, Seen]:
    """Activations weighted by the softmax of the scores of the input masked with each channel (Wang et al. 2020)."""
    if len(question.slots) != 1 or not question.slots[0].positions:
        raise ValueError("score_cam masks one input that has positions, such as an image or a sequence; take grad_cam")
    with torch.no_grad():
        found = _looked(question, where, kinds)
        question.weighed(question.values)
        return {site: _weighted(seen, _masked(question, seen).softmax(0)) for site, seen in found.items()}


def _looked(question: Question, where: Where, kinds: Sequence[Kind]) -> dict[Site, Seen]:
    found = once(question, where, kinds=kinds, gradient=False)
    fit = {site: seen for site, seen in found.items() if _channel(seen) is not None}
    if found and not fit:
        site, seen = next(iter(found.items()))
        raise ValueError(
            f"{site} ({shape_text(seen.activation)}) has not one axis of channels beside axes of positions, so there are no "
            "maps to weigh; choose a convolutional or sequence layer, or take gradient_x_activation"
        )
    return fit


def _channel(seen: Seen) -> int | None:
    """The one axis that is neither batch nor position, or None."""
    others = [axis for axis in range(1, seen.activation.dim()) if axis not in (seen.positions or ())]
    return others[0] if len(others) == 1 and seen.positions else None


def _channels_first(seen: Seen) -> Tensor:
    channel = _channel(seen)
    assert channel is not None  # kept by _looked
    return seen.activation.movedim(channel, 1)


def _weighted(seen: Seen, weights: Tensor) -> Seen:
    """weights: (channels, batch)."""
    channel = _channel(seen)
    assert channel is not None  # kept by _looked
    shape = [len(weights) if axis == channel else n if axis == 0 else 1 for axis, n in enumerate(seen.activation.shape)]
    seen.activation = (seen.activation * weights.T.reshape(shape)).sum(channel, keepdim=True)
    return seen


def _without(question: Question, seen: Seen) -> Tensor:
    """(channels, batch) scores with each channel set to zero."""
    channel, count = _channel(seen), _channels_first(seen).shape[1]
    rows = []
    for start, n in question.parts(count):
        keep = 1 - torch.eye(count)[start : start + n].repeat_interleave(question.size, 0)
        shape = [len(keep) if a == 0 else count if a == channel else 1 for a in range(seen.activation.dim())]
        mask = keep.reshape(shape).to(seen.activation).movedim(0, seen.axis)
        values = [v.repeat(n, *[1] * (v.dim() - 1)) for v in question.values]
        with edit(question.model, {seen.site: partial(torch.mul, mask)}):
            rows.append(question.score(*values).reshape(n, -1))
    return torch.cat(rows)


def _masked(question: Question, seen: Seen) -> Tensor:
    """(channels, batch) scores of the input times each channel's activation, scaled to 0..1 and to the input's size."""
    value, positions = question.values[0], question.slots[0].positions or ()
    maps = _channels_first(seen)
    if maps.dim() - 2 != len(positions):
        raise ValueError(f"{seen.site} has other positions than the input, so it cannot mask it; take grad_cam")
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(positions)]
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))  # half types are not interpolated on the CPU
    maps = F.interpolate(maps, size=[value.shape[axis] for axis in positions], mode=mode).to(value.dtype)
    flat = maps.flatten(2)
    low, high = flat.amin(2), flat.amax(2)
    flat = (flat - low[..., None]) / (high - low + 1e-8)[..., None]
    shape = [value.shape[axis] if axis in positions else 1 for axis in range(1, value.dim())]
    masks = flat.movedim(1, 0).reshape(flat.shape[1], len(value), *shape)
    rows = [question.score((value * masks[s : s + n]).flatten(0, 1)).reshape(n, -1) for s, n in question.parts(len(masks))]
    return torch.cat(rows)
