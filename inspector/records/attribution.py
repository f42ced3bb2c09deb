"""Attribution: how much each part of the input (or of a layer) counted for the target, and how that was worked out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from inspector.records.html import as_html
from inspector.records.samples import Samples
from inspector.records.saved import Saved
from inspector.tensors import parts, shape_text, walk


class Cost(NamedTuple):
    """What an answer took: passes through the model, examples in them, wall-clock seconds, and the most bytes in use at
    one time, which only ``compare`` measures: 0 is not measured."""

    forwards: int = 0
    backwards: int = 0
    examples: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Attribution(Saved):
    """One method's answer for a batch.

    values: nested as what was explained; each tensor has the shape of what it explains. axes: which axes of the values
    are positions (the others are summed in ``heat``); per input where several are explained; None where there are none.
    delta: (batch,) signed, the sum of the values minus the difference of outputs; None where the method does not claim
    that they are equal. model: class, parameter checksum, seed and versions of what was explained. input_axes: the axes of
    positions of the only input, on which a layer's map is laid; None where there are several.
    """

    values: Any
    samples: Samples
    target: Any = None
    method: str = ""
    layer: str | None = None
    baselines: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    delta: Tensor | None = None
    cost: Cost = Cost()
    axes: Any = None
    model: Mapping[str, Any] = field(default_factory=dict)
    input_axes: tuple[int, ...] | None = None

    @property
    def heat(self) -> Tensor:
        """One signed number per position of what was explained, summed over the other axes; 0 where padded.

        (batch, height, width) for images and their layers, (batch, time) or (batch, tokens) for sequences,
        (batch, features) for rows; several explained inputs of rows end in one (batch, features).
        Raises ValueError where the values have no positions.
        """
        heats = self.heats
        if len(heats) == 1:
            return heats[0]
        if any(h.dim() != 2 for h in heats):
            raise ValueError(
                f"{self.method} explains several inputs of different shape at once, which have no common positions; "
                "read .heats, one for each, or explain one with explain=..."
            )
        return torch.cat(heats, dim=1)

    @property
    def heats(self) -> tuple[Tensor, ...]:
        """``heat`` of each explained input by itself, in the order of the values."""
        heats = [_collapse(values, axes) for values, axes in self._with_axes()]
        heats = [heat[:, None] if heat.dim() == 1 else heat for heat in heats]  # one category is one feature
        return tuple(_without_padding(h, mask) for h, mask in zip(heats, self.valid_at(heats), strict=True))

    def valid_at(self, heats: Sequence[Tensor]) -> list[Tensor | None]:
        """For each heat the samples' ``valid`` in its shape, None where it does not reach: of several inputs that have as
        many positions it is about the sequences, not about a row of features that happens to be as long."""
        valid = self.samples.valid
        if valid is None:
            return [None] * len(heats)
        fits = [valid.shape == heat.shape[: valid.dim()] for heat in heats]
        series = [fit and v.dim() > valid.dim() for fit, (_, v) in zip(fits, walk(self.values), strict=True)]
        reached = series if any(series) else fits
        wide = [valid.reshape(valid.shape + (1,) * (heat.dim() - valid.dim())) for heat in heats]
        return [w.expand_as(h) if at else None for w, h, at in zip(wide, heats, reached, strict=True)]

    @property
    def input_heat(self) -> Tensor:
        """``heat`` brought to the positions of the input (nearest neighbour, so that no detail is invented)."""
        heat, wanted = self.heat, self._input_positions()
        if wanted is None or tuple(heat.shape[1:]) == wanted:
            return heat
        if heat.dim() - 1 != len(wanted):
            raise ValueError(f"heat {shape_text(heat)} has other axes than the input's positions {wanted}")
        spread = F.interpolate(heat[:, None].double(), size=wanted, mode="nearest-exact")[:, 0].to(heat.dtype)
        [mask] = self.valid_at([spread])
        return _without_padding(spread, mask)

    def _with_axes(self) -> list[tuple[Tensor, tuple[int, ...] | None]]:
        if isinstance(self.values, Tensor):
            return [(self.values, self.axes)]
        axes = [item for _, item in parts(self.axes)] if self.axes is not None else []
        tensors = [tensor for _, tensor in walk(self.values)]
        return list(zip(tensors, axes or [None] * len(tensors), strict=True))

    def _input_positions(self) -> tuple[int, ...] | None:
        """How many positions a mask, or else the only input, has along each axis, for a layer's map; None where that needs
        no bringing. A mask of an image's channels is one of its pixels here, because a layer does not share channels."""
        evidence = [mask for _, mask in walk(self.samples.evidence)]
        tensors = [t for _, t in walk(self.samples.inputs)]
        if self.layer is None or any(values.shape == t.shape for _, values in walk(self.values) for t in tensors):
            return None  # the values are those of the input itself
        mask = evidence[0] if len(evidence) == 1 else self.samples.valid
        if mask is not None:
            channels = mask.dim() >= 4 and any(mask.shape == tensor.shape for tensor in tensors)
            return tuple(mask.shape[2 if channels else 1 :])
        if len(tensors) > 1:
            return None
        usual = range(2, tensors[0].dim()) if tensors[0].dim() >= 4 else range(1, 2)
        return tuple(tensors[0].shape[axis] for axis in self.input_axes or usual)

    def to_tree(self) -> dict[str, Any]:
        options = {name: _plain(value) for name, value in self.options.items()}
        changed = {"samples": self.samples.to_tree(), "options": options, "target": _plain(self.target)}
        return super().to_tree() | changed | {"baselines": _plain(self.baselines), "cost": tuple(self.cost)}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        return cls(**tree | {"samples": Samples.from_tree(tree["samples"]), "cost": Cost(*tree["cost"])})

    def __repr__(self) -> str:
        where = f" at {self.layer}" if self.layer is not None else ""
        shapes = ", ".join(shape_text(t) for _, t in walk(self.values))
        claimed = self.delta is not None and self.delta.numel() > 0
        delta = f", off by {torch.as_tensor(self.delta).abs().max().item():.2g} at most" if claimed else ""
        passes = f"{self.cost.forwards} forward, {self.cost.backwards} backward"
        return f"Attribution({self.method}{where}: {shapes}{delta}; {passes})"

    _repr_html_ = as_html


def _without_padding(heat: Tensor, valid: Tensor | None) -> Tensor:
    return heat if valid is None else heat.masked_fill(~valid.to(heat.device), 0.0)


def _collapse(values: Tensor, axes: tuple[int, ...] | None) -> Tensor:
    if axes is None:
        raise ValueError(
            f"these values ({shape_text(values)}) have no known positions; name the axes that are, such as axes=(2, 3) "
            "for an image, when calling attribute, or read .values"
        )
    strange = [axis for axis in axes if not -values.dim() < axis < values.dim() or axis == 0]
    if strange:
        raise ValueError(f"axes={tuple(axes)}: {strange[0]} is no axis of {shape_text(values)} after the batch axis 0")
    kept = {axis % values.dim() for axis in axes}
    others = [axis for axis in range(1, values.dim()) if axis not in kept]
    return values.sum(dim=others) if others else values


def _plain(value: Any) -> Any:
    """Functions are kept by name: a file never holds code."""
    if callable(value) and not isinstance(value, Tensor):
        return f"function {getattr(value, '__qualname__', type(value).__name__)}"
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
