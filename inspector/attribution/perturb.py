"""Perturbation methods: what happens to the score when parts are taken away. They need no gradient.

Many perturbed copies of the batch share one pass, as many as the memory budget holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inspector.attribution.layout import Layout, faster
from inspector.attribution.question import Question, Slot

Values = tuple[Tensor, ...]


class Masks(NamedTuple):
    """``total`` masks; ``make(start, n)`` answers n of them, bool (n, ...) like one sample's values or (n, batch, ...), True
    where something is taken away."""

    total: int
    make: Callable[[int, int], Tensor]


def occlusion(question: Question, *, sliding_window_shapes: Any = None, strides: Any = None) -> Values:
    """The score lost when a window is replaced by the baseline, averaged over windows (Zeiler and Fergus 2014).

    sliding_window_shapes: without the batch axis, one per explained input; by default every channel and about a seventh
    of each axis of positions. strides: by default half a window.
    """
    windows = [_window(shape, slot, v) for shape, slot, v in each(question, sliding_window_shapes)]
    steps = [_steps(given, w) for (given, _, _), w in zip(each(question, strides), windows, strict=True)]
    masks = [_windows(v, w, s) for v, w, s in zip(question.values, windows, steps, strict=True)]
    return taken_away(question, masks, average=True)


def taken_away(question: Question, masks: Sequence[Masks], *, average: bool) -> Values:
    with torch.no_grad():
        whole = question.weighed(question.values)
        runs = max((own.total for own in masks), default=0)
        runs = runs if runs > question.copies() else 1  # in one pass
        lay = faster(question.values, runs, whole, lambda values: question.score(*values))
        return tuple(_one_slot(question, i, own, whole, average, lay) for i, own in enumerate(masks))


def _one_slot(question: Question, i: int, masks: Masks, whole: Tensor, average: bool, lay: Layout) -> Tensor:
    value = question.values[i]
    lost = torch.zeros_like(value, dtype=torch.promote_types(value.dtype, whole.dtype))
    count = torch.zeros_like(lost)
    for start, n in question.parts(masks.total):
        taken = masks.make(start, n)
        taken = taken if taken.dim() > value.dim() else taken[:, None]
        change = whole - _scores(question, i, taken, lay)
        lost += _spread(change, taken.to(lost.dtype))
        count += taken.sum(0)
    return (lost / count.clamp(min=1) if average else lost).to(value.dtype)


def _scores(question: Question, i: int, taken: Tensor, lay: Layout) -> Tensor:
    """(masks, batch) scores with each mask's elements of slot ``i`` replaced by the baseline."""
    changed = torch.where(taken, question.baselines[i], question.values[i]).flatten(0, 1)
    others = [v.repeat(len(taken), *[1] * (v.dim() - 1)) for j, v in enumerate(question.values) if j != i]
    return question.score(*lay((*others[:i], changed, *others[i:]))).reshape(len(taken), -1)


def _spread(change: Tensor, taken: Tensor) -> Tensor:
    """(batch, ...) the changes (masks, batch) summed where the masks lie; one product where all samples share the masks."""
    if taken.shape[1] == 1:
        return (change.T @ taken.flatten(1)).reshape(-1, *taken.shape[2:])
    return (change.reshape(*change.shape, *[1] * (taken.dim() - 2)) * taken).sum(0)


def each(question: Question, given: Any) -> list[tuple[Any, Slot, Tensor]]:
    """An option per slot: one for all, or a tuple or dict of one each."""
    count = len(question.slots)
    several = count > 1 and isinstance(given, (tuple, list)) and len(given) == count
    parts = list(given) if several else [given] * count
    if isinstance(given, dict):
        parts = [given.get(slot.leaf[0]) for slot in question.slots]
    return list(zip(parts, question.slots, question.values, strict=True))


def _window(given: Any, slot: Slot, value: Tensor) -> tuple[int, ...]:
    shape = value.shape[1:]
    if given is None:
        positions = slot.positions or ()
        return tuple(max(1, -(-n // 7)) if axis in positions else n for axis, n in enumerate(shape, start=1))
    window: tuple[int, ...] = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if len(window) != len(shape) or any(not 1 <= w <= n for w, n in zip(window, shape, strict=True)):
        raise ValueError(f"sliding_window_shapes={given} does not fit {slot.name}, which is {tuple(shape)} per sample")
    return window


def _steps(given: Any, window: tuple[int, ...]) -> tuple[int, ...]:
    if given is None:
        return tuple(max(1, n // 2) for n in window)
    steps = (given,) * len(window) if isinstance(given, int) else tuple(given)
    if len(steps) != len(window) or any(not 1 <= s <= w for s, w in zip(steps, window, strict=True)):
        raise ValueError(f"strides={given} needs a step from 1 to the window {window} on each axis, or parts are skipped")
    return steps


def _windows(value: Tensor, window: tuple[int, ...], steps: tuple[int, ...]) -> Masks:
    counts = [-(-(n - w) // s) + 1 for n, w, s in zip(value.shape[1:], window, steps, strict=True)]
    inside = []  # per axis: (corners, positions)
    for n, w, s, c in zip(value.shape[1:], window, steps, counts, strict=True):
        distance = torch.arange(n)[None] - s * torch.arange(c)[:, None]
        inside.append(((distance >= 0) & (distance < w)).to(value.device))
    along = [torch.arange(c) for c in counts]
    corners = torch.cartesian_prod(*along).reshape(-1, len(counts)) if counts else torch.zeros(1, 0)  # one number

    def make(start: int, n: int) -> Tensor:
        mask = torch.ones(n, *[1] * len(counts), dtype=torch.bool, device=value.device)
        for axis, (own, corner) in enumerate(zip(inside, corners[start : start + n].T, strict=True)):
            mask = mask & own[corner].reshape(n, *[-1 if a == axis else 1 for a in range(len(counts))])
        return mask.expand(n, *value.shape[1:])

    return Masks(len(corners), make)
