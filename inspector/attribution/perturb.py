"""Perturbation methods: what happens to the score when parts are taken away. They need no gradient.

Many perturbed copies of the batch share one pass, as many as the memory budget holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from inspector.attribution.question import Question, Slot

Values = tuple[Tensor, ...]
Mask = Tensor  # bool, the shape of one sample's values or of the whole batch's: True is taken away


def occlusion(question: Question, *, sliding_window_shapes: Any = None, strides: Any = None) -> Values:
    """The score lost when a window is replaced by the baseline, averaged over windows (Zeiler and Fergus 2014).

    sliding_window_shapes: without the batch axis, one per explained input; by default every channel and about a seventh
    of each axis of positions. strides: by default half a window.
    """
    windows = [_window(shape, slot, v) for shape, slot, v in each(question, sliding_window_shapes)]
    steps = [_steps(given, w) for (given, _, _), w in zip(each(question, strides), windows, strict=True)]
    masks = [_windows(v, w, s) for v, w, s in zip(question.values, windows, steps, strict=True)]
    return taken_away(question, masks, average=True)


def taken_away(question: Question, masks: Sequence[Callable[[], Iterator[Mask]]], *, average: bool) -> Values:
    with torch.no_grad():
        whole = question.weighed(question.values)
        return tuple(_one_slot(question, i, make, whole, average) for i, make in enumerate(masks))


def _one_slot(question: Question, i: int, make: Callable[[], Iterator[Mask]], whole: Tensor, average: bool) -> Tensor:
    value = question.values[i]
    lost = torch.zeros_like(value, dtype=torch.promote_types(value.dtype, whole.dtype))
    count = torch.zeros_like(lost)
    for masks in chunks(make(), question.copies()):
        score = perturbed(question, i, masks)
        taken = torch.stack([mask.expand_as(value) for mask in masks])
        change = (whole - score).reshape(len(masks), -1, *[1] * (value.dim() - 1))
        lost += (change * taken).sum(0)
        count += taken.sum(0)
    return (lost / count.clamp(min=1) if average else lost).to(value.dtype)


def perturbed(question: Question, i: int, masks: Sequence[Mask]) -> Tensor:
    """(masks, batch) scores with each mask's elements of slot ``i`` replaced by the baseline."""
    value, base = question.values[i], question.baselines[i]
    changed = torch.cat([torch.where(mask, base, value) for mask in masks])
    others = [v.repeat(len(masks), *[1] * (v.dim() - 1)) for v in question.values]
    return question.score(*others[:i], changed, *others[i + 1 :]).reshape(len(masks), -1)


def chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most ``size`` items."""
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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


def _windows(value: Tensor, window: tuple[int, ...], steps: tuple[int, ...]) -> Callable[[], Iterator[Mask]]:
    shape = value.shape[1:]
    counts = [-(-(n - w) // s) + 1 for n, w, s in zip(shape, window, steps, strict=True)]

    def make() -> Iterator[Mask]:
        for corner in torch.cartesian_prod(*[torch.arange(c) for c in counts]).reshape(-1, len(counts)).tolist():
            mask = torch.zeros(shape, dtype=torch.bool, device=value.device)
            mask[tuple(slice(c * s, c * s + w) for c, s, w in zip(corner, steps, window, strict=True))] = True
            yield mask

    return make
