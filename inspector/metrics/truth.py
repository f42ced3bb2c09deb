"""The evidence laid on the positions of a map: one mask for all of them, or one for each input that was explained."""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.metrics.surface import Area, Surface, axes_of
from inspector.records import Samples
from inspector.tensors import Leaf, format_leaf, shape_text, walk


def truth_of(laid: Surface, samples: Samples) -> tuple[Tensor, Tensor]:
    """(batch, positions) twice, on the CPU: where the evidence lies, and of which positions anything is known.

    Raises ValueError where there is no evidence, or where it has other positions than the map.
    """
    if samples.evidence is None:
        raise ValueError("the samples carry no evidence; give Samples(inputs, evidence=mask) with True where the truth lies")
    if isinstance(samples.evidence, Tensor) and len(laid.areas) > 1:
        return _of_all(samples.evidence, laid)
    masks = [samples.evidence_at(area.leaf) for area in laid.areas]
    if all(mask is None for mask in masks):
        there = ", ".join(format_leaf(leaf) for leaf, _ in walk(samples.evidence))
        explained = ", ".join(format_leaf(area.leaf) for area in laid.areas)
        raise ValueError(
            f"the evidence is that of {there}, but the map is about {explained}; explain an input that has some"
        )
    both = list(zip(laid.areas, masks, strict=True))
    truth = [_on(area, mask, len(laid.heat), _name(samples, area.leaf)) for area, mask in both]
    known = [torch.full((len(laid.heat), area.size), mask is not None) for area, mask in both]
    return torch.cat(truth, 1), torch.cat(known, 1)


def check_masks(samples: Samples) -> None:
    """Raises ValueError where evidence or ``valid`` lies on no axes of its input, or on either of two. One mask of several
    inputs is held against the map."""
    for leaf, mask, given in _masks(samples):
        sizes = tuple(mask.shape[1:])
        what = f"{_name(samples, leaf)} {shape_text(mask)} does not lie on the input {shape_text(given)}"
        if not _lies_on(given, sizes):
            raise ValueError(f"{what}; give one value per position: a pixel, a step, a token or a feature")
        if given.dim() >= 4 and len(sizes) == 1 and given.shape[1:].count(sizes[0]) > 1:
            raise ValueError(f"{what} in one way alone; give one value per pixel, batch axis first")
    valid, inputs = samples.valid, [t for _, t in walk(samples.inputs) if t.dim()]
    if valid is not None and not any(_lies_on(given, tuple(valid.shape[1:])) for given in inputs):
        there = ", ".join(map(shape_text, inputs))
        raise ValueError(f"valid {shape_text(valid)} does not lie on the inputs {there}; give one value per step or token")


def counts_channels(samples: Samples) -> str:
    """The mask that tells the channels of a position apart, in words; "" where none does."""
    wide = [(leaf, mask) for leaf, mask, given in _masks(samples) if mask.shape == given.shape and given.dim() > 2]
    return f"{_name(samples, wide[0][0])} {shape_text(wide[0][1])}" if wide else ""


def check_axes(samples: Samples, axes: tuple[int, ...]) -> None:
    """Raises ValueError where a map of the only input by ``axes`` would have other positions than the evidence."""
    for leaf, mask, given in _masks(samples) if len(list(walk(samples.inputs))) == 1 else []:
        shape = tuple(given.shape[axis] for axis in sorted(axis % given.dim() for axis in axes))
        _on(Area(leaf, axes, shape, 0), mask, len(given), _name(samples, leaf))


def _lies_on(given: Tensor, sizes: tuple[int, ...]) -> bool:
    """Whether an input has positions of these sizes; one of a single axis has one position, with or without an axis."""
    return sizes in ((), (1,)) if given.dim() == 1 else bool(sizes) and axes_of(given, sizes) is not None


def _name(samples: Samples, leaf: Leaf) -> str:
    return "evidence" + ("" if isinstance(samples.evidence, Tensor) else format_leaf(leaf))


def _masks(samples: Samples) -> list[tuple[Leaf, Tensor, Tensor]]:
    """Each mask whose input is known, with its leaf and the input."""
    tensors = {leaf: t for leaf, t in walk(samples.inputs) if t.dim() and t.dtype != torch.bool}
    if isinstance(samples.evidence, Tensor):
        return [(leaf, samples.evidence, given) for leaf, given in tensors.items()] if len(tensors) == 1 else []
    return [(leaf, mask, tensors[leaf]) for leaf, mask in walk(samples.evidence) if leaf in tensors]


def _of_all(mask: Tensor, laid: Surface) -> tuple[Tensor, Tensor]:
    if mask.flatten(1).shape != laid.heat.shape or mask.dim() != 2:
        explained = ", ".join(f"{format_leaf(area.leaf)} {_shape(area, len(laid.heat))}" for area in laid.areas)
        raise ValueError(
            f"evidence {shape_text(mask)} does not say which of the inputs it is of: {explained}; give one mask for each, "
            "nested as the inputs are, None for one that is not known"
        )
    return mask.cpu(), torch.ones_like(mask, device="cpu")


def _on(area: Area, mask: Tensor | None, size: int, name: str) -> Tensor:
    """(batch, positions of the area)."""
    if mask is None:
        return torch.zeros(size, area.size, dtype=torch.bool)
    if tuple(mask.shape[1:]) != area.shape and (area.shape or mask.shape[1:] != (1,)):
        raise ValueError(
            f"{name} {shape_text(mask)} does not fit the map's positions {_shape(area, size)}" + _cure(area, mask)
        )
    return mask.flatten(1).cpu() if mask.dim() > 1 else mask[:, None].cpu()


def _cure(area: Area, mask: Tensor) -> str:
    """What to do where only one of the two counts channels."""
    wide = tuple(mask.shape[1:])
    if len(wide) == len(area.shape) + 1 > 1 and (wide[1:] == area.shape or wide[:-1] == area.shape):
        axis = 1 if wide[1:] == area.shape else mask.dim() - 1
        every = tuple(range(1, mask.dim()))
        return f", which count no channels; give evidence.any({axis}), or a map of channels by axes={every}"
    if wide and area.shape[1:] == wide:
        return ", which count channels; leave axes out, or give evidence[:, None].expand(-1, " + f"{area.shape[0]}, ...)"
    return ""


def _shape(area: Area, size: int) -> str:
    return "x".join(map(str, (size, *area.shape)))
