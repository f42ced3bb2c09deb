"""What passes the modules: outputs are reduced when they appear, their gradients when backward brings them.

Whether a module's inputs were finite costs nothing where the input is another module's output; only what was made
in between is looked at. So a NaN is traced to the first call that had finite inputs and a non-finite output.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from inspector.hooks.frame import Frame
from inspector.hooks.gradients import Gradients
from inspector.hooks.recompute import checkpointing
from inspector.monitor.attention import Attention
from inspector.monitor.guard import Guard
from inspector.monitor.measure import Call, Measure
from inspector.monitor.table import Place
from inspector.tensors import Leaf, format_leaf, walk

# Inside vmap or grad of torch.func there is an interpreter: tensors are wrapped and have no numbers of their own.
_functorch: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack  # type: ignore[attr-defined,unused-ignore]


class Passing:
    """The hooks of the Monitor on modules: ``enter`` and ``leave`` for ``mount``. ``guard`` runs them so that an error
    of ours never reaches the model."""

    def __init__(self, model: nn.Module, measure: Measure, kinds: Iterable[str], guard: Guard) -> None:
        self.model, self.measure, self.guard = model, measure, guard
        self.outputs, self.grads = "output" in kinds, "grad" in kinds
        self.gradients = Gradients()
        self.seen: dict[int, tuple[Any, int, Place]] = {}  # id of a tensor -> it, its version, where its numbers are
        self.names: dict[tuple[str, Leaf], str] = {}
        self.rows: dict[str | tuple[str, Leaf], int] = {}
        self.trained_in_mode = False
        self.attention = Attention()
        self.readers: dict[str, bool] = {}  # does one hook tell all of a module? It was seen to leave its inputs as they are
        self.missed_some = False
        self.ran = self.transformed = False  # did a module run in this step so that it counts; inside a transform?

    def begin_step(self) -> None:
        """Forget the last step; gradients that come late belong to no step."""
        self.gradients.open = False
        self.gradients = Gradients()
        self.seen.clear()
        self.ran = self.transformed = False
        self.attention.take_out()

    def enter(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.guard(self._enter, frame, args, kwargs)

    def leave(self, frame: Frame, output: Any) -> None:
        if frame.facets is not None:
            self.guard(self._attended, frame)
            if self.guard.off is not None:  # the mode of a monitor that is off must not stay
                self.attention.take_out()
        if frame.scratch is not None and frame.raised is None:
            self.guard(self._leave, frame, output)

    def ended(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """``enter`` and ``leave`` in one, for ``readers``, on steps that take no samples and look at no gradients."""
        self.guard(self._ended, path, module, args, kwargs, output)

    def missed(self, path: str) -> None:
        """From the next step on two hooks, of which the first sees to it that the second comes last."""
        self.readers[path], self.missed_some = False, True

    def _ended(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._training():
            self._outputs(path, module, self._given(_tensors(args, kwargs)), output)

    def _training(self) -> bool:
        """Evaluation is no training: gradients are off, or the mode is not the one that optimizers step in."""
        if self.trained_in_mode and not self.model.training:
            return False
        if _functorch() is not None:
            self.transformed = True
            return False
        training = torch.is_grad_enabled() or bool(checkpointing())
        self.ran = self.ran or training
        return training

    def _enter(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Leaves in ``scratch`` where the inputs were measured; None if the call is none of a training step."""
        if not self._training():
            return
        tensors = _tensors(args, kwargs)
        looks = self.outputs and not frame.again
        sampled = looks and self.measure.sampling
        if self.grads or sampled:
            frame.given = {id(t): _version(t) for t in tensors}
        frame.scratch = self._given(tensors) if looks else []
        if sampled:
            frame.args, frame.kwargs = args, kwargs
            frame.facets = self.attention.begin_call(frame)

    def _learn(self, frame: Frame) -> None:
        """Did the call leave what it was given as it was?"""
        given = _tensors(frame.args, frame.kwargs)
        unwritten = all(frame.given.get(id(tensor)) == _version(tensor) for tensor in given)
        self.readers[frame.path] = unwritten and self.readers.get(frame.path, True)
        frame.args, frame.kwargs = (), {}  # so that no tensor lives longer

    def _given(self, tensors: Sequence[Tensor]) -> list[Place]:
        """Where what went into a call was measured."""
        places = []
        for tensor in tensors:
            place = self._known(tensor) or self._input(tensor)
            if place is not None:
                places.append(place)
        return places

    def _attended(self, frame: Frame) -> None:
        """Send along what the call attended with, under the name of the module."""
        for told in self.attention.end_call(frame, frame.facets):
            row = self._row(frame.path, ())
            self.measure.table(told.device).extra(told, partial(self.measure.units.attended, row))

    def _input(self, tensor: Tensor) -> Place | None:
        return self._remember(tensor, self.measure.put_range(tensor)) if tensor.is_floating_point() else None

    def _leave(self, frame: Frame, output: Any) -> None:
        if self.outputs and not frame.again:
            if frame.args or frame.kwargs:
                self._learn(frame)
            self._outputs(frame.path, frame.module, frame.scratch, output)
        if self.grads and frame.again:
            self.gradients.watch_again(frame, output, "grad", self._arrive)
        elif self.grads:
            self.gradients.watch(frame, output, "grad", self._arrive)

    def _outputs(self, path: str, module: nn.Module, given: list[Place], output: Any) -> None:
        if isinstance(output, Tensor):
            row = self.rows[path] if path in self.rows else self._row(path, ())
            place = self._output(module, row, given, output)
            if place is not None:
                self.measure.calls.append(Call([row], [place], given))
            return
        found = [(row := self._row(path, leaf), self._output(module, row, given, part)) for leaf, part in walk(output)]
        rows, places = [row for row, place in found if place], [place for _, place in found if place]
        self.measure.calls.append(Call(rows, places, given))

    def _output(self, module: nn.Module, row: int, given: list[Place], tensor: Tensor) -> Place | None:
        place = self._known(tensor)
        if place is not None and place.n:
            place.table.alias(row, place)
        else:
            of = given[0] if type(module) is nn.ReLU and given else None
            place = self._remember(tensor, self.measure.put_row(row, tensor, of))
        if place is not None and self.measure.sampling:
            self.measure.types[row] = type(module)
            self.measure.units.look(module, row, tensor, place)
        return place

    def _row(self, path: str, leaf: Leaf) -> int:
        """The row of an output; those of whole outputs are found by their path alone."""
        key = (path, leaf) if leaf else path
        if key not in self.rows:
            self.rows[key] = self.measure.row("output", self._name(path, leaf))
        return self.rows[key]

    def _arrive(self, frame: Frame, kind: str, leaf: Leaf, grad: Tensor) -> None:
        self.guard(self.measure.put, kind, self._name(frame.path, leaf), grad)

    def _name(self, path: str, leaf: Leaf) -> str:
        if not leaf:
            return path
        if (path, leaf) not in self.names:
            self.names[path, leaf] = path + format_leaf(leaf)
        return self.names[path, leaf]

    def _known(self, tensor: Tensor) -> Place | None:
        """Where a tensor was measured in this step, if it was not written to since."""
        entry = self.seen.get(id(tensor))
        if entry is None or entry[0]() is not tensor or entry[1] != tensor._version:
            return None
        return entry[2]

    def _remember(self, tensor: Tensor, place: Place | None) -> Place | None:
        if place is not None and not tensor.is_inference():
            self.seen[id(tensor)] = (weakref.ref(tensor), tensor._version, place)
        return place


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Tensor]:
    if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
        return args
    return [tensor for value in (*args, *kwargs.values()) for _, tensor in walk(value)]


def _version(tensor: Tensor) -> int:
    """Grows when somebody writes into it; tensors of inference mode have none."""
    return 0 if tensor.is_inference() else tensor._version
