"""A map laid on the inputs: its positions flattened into one row a sample, and masks of them carried back.

Ranks are masks: which positions stay is one bool tensor for many steps at once, so that a whole deletion curve is a
few forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
        kept, areas = keep | ~self.valid[rows], {area.leaf: area for area in self.areas}

        def change(leaf: Leaf, tensor: Tensor) -> Tensor:
            if not tensor.dim():
                return tensor
            own = rows.to(tensor.device)
            if leaf not in areas:
                return tensor[own]
            mask = areas[leaf].spread(kept, tensor).to(tensor.device)
            return torch.where(mask, tensor[own], base[leaf].expand_as(tensor)[own])

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
    heat = _input_heat(attribution).detach().cpu().double()
    areas = tuple(_areas(attribution, heat))
    flat = heat.flatten(1)
    return Surface(flat, _valid(attribution, heat).flatten(1), areas, attribution.samples.inputs)


def _input_heat(attribution: Attribution) -> Tensor:
    values, row = attribution.values, METHODS.get(attribution.method)
    inside = attribution.layer is not None and not (row is not None and row.helped)
    if inside and isinstance(values, Tensor) and values.dim() == 2:
        raise ValueError(
            f"{attribution.method} at {attribution.layer!r} explains {values.shape[1]} inner units, which are no "
            "positions of the inputs; choose a layer with spatial or time axes, or a method that explains the inputs"
        )
    try:
        return attribution.input_heat
    except ValueError as error:
        raise ValueError(f"{attribution.method} cannot be laid on the inputs: {error}") from error


def _valid(attribution: Attribution, heat: Tensor) -> Tensor:
    valid = attribution.samples.valid
    if valid is None:
        return torch.ones_like(heat, dtype=torch.bool)
    if valid.shape[1:] != heat.shape[1 : valid.dim()]:
        raise ValueError(f"valid {shape_text(valid)} does not fit the map's positions {shape_text(heat)}")
    wide = valid.reshape(valid.shape + (1,) * (heat.dim() - valid.dim())).expand_as(heat)
    return wide.to(heat.device)


def _areas(attribution: Attribution, heat: Tensor) -> Iterator[Area]:
    start = 0
    for leaf, axes in _explained(attribution, heat):
        tensor = dict(walk(attribution.samples.inputs))[leaf]
        area = Area(leaf, axes, tuple(tensor.shape[axis] for axis in axes), start)
        start += area.size
        yield area
    if start != heat[0].numel():
        raise ValueError(
            f"{attribution.method} has {heat[0].numel()} positions, but the inputs that it explains have {start}"
        )


def _explained(attribution: Attribution, heat: Tensor) -> Iterator[tuple[Leaf, tuple[int, ...]]]:
    """The inputs that the map is about, each with the axes that are its positions."""
    free, named = _candidates(attribution), isinstance(attribution.values, Mapping) or "explain" not in attribution.options
    for leaf, sizes in _position_sizes(attribution, heat):
        wanted = {leaf: free[leaf]} if named and leaf in free else free
        found = [(name, axes) for name, tensor in wanted.items() if (axes := axes_of(tensor, sizes)) is not None]
        if not found:
            raise ValueError(f"{attribution.method} has positions {sizes}, which no input of the samples has")
        del free[found[0][0]]
        yield found[0]


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


def _position_sizes(attribution: Attribution, heat: Tensor) -> list[tuple[Leaf, tuple[int, ...]]]:
    """How many positions each part of the map has along each of its axes, under the name it has in the values."""
    values = list(walk(attribution.values))
    if attribution.layer is not None or len(values) == 1:
        return [(values[0][0], tuple(heat.shape[1:]))]
    axes = [item for _, item in parts(attribution.axes)]
    return [(leaf, tuple(t.shape[axis] for axis in own)) for (leaf, t), own in zip(values, axes, strict=True)]


def axes_of(tensor: Tensor, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of an input that have these sizes: pixels come last in images, steps and features first elsewhere."""
    last, first = range(tensor.dim() - len(sizes), tensor.dim()), range(1, 1 + len(sizes))
    for axes in (last, first) if tensor.dim() >= 4 else (first, last):
        if axes.start > 0 and axes.stop <= tensor.dim() and tuple(tensor.shape[axis] for axis in axes) == sizes:
            return tuple(axes)
    return None
