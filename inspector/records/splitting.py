"""From arrays of one's own to two halves that share no sample: checked at the door, split class by class.

The scale comes from the training half alone: a mean over everything would tell the model about the test.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_inputs(values: Any) -> Tensor:
    """An array of any kind as a tensor, float64 as float32; ValueError where it is empty, ragged or not finite."""
    try:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        advice = "pad sequences of different lengths to one and give valid=, a bool mask (samples, time)"
        raise ValueError(f"inputs are no array of numbers ({error}); {advice}") from error
    if tensor.dim() < 2 or not tensor.numel():
        raise ValueError(
            f"inputs have shape {tuple(tensor.shape)}; give (samples, features), (samples, time, features), ..."
        )
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        bad = (~tensor.isfinite()).flatten(1).any(1).nonzero().flatten()
        raise ValueError(
            f"{len(bad)} of {len(tensor)} inputs hold NaN or Inf, first at row {int(bad[0])}; fill or drop them"
        )
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def as_mask(valid: Any, inputs: Tensor) -> Tensor:
    """A mask (samples, time) of the sequences; ValueError where it has another shape or is not bool."""
    mask = torch.as_tensor(valid)
    if mask.shape != inputs.shape[:2]:
        raise ValueError(f"valid has shape {tuple(mask.shape)} but the inputs {tuple(inputs.shape)}; give (samples, time)")
    if mask.dtype != torch.bool:
        raise ValueError(f"valid must be a bool mask, not {mask.dtype}; write valid > 0")
    return mask


def as_labels(values: Any, size: int, classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as (samples,) class indices with the classes' names; text is numbered in sorted order.

    Raises ValueError for another length, for NaN and fractions, and for indices outside the classes.
    """
    labels = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if labels.shape != (size,):
        raise ValueError(f"labels have shape {labels.shape} but there are {size} inputs; give one label per sample")
    if labels.dtype.kind not in "biuf":
        return _numbered([str(label) for label in labels], classes)
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        raise ValueError(f"labels must be class indices or names, not {labels[labels != np.round(labels)][0]}")
    low, high = int(labels.min()), int(labels.max())
    count = len(classes) if classes is not None else high + 1
    if low < 0 or high >= count:
        raise ValueError(f"labels go from {low} to {high} but {count} classes count from 0 to {count - 1}")
    names = tuple(classes) if classes is not None else tuple(str(i) for i in range(count))
    return torch.from_numpy(labels.astype(np.int64)), names


def _numbered(labels: list[str], classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    names = tuple(classes) if classes is not None else tuple(sorted(set(labels)))
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise ValueError(f"labels hold {unknown[0]!r} but the classes are {', '.join(names)}")
    return torch.tensor([names.index(label) for label in labels]), names


def stratified(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers of two halves, in order: the second has ``share`` of every class as nearly as can be.

    Raises ValueError where a class has fewer than two samples.
    """
    if not 0 < share < 1:
        raise ValueError(f"the held-out share must lie between 0 and 1, not {share}")
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in _shares(labels, share).items():
        rows = (labels == label).nonzero().flatten()
        held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _shares(labels: Tensor, share: float) -> dict[int, int]:
    """How many of each class to hold: rounded down, and the rest to those that lost most by it."""
    sizes = Counter(sorted(labels.tolist()))
    if min(sizes.values()) < 2:
        raise ValueError(f"class {min(sizes, key=sizes.__getitem__)} has one sample, but both halves need one: drop or add")
    exact = {label: share * size for label, size in sizes.items()}
    held = {label: math.floor(wanted) for label, wanted in exact.items()}
    left = round(share * len(labels)) - sum(held.values())
    for label in sorted(exact, key=lambda label: held[label] - exact[label])[:left]:
        held[label] += 1
    return {label: min(max(count, 1), sizes[label] - 1) for label, count in held.items()}


def scale_of(inputs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature (channel, for images), shaped to apply to a batch; a constant's deviation is 1."""
    axis = 1 if inputs.dim() == 4 else inputs.dim() - 1
    rows = inputs.movedim(axis, -1)
    rows = rows[valid] if valid is not None else rows.reshape(-1, rows.shape[-1])
    deviation, mean = torch.std_mean(rows.double(), dim=0, correction=0)
    deviation = torch.where(deviation > 1e-7 * mean.abs(), deviation, 1.0).to(inputs.dtype)
    shape = [-1 if i == axis else 1 for i in range(inputs.dim())]
    return mean.to(inputs.dtype).view(shape), deviation.view(shape)
