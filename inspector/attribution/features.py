"""Features: groups of elements that are switched on and off together, numbered over all explained inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inspector.attribution.perturb import Values, each
from inspector.attribution.question import Question, Slot

FEW = 64  # up to so many elements per sample, each is a feature of its own
CELLS = 7  # otherwise so many along each axis of positions


@dataclass
class Features:
    """numbers: per slot, each element's feature, of one sample or (batch, ...). shared: a feature's value is shared out
    among its elements, so that the values sum to it; of a mask that the user gave, each element shows it whole, as in
    Captum."""

    question: Question
    numbers: list[Tensor]
    count: int
    shared: bool

    def scores(self, on: Tensor) -> Tensor:
        """(states, batch) scores of the states (states, features), True where a feature is there and not the baseline."""
        rows = [self._scores(on[start : start + n]) for start, n in self.question.parts(len(on))]
        return torch.cat(rows)

    def _scores(self, on: Tensor) -> Tensor:
        q, values = self.question, []
        for value, base, numbers in zip(q.values, q.baselines, self.numbers, strict=True):
            there = on.to(value.device)[:, numbers].reshape(len(on), -1, *value.shape[1:])
            values.append(torch.where(there, value, base).flatten(0, 1))
        return q.score(*values).reshape(len(on), -1)

    def ends(self) -> tuple[Tensor, Tensor]:
        """(batch,) the scores with everything there and with nothing there."""
        both = [torch.cat([v, b]) for v, b in zip(self.question.values, self.question.baselines, strict=True)]
        here, there = self.question.weighed(both).chunk(2)
        return here, there

    def each_own(self, solve: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """(batch, features) worth by ``solve(features, samples)``, which gets the indices of the features that some samples
        have and of these samples, and answers with (samples, features): a segment that an image does not have is no part
        of its regression, and worth nothing."""
        there = self._present()
        patterns, which = torch.unique(there, dim=0, return_inverse=True)
        worth = torch.zeros(there.shape, dtype=torch.float64)
        for i, pattern in enumerate(patterns):
            own, samples = pattern.nonzero()[:, 0], (which == i).nonzero()[:, 0]
            worth[samples[:, None], own] = solve(own, samples)
        return worth

    def _present(self) -> Tensor:
        """(batch, features) which features each sample has."""
        there = torch.zeros(self.question.size, self.count, dtype=torch.bool)
        for value, numbers in zip(self.question.values, self.numbers, strict=True):
            there.scatter_(1, _by_sample(numbers, value).cpu(), True)
        return there

    def spread(self, worth: Tensor) -> Values:
        """(batch, features) as values."""
        return tuple(self._spread(worth, v, n) for v, n in zip(self.question.values, self.numbers, strict=True))

    def _spread(self, worth: Tensor, value: Tensor, numbers: Tensor) -> Tensor:
        each_sample = _by_sample(numbers, value).to(worth.device)
        if self.shared:
            ones = torch.ones_like(each_sample, dtype=worth.dtype)
            elements = torch.zeros_like(worth).scatter_add(1, each_sample, ones)  # of each sample: its segments are its own
            worth = worth / elements.clamp(min=1)
        return worth.gather(1, each_sample).reshape(value.shape).to(value.dtype)


def _by_sample(numbers: Tensor, value: Tensor) -> Tensor:
    """(batch, elements) the feature of each element."""
    return numbers.expand(value.shape).reshape(len(value), -1)


def features(question: Question, feature_mask: Any) -> Features:
    """feature_mask: integers like one sample's values or the batch's, one per explained input; None for each element, or
    for a grid over the positions where there are many elements; "elements"; "grid"; "superpixels" (needs scikit-image)."""
    numbers, count, shared = [], 0, True
    for given, slot, value in each(question, feature_mask):
        own = _automatic(given, slot, value) if given is None or isinstance(given, str) else _given(given, slot, value)
        shared = shared and (given is None or isinstance(given, str))
        _, own = torch.unique(own, return_inverse=True)
        numbers.append(own + count)
        count += int(own.max()) + 1
    return Features(question, numbers, count, shared)


def _given(given: Any, slot: Slot, value: Tensor) -> Tensor:
    mask = torch.as_tensor(given, device=value.device)
    if mask.dim() == value.dim() and mask.shape[0] == 1:
        mask = mask[0]
    try:
        whole = mask.expand(value.shape if mask.dim() == value.dim() else value.shape[1:])
    except RuntimeError:
        raise ValueError(
            f"feature_mask {tuple(mask.shape)} does not fit {slot.name}, which is {tuple(value.shape[1:])} per sample"
        ) from None
    return whole


def _automatic(word: str | None, slot: Slot, value: Tensor) -> Tensor:
    elements = torch.arange(value[0].numel(), device=value.device).reshape(value.shape[1:])
    if word == "elements" or (word is None and value[0].numel() <= FEW):
        return elements
    if word == "superpixels":
        return _superpixels(value, slot)
    if word not in (None, "grid"):
        raise ValueError(f'feature_mask={word!r} is no way to cut features; there are "elements", "grid" and "superpixels"')
    return _grid(value, slot.positions or ())


def _grid(value: Tensor, positions: Sequence[int]) -> Tensor:
    """One number per cell; axes that are no positions share it. One axis of positions is not cut: each is a feature."""
    shape = value.shape[1:]
    numbers = torch.zeros(shape, dtype=torch.long, device=value.device)
    for axis in positions:
        n = shape[axis - 1]
        cells = min(n, CELLS) if len(positions) > 1 else n
        place = (torch.arange(n, device=value.device) * cells) // n
        numbers = numbers * cells + place.reshape([-1 if a == axis else 1 for a in range(1, value.dim())])
    return numbers


def _superpixels(value: Tensor, slot: Slot) -> Tensor:
    """(batch, ...) segments by SLIC."""
    if slot.positions != (2, 3):
        raise ValueError(f'{slot.name} is no image, so it has no superpixels; take "grid"')
    try:
        from skimage.segmentation import slic
    except ImportError:
        cure = 'pip install "inspector[segments]", or take feature_mask="grid"'
        raise ImportError(f"superpixels need scikit-image: {cure}") from None
    images = value.detach().float().cpu().numpy()
    found = [torch.from_numpy(slic(i, n_segments=CELLS**2, channel_axis=0, start_label=0)) for i in images]
    return torch.stack(found)[:, None].expand(value.shape).to(value.device)


def smooth_masks(shape: Sequence[int], positions: Sequence[int], n: int, keep: float) -> Tensor:
    """(n, *shape) random masks between 0 and 1 that are smooth along the positions (RISE)."""
    if not positions:  # one category: there or not
        return (torch.rand(n, *[1] * len(shape)) < keep).float()
    lengths = [shape[axis - 1] for axis in positions]
    cells = [min(CELLS, length) for length in lengths]
    coarse = (torch.rand(n, 1, *cells) < keep).float()
    if len(lengths) <= 3 and all(length > c for length, c in zip(lengths, cells, strict=True)):
        coarse = _shifted(coarse, lengths, cells)
    return coarse[:, 0].reshape(n, *[shape[a - 1] if a in positions else 1 for a in range(1, len(shape) + 1)])


def _shifted(coarse: Tensor, lengths: Sequence[int], cells: Sequence[int]) -> Tensor:
    sizes = [-(-length // c) for length, c in zip(lengths, cells, strict=True)]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(lengths)]
    wide = F.interpolate(coarse, size=[(c + 1) * s for c, s in zip(cells, sizes, strict=True)], mode=mode)
    rows = []
    for mask in wide:
        for axis, (length, size) in enumerate(zip(lengths, sizes, strict=True), start=1):
            mask = mask.narrow(axis, int(torch.randint(size, ())), length)
        rows.append(mask)
    return torch.stack(rows)
