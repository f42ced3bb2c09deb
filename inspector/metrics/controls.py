"""Controls: maps that explain nothing, as yardsticks. A method that does not beat them has not been shown to say anything.

random: luck. edges: a blurred edge map, which looks like an explanation. input: how large the input is. None of them
looks at the model, so a test that they pass is no test of an explanation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inspector.metrics.baselines import blurred
from inspector.metrics.explaining import Explain
from inspector.metrics.surface import Area, Surface
from inspector.records import Attribution, Samples
from inspector.tensors import walk

Draw = Callable[[Tensor, Area], Tensor]  # one input, batch first -> (batch, *positions)


def controls(surface: Surface, seed: int) -> dict[str, Explain]:
    """The controls that make sense for these inputs, each asked like a method."""
    inputs = dict(walk(surface.inputs))
    explained = [(inputs[area.leaf], area) for area in surface.areas]
    size, numbers = len(surface.heat), all(tensor.is_floating_point() for tensor, _ in explained)
    found = {"random": _control("random", surface.areas, _luck(size, seed))}
    if numbers and all(tensor.dim() > 2 for tensor, _ in explained):
        found["edges"] = _control("edges", surface.areas, _edges)
    if numbers:
        found["input"] = _control("input", surface.areas, _magnitude)
    return found


def _control(name: str, areas: tuple[Area, ...], draw: Draw) -> Explain:
    def explain(model: nn.Module, samples: Samples, target: Any) -> Attribution:
        inputs = dict(walk(samples.inputs))
        maps = tuple(draw(inputs[area.leaf].detach(), area) for area in areas)
        axes = tuple(tuple(range(1, m.dim())) for m in maps)
        alone, asked = len(maps) == 1, {"explain": [area.leaf for area in areas]} if areas[0].leaf else {}
        return Attribution(maps[0] if alone else maps, samples, target, name, axes=axes[0] if alone else axes, options=asked)

    return explain


def _luck(size: int, seed: int) -> Draw:
    """The same draw for every copy of the batch: luck does not look at the input."""

    def draw(tensor: Tensor, area: Area) -> Tensor:
        generator = torch.Generator().manual_seed(seed + area.start)
        map_ = torch.randn(size, *area.shape, generator=generator)
        return map_.repeat(len(tensor) // size, *[1] * len(area.shape)).to(tensor.device)

    return draw


def _magnitude(tensor: Tensor, area: Area) -> Tensor:
    others = [axis for axis in range(1, tensor.dim()) if axis not in area.axes]
    return tensor.abs().sum(others) if others else tensor.abs()


def _edges(tensor: Tensor, area: Area) -> Tensor:
    """Gradient magnitude along the positions, summed over channels, blurred by a tenth."""
    squares = sum(_slope(tensor, axis).square() for axis in area.axes)
    steep = _magnitude(torch.as_tensor(squares).sqrt(), area)
    return blurred(steep[:, None], len(area.shape), 0.1)[:, 0]


def _slope(tensor: Tensor, axis: int) -> Tensor:
    if tensor.shape[axis] < 2:
        return torch.zeros_like(tensor)
    return torch.gradient(tensor, dim=axis)[0]
