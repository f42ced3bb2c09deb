"""A map laid on the inputs: its positions flattened into one row a sample, and masks of them carried back.

Ranks are masks: which positions stay is one bool tensor for many steps at once, so that a whole deletion curve is a
few forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from inspector.attribution import METHODS
from inspector.records import Attribution
from inspector.tensors import Leaf, parts, rebuild, shape_text, walk


@dataclass(frozen=True)
class Area:
    """The positions that one input contributes: the axes of that input that are positions, and where they start."""

    leaf: Leaf
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def spread(self, mask: Tensor, inputs: Tensor) -> Tensor:
        """(copies, positions of all areas) -> a mask that broadcasts over ``inputs``."""
        own = mask[:, self.start : self.start + self.size]
        sizes = [inputs.shape[axis] if axis in self.axes else 1 for axis in range(1, inputs.dim())]
        return own.reshape(len(mask), *sizes)


@dataclass(frozen=True)
class Surface:
    """heat: (batch, positions), signed, 0 where padded; valid: (batch, positions), False is padding."""

    heat: Tensor
    valid: Tensor
    areas: tuple[Area, ...]
    inputs: Any

    @cached_property
    def count(self) -> Tensor:
        """(batch,) how many positions are no padding."""
        return self.valid.sum(1)

    @cached_property
    def whole(self) -> bool:
        """Whether nothing is padding."""
        return bool(self.valid.all())

    @cached_property
    def broken(self) -> Tensor:
        """(batch,) True where the map holds a NaN or Inf, so that nothing can be said of it."""
        return ~torch.isfinite(self.heat).all(1)

    @cached_property
    def rank(self) -> Tensor:
        """(batch, positions) 0 is the most relevant, padding comes last. Ties are broken by one shuffle of the positions
        that is the same for every map, because their natural order would favour the top left corner."""
        return descending(self.heat, self.valid)

    def changed(self, keep: Tensor, rows: Tensor, base: dict[Leaf, Tensor]) -> Any:
        """The inputs of the samples ``rows`` (n,) with ``base`` where ``keep`` (n, positions) is False; padding stays as it
        is."""
        kept = keep if self.whole else keep | ~self.valid[rows]
        areas = {area.leaf: area for area in self.areas}

        def change(leaf: Leaf, tensor: Tensor) -> Tensor:
            if not tensor.dim():
                return tensor
            own = rows.to(tensor.device)
            if leaf not in areas:
                return tensor.index_select(0, own)
            mask = areas[leaf].spread(kept, tensor).to(tensor.device)
            other = base[leaf].expand_as(tensor)
            other = other[:1] if other.stride(0) == 0 else other.index_select(0, own)
            return torch.where(mask, tensor.index_select(0, own), other)

        return rebuild(self.inputs, change)

    def matters(self, base: dict[Leaf, Tensor]) -> Tensor:
        """(batch, positions) True where an input is not already what it would be removed to."""
        found = []
        for area in self.areas:
            tensor = dict(walk(self.inputs))[area.leaf]
            others = [axis for axis in range(1, tensor.dim()) if axis not in area.axes]
            other = tensor != base[area.leaf]
            seen = (other.any(others) if others else other).reshape(len(tensor), -1)  # ids have one axis alone
            found.append(seen.to(self.valid.device))
        return torch.cat(found, 1) & self.valid


def descending(heat: Tensor, valid: Tensor) -> Tensor:
    """(batch, positions) ranks, 0 for the largest; ties by a fixed shuffle of the positions, not-valid ones last."""
    shuffle = torch.randperm(heat.shape[1], generator=torch.Generator().manual_seed(0)).to(heat.device)
    shuffled = heat.masked_fill(~valid, -torch.inf).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)[
        :, shuffle
    ]
    padded_last = torch.argsort((~valid[:, shuffle]).to(torch.int8), dim=1, stable=True)
    by_heat = torch.argsort(shuffled.gather(1, padded_last), dim=1, descending=True, stable=True)
    order = shuffle[padded_last.gather(1, by_heat)]
    places = torch.arange(heat.shape[1], device=heat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def surface(attribution: Attribution) -> Surface:
    """Lay a map on the inputs of its samples, on the CPU in double precision. Raises ValueError where it has no positions
    there."""
    heats = [heat.detach().cpu().double() for heat in _input_heats(attribution)]
    areas = tuple(_areas(attribution, heats))
    valid = torch.cat([mask.flatten(1) for mask in _valid(attribution, heats)], 1)
    return Surface(torch.cat([heat.flatten(1) for heat in heats], 1), valid, areas, attribution.samples.inputs)


def _input_heats(attribution: Attribution) -> tuple[Tensor, ...]:
    """One map for each explained input; one of a layer is brought to the positions of the input."""
    values, row = attribution.values, METHODS.get(attribution.method)
    inside = attribution.layer is not None and not (row is not None and row.helped)
    if inside and isinstance(values, Tensor) and values.dim() == 2:
        raise ValueError(
            f"{attribution.method} at {attribution.layer!r} explains {values.shape[1]} inner units, which are no "
            "positions of the inputs; choose a layer with spatial or time axes, or a method that explains the inputs"
        )
    try:
        return attribution.heats if len(list(walk(values))) > 1 else (attribution.input_heat,)
    except ValueError as error:
        raise ValueError(f"{attribution.method} cannot be laid on the inputs: {error}") from error


def _valid(attribution: Attribution, heats: Sequence[Tensor]) -> list[Tensor]:
    """For each map where it is no padding."""
    valid, masks = attribution.samples.valid, attribution.valid_at(heats)
    if valid is not None and all(mask is None for mask in masks):
        positions = " and ".join(shape_text(heat) for heat in heats)
        raise ValueError(f"valid {shape_text(valid)} does not fit the map's positions {positions}")
    return [torch.ones_like(h, dtype=torch.bool) if m is None else m.cpu() for h, m in zip(heats, masks, strict=True)]


def _areas(attribution: Attribution, heats: Sequence[Tensor]) -> Iterator[Area]:
    start = 0
    for leaf, axes in _explained(attribution, heats):
        tensor = dict(walk(attribution.samples.inputs))[leaf]
        area = Area(leaf, axes, tuple(tensor.shape[axis] for axis in axes), start)
        start += area.size
        yield area
    positions = sum(heat[0].numel() for heat in heats)
    if start != positions:
        raise ValueError(f"{attribution.method} has {positions} positions, but the inputs that it explains have {start}")


def _explained(attribution: Attribution, heats: Sequence[Tensor]) -> Iterator[tuple[Leaf, tuple[int, ...]]]:
    """The inputs that the map is about, each with the axes that are its positions."""
    free, named = _candidates(attribution), isinstance(attribution.values, Mapping) or "explain" not in attribution.options
    for (leaf, values), own, heat in zip(walk(attribution.values), _own_axes(attribution), heats, strict=True):
        sizes = () if own == () or values.dim() == 1 else tuple(heat.shape[1:])  # one category has no axis
        wanted = {leaf: free[leaf]} if named and leaf in free else free
        found = [(name, axes) for name, t in wanted.items() if (axes := _fitting(t, values, own, sizes)) is not None]
        if not found:
            raise ValueError(f"{attribution.method} has positions {sizes}, which no input of the samples has")
        del free[found[0][0]]
        yield found[0]


def _own_axes(attribution: Attribution) -> list[tuple[int, ...] | None]:
    """For each part of the values the axes of its input, where they are known."""
    if isinstance(attribution.values, Tensor):
        return [attribution.axes if attribution.layer is None else attribution.input_axes]
    return [item for _, item in parts(attribution.axes)]


def _fitting(tensor: Tensor, values: Tensor, own: tuple[int, ...] | None, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of an input that are the map's positions: its own where it says so, else those of these sizes."""
    if own is not None and all(-tensor.dim() <= axis < tensor.dim() for axis in own):
        axes = tuple(sorted(axis % tensor.dim() for axis in own))
        if tuple(tensor.shape[axis] for axis in axes) == sizes:
            return axes
    return axes_of(tensor, sizes)


def _candidates(attribution: Attribution) -> dict[Leaf, Tensor]:
    """The inputs that may have been explained, likeliest first: those asked for; else floating ones, then ids, then what
    holds nothing but 0 and 1 and so is rather a mask."""
    inputs = {leaf: t for leaf, t in walk(attribution.samples.inputs) if t.dim() and t.dtype != torch.bool}
    asked = attribution.options.get("explain")
    keys = list(asked) if isinstance(asked, (list, tuple, set)) else [asked]
    chosen = {leaf: t for leaf, t in inputs.items() if leaf in keys or (leaf and leaf[0] in keys)}
    if chosen:
        return chosen
    return dict(
        sorted(inputs.items(), key=lambda item: 0 if item[1].is_floating_point() else 1 + bool((item[1] <= 1).all()))
    )


def axes_of(tensor: Tensor, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of an input that have these sizes: pixels come last in images, steps and features first elsewhere."""
    last, first = range(tensor.dim() - len(sizes), tensor.dim()), range(1, 1 + len(sizes))
    for axes in (last, first) if tensor.dim() >= 4 else (first, last):
        if axes.start > 0 and axes.stop <= tensor.dim() and tuple(tensor.shape[axis] for axis in axes) == sizes:
            return tuple(axes)
    return None
