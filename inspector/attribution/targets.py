"""The target turns the model's output into one number per sample, which is what a method explains.

Methods run the model on expanded batches (path points, noise, baselines). ``rows`` says which sample each row of such
a batch belongs to, so that a function of the output always sees exactly the user's batch in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inspector.records import Samples
from inspector.sites import Site
from inspector.tensors import format_leaf, rebuild, shape_text, walk


class Neuron(NamedTuple):
    """An inner unit as a target: the value at ``site`` and the index of the unit in it, without the batch axis.

    An index shorter than the value, such as one channel of a feature map, means the sum over the axes left out.
    """

    site: str | Site
    index: int | tuple[int, ...]  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a unit


class NoBatchError(ValueError):
    """The model's output is not one answer per sample."""


class Target:
    """``target(output, rows) -> (n,)``; checked against the first output that it meets, before any backward pass."""

    def __init__(self, given: Any, samples: Samples) -> None:
        self.size, self.valid = len(samples), samples.valid
        self.loose = given is None  # a target that merely came with the samples may not fit a regression output
        self.given = read(samples.target if given is None else given, self.size)
        self.checked = -1  # how many outputs the classes are known to be among
        self.neuron = self.given if isinstance(self.given, Neuron) else None

    def __call__(self, output: Any, rows: Tensor) -> Tensor:
        """output: whatever the model answered for ``rows``, batch axis first. Returns (n,)."""
        if isinstance(self.given, Neuron):
            return _unit(output, self.given)
        if callable(self.given):
            return self._by_function(self.given, output, rows)
        tensor = _main(output, len(rows))
        if tensor.dim() == 1 or tuple(tensor.shape[1:]) == (1,):
            return self._only(tensor.reshape(-1))
        return self._choose(tensor, rows)

    def _only(self, scores: Tensor) -> Tensor:
        given = self.given
        if not self.loose and given is not None and bool(torch.as_tensor(given).ne(0).any()):
            raise ValueError(
                "the model answers with one number per sample, which leaves no class to choose; leave out target"
            )
        self.given = None if self.loose else given  # a regression's target is what it should be, no place in the output
        return scores

    def _choose(self, output: Tensor, rows: Tensor) -> Tensor:
        given = self.given
        if given is None:
            raise ValueError(
                f"the model answers with {shape_text(output[:1])[2:]} numbers per sample; say which to explain: "
                "target=3, one class per sample such as target=model(x).argmax(1), or a function of the output"
            )
        if isinstance(given, tuple):
            return _at(output, given)
        if isinstance(given, int):
            given = torch.full((self.size,), given)
        if given.dim() > 1:
            return self._steps(output, given, rows)
        if output.dim() > 2:
            raise ValueError(_unclear(output))
        if output.shape[1] != self.checked:
            in_range(given, output.shape[1])
            self.checked = output.shape[1]
        return output.gather(1, given.to(output.device)[rows][:, None])[:, 0]

    def _steps(self, output: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
        """Summed over the steps; a negative class and a padded step are left out."""
        output = _classes_last(output, tuple(classes.shape[1:]))
        classes = classes.to(output.device)
        counted = classes >= 0
        if self.valid is not None and self.valid.shape == classes.shape:
            counted = counted & self.valid.to(output.device)
        classes = classes.masked_fill(~counted, 0)
        in_range(classes, output.shape[-1])
        chosen = output.gather(-1, classes[rows][..., None])[..., 0]
        return (chosen * counted[rows]).flatten(1).sum(1)

    def _by_function(self, function: Callable[[Any], Tensor], output: Any, rows: Tensor) -> Tensor:
        if len(rows) == self.size:
            return self._checked(function(output))
        copies = rows.argsort(stable=True).reshape(self.size, -1).T  # row j: the j-th copy of every sample, in order
        scores = torch.cat([self._checked(function(_take(output, copy, len(rows)))) for copy in copies])
        return scores[copies.reshape(-1).argsort()]

    def _checked(self, scores: Any) -> Tensor:
        if isinstance(scores, Tensor) and tuple(scores.shape) == (self.size, 1):
            scores = scores[:, 0]
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (self.size,):
            what = shape_text(scores) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"the target function answered with {what}, not with one number per sample ({self.size})")
        return scores


def read(given: Any, size: int) -> Any:
    """The target in one of its forms: None, int, tuple of ints, int tensor (batch, ...), Neuron or function."""
    if given is None or isinstance(given, Neuron):
        return given
    if isinstance(given, (list, np.ndarray)):
        given = torch.as_tensor(given)
    if isinstance(given, Tensor):
        return _read_tensor(given.detach(), size)
    if isinstance(given, (bool, float)):
        raise TypeError(
            f"target={given!r} is no class; give an int, a tensor (batch,), a Neuron or a function of the output"
        )
    if isinstance(given, (int, np.integer)):
        return int(given)
    if isinstance(given, tuple) and given and all(isinstance(i, (int, np.integer)) for i in given):
        return tuple(int(i) for i in given)
    if callable(given):
        return given
    raise TypeError(f"target={given!r} is no target; give an int, a tensor (batch,), a Neuron or a function of the output")


