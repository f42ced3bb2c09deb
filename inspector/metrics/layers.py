"""The layer that a layer method explains when none is named: the last one that still knows where things are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inspector.attribution.cannot_run import diagnosed
from inspector.attribution.question import Question
from inspector.attribution.targets import Target
from inspector.attribution.untouched import untouched
from inspector.hooks import Event, tap
from inspector.records import Samples
from inspector.sites import Site
from inspector.tensors import walk


def last_with_positions(model: nn.Module, samples: Samples) -> str:
    """The address of the last value to be computed that has spatial or time axes, of a module that ran once.

    Images ask for (batch, channels, height, width) with more than one pixel, sequences for (batch, time, features) with
    all the time steps. Raises LookupError where there is none.
    """
    image, steps = _positions(samples)
    found: list[Site] = []

    def see(event: Event) -> None:
        tensors = [(leaf, t) for leaf, t in walk(event.value) if _has_positions(t, len(samples), image, steps)]
        if event.site.path and tensors:
            leaf = tensors[0][0]
            found.append(event.site._replace(leaf=leaf))

    question = Question(model, samples, samples.inputs, Target(lambda output: output, samples))
    with diagnosed(question), untouched(model), tap(model, "*", see):
        question.run({}, torch.arange(len(samples)))
    once = [site for site in found if sum(other.path == site.path for other in found) == 1]
    if not once:
        kind = "spatial" if image else "time"
        raise LookupError(
            f"{type(model).__name__} has no layer with {kind} axes; name one with layer=..., such as layer='conv'"
        )
    return str(once[-1]._replace(call=None))


def _positions(samples: Samples) -> tuple[bool, int]:
    """Whether an input is an image, and how many steps a sequence has."""
    tensors = [t for _, t in walk(samples.inputs) if t.dim() >= 2]
    image = any(t.dim() >= 4 for t in tensors)
    return image, max((t.shape[1] for t in tensors), default=0)


def _has_positions(tensor: Tensor, size: int, image: bool, steps: int) -> bool:
    if not tensor.is_floating_point() or not tensor.dim() or len(tensor) != size:
        return False
    if image:
        return tensor.dim() >= 4 and tensor[0, 0].numel() > 1
    return tensor.dim() == 3 and tensor.shape[1] == steps > 1 and not _are_weights(tensor)


def _are_weights(tensor: Tensor) -> bool:
    """Attention from steps to steps: shares that sum to 1, which are no features of a step."""
    square = tensor.shape[1] == tensor.shape[2]
    return (
        square
        and bool((tensor >= 0).all())
        and torch.allclose(tensor.sum(-1), torch.ones((), device=tensor.device).to(tensor))
    )
