"""What passes the modules: outputs are reduced when they appear, their gradients when backward brings them.

Whether a module's inputs were finite costs nothing where the input is another module's output; only what was made
in between is looked at. So a NaN is traced to the first call that had finite inputs and a non-finite output.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from inspector.hooks.gradients import Gradients
from inspector.hooks.recompute import checkpointing
from inspector.hooks.tap import Frame
from inspector.monitor.measure import Call, Measure, Place
from inspector.monitor.table import flat
from inspector.tensors import Leaf, format_leaf, walk

Guard = Callable[..., Any]


class Passing:
    """The hooks of the Monitor on modules: ``enter`` and ``leave`` for ``mount``. ``guard`` runs them so that an error
    of ours never reaches the model."""

    def __init__(self, model: nn.Module, measure: Measure, kinds: Iterable[str], guard: Guard) -> None:
        self.model, self.measure, self.guard = model, measure, guard
        self.outputs, self.grads = "output" in kinds, "grad" in kinds
        self.gradients = Gradients()
        self.seen: dict[int, tuple[Any, int, Place, int]] = {}
        self.trained_in_mode = False

    def begin_step(self) -> None:
        """Forget the last step; gradients that come late belong to no step."""
        self.gradients.open = False
        self.gradients = Gradients()
        self.seen.clear()

    def enter(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.guard(self._enter, frame, (args, kwargs))

    def leave(self, frame: Frame, output: Any) -> None:
        if frame.raised is None:
            self.guard(self._leave, frame, output)

    def _training(self) -> bool:
        """Evaluation is no training: gradients are off, or the mode is not the one that optimizers step in."""
        if self.trained_in_mode and not self.model.training:
            return False
        return (torch.is_grad_enabled() or checkpointing()) and not _transformed()

    def _enter(self, frame: Frame, inputs: tuple[Any, ...]) -> None:
        if not self._training():
            return
        tensors = [tensor for part in inputs for _, tensor in walk(part)]
        frame.given = {id(t): 0 if t.is_inference() else t._version for t in tensors}
        if not frame.again and self.outputs:
            places = (self._input(t) for t in tensors if t.is_floating_point())
            frame.scratch = [place for place in places if place is not None]

    def _input(self, tensor: Tensor) -> Place | None:
        known = self._known(tensor)
        if known is not None:
            return known[0]
        value = flat(tensor)
        if value is None:
            return None
        place = Place(value.device, self.measure.table(value.device).write_range(value))
        return self._remember(tensor, place, 0)

    def _leave(self, frame: Frame, output: Any) -> None:
        if not self._training():
            return
        if frame.again:
            if self.grads:
                self.gradients.watch_again(frame, output, self._arrive)
            return
        if self.outputs:
            self._outputs(frame, output)
        if self.grads:
            self.gradients.watch(frame, output, "grad", self._arrive)

    def _outputs(self, frame: Frame, output: Any) -> None:
        call = Call([], [], frame.scratch or [])
        for leaf, tensor in walk(output):
            name = frame.path + format_leaf(leaf)
            place = self._output(name, tensor)
            if place is not None:
                call.rows.append(self.measure.row("output", name))
                call.outputs.append(place)
        self.measure.calls.append(call)

    def _output(self, name: str, tensor: Tensor) -> Place | None:
        known = self._known(tensor)
        if known is not None and known[1]:
            self.measure.table(known[0].device).alias(self.measure.row("output", name), known[0].slot, known[1])
            return known[0]
        put = self.measure.put("output", name, tensor)
        if put is None:
            return None
        return self._remember(tensor, *put)

    def _arrive(self, frame: Frame, kind: str, leaf: Leaf, grad: Tensor) -> None:
        self.guard(self.measure.put, kind, frame.path + format_leaf(leaf), grad)

    def _known(self, tensor: Tensor) -> tuple[Place, int] | None:
        """Place and size of a tensor that was measured in this step and was not written to since."""
        entry = self.seen.get(id(tensor))
        if entry is None or entry[0]() is not tensor or tensor.is_inference() or entry[1] != tensor._version:
            return None
        return entry[2], entry[3]

    def _remember(self, tensor: Tensor, place: Place, n: int) -> Place:
        if not tensor.is_inference():
            self.seen[id(tensor)] = (weakref.ref(tensor), tensor._version, place, n)
        return place


def _transformed() -> bool:
    """Inside vmap or grad of torch.func, tensors are wrapped and have no numbers of their own."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined,unused-ignore]