def _read_tensor(given: Tensor, size: int) -> Any:
    if given.dim() == 0:
        return read(given.item(), size)
    if given.shape[0] != size:
        raise ValueError(f"target has {given.shape[0]} entries but there are {size} samples; give one class per sample")
    return given[:, 0] if given.dim() == 2 and given.shape[1] == 1 else given


def by_name(targets: Any) -> dict[Any, Any]:
    """Several targets by name: as they are named, else each by itself, or by its place where it cannot be a key."""
    if isinstance(targets, Mapping):
        named = dict(targets)
    elif isinstance(targets, (str, int)) or callable(targets) or (isinstance(targets, Tensor) and not targets.dim()):
        raise TypeError(f"targets={targets!r} is not several; give a list such as [3, 5], or attribute(target=...)")
    else:
        given = targets.tolist() if isinstance(targets, Tensor) and targets.dim() == 1 else list(targets)
        named = {place if isinstance(one, (Tensor, np.ndarray, list)) else one: one for place, one in enumerate(given)}
        if len(named) < len(given):
            raise ValueError(f"targets={targets!r} holds a target twice; give each once, or name them in a mapping")
    if not named:
        raise ValueError("targets is empty; give at least one target")
    return named


def in_range(classes: Tensor, count: int) -> None:
    """Raises where a class is no index of ``count`` outputs."""
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise TypeError(
            f"target holds {classes.dtype}, not class indices; give integers from 0 to {count - 1}, or a function"
        )
    wrong = classes[(classes < 0) | (classes >= count)]
    if wrong.numel():
        first = int(wrong.flatten()[0])
        raise IndexError(f"target {first} is out of range: the model answers with {count} classes (0 to {count - 1})")


def _main(output: Any, n: int) -> Tensor:
    """The tensor of scores in an output: the only one, or the one called logits."""
    tensors = dict(walk(output))
    tensor = next(iter(tensors.values())) if len(tensors) == 1 else tensors.get(("logits",))
    if tensor is None:
        there = ", ".join("output" + format_leaf(leaf) for leaf in tensors) or "no tensor"
        raise LookupError(
            f"the model answers with a {type(output).__name__} that holds {there}; say what to explain with a function, "
            "such as target=lambda output: output[0][:, 3]"
        )
    if not tensor.is_floating_point():
        raise TypeError(f"the model's output is {tensor.dtype}, which nothing can be attributed to; explain its scores")
    if tensor.dim() == 0 or tensor.shape[0] != n:
        raise NoBatchError(f"the model's output is {shape_text(tensor)} for {n} samples; its first axis must be the batch")
    return tensor


def _at(output: Tensor, index: tuple[int, ...]) -> Tensor:
    if len(index) != output.dim() - 1:
        raise ValueError(f"target={index} has {len(index)} places, but each sample's output has {output.dim() - 1} axes")
    for place, count in zip(index, output.shape[1:], strict=True):
        in_range(torch.tensor([place]), count)
    places: tuple[Any, ...] = (slice(None), *index)
    return output[places]


def _unit(value: Tensor, neuron: Neuron) -> Tensor:
    index = neuron.index if isinstance(neuron.index, tuple) else (neuron.index,)
    if len(index) >= value.dim():
        raise ValueError(f"{neuron} has {len(index)} places, but {neuron.site} has {value.dim() - 1} axes per sample")
    for place, count in zip(index, value.shape[1:], strict=False):
        if not -count <= place < count:
            raise IndexError(f"{neuron} is out of range: {neuron.site} is {shape_text(value[:1])[2:]} per sample")
    places: tuple[Any, ...] = (slice(None), *index)
    chosen = value[places]
    return chosen.flatten(1).sum(1) if chosen.dim() > 1 else chosen


def _classes_last(output: Tensor, steps: tuple[int, ...]) -> Tensor:
    last, first = tuple(output.shape[1:-1]) == steps, tuple(output.shape[2:]) == steps
    if last and first and output.dim() > 2 and output.shape[1] == output.shape[-1]:
        raise ValueError(f"the output {shape_text(output)} has classes on the last or on the second axis; give a function")
    if not (last or first):
        raise ValueError(f"per-step targets {steps} fit no axes of the output {shape_text(output)}")
    return output if last else output.movedim(1, -1)


def _unclear(output: Tensor) -> str:
    return (
        f"the output is {shape_text(output)}, so one class per sample does not say what to explain; give an index such as "
        f"target={(0,) * (output.dim() - 1)}, a class per step, or a function such as target=lambda output: output[:, -1, 3]"
    )


def _take(output: Any, rows: Tensor, n: int) -> Any:
    return rebuild(output, lambda _, t: t[rows.to(t.device)] if t.dim() and t.shape[0] == n else t)
