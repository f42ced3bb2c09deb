"""What is looked at when a call begins and when it ends, kind by kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inspector.hooks.facets import Facet, Facets
from inspector.hooks.frame import Frame, See
from inspector.hooks.gradients import Gradients, versions
from inspector.hooks.parameters import named_inputs
from inspector.sites import Kind
from inspector.tensors import Inputs


class Seeing:
    """``enter`` and ``leave`` for ``mount``: they tell ``see`` each value of the kinds that are asked for, ``begin`` and
    ``end`` that a call does so, and ``lacks`` why it has no attention or no gates."""

    begin: Callable[[Frame, Inputs | None], None] | None = None
    end: Callable[[Frame, Any], None] | None = None
    lacks: Callable[[Frame, Kind, str], None] | None = None

    def __init__(self, see: See, kinds: tuple[Kind, ...], gradients: Gradients, facets: Facets | None) -> None:
        self.see, self.gradients, self.facets = see, gradients, facets
        self.input, self.output = "input" in kinds, "output" in kinds
        self.grad, self.grad_input = "grad" in kinds, "grad_input" in kinds

    def enter(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.grad:
            frame.given = versions((*args, *kwargs.values()))
        if frame.again:
            if self.grad_input:
                self.gradients.watch_again(frame, named_inputs(frame.module, args, kwargs), "grad_input", self.see)
            return
        inputs = named_inputs(frame.module, args, kwargs) if self.input or self.grad_input else None
        if self.begin is not None:
            self.begin(frame, inputs)
        if self.input:
            self.see(frame, "input", (), inputs)
        if self.grad_input:
            self.gradients.watch(frame, inputs, "grad_input", self.see)
        if self.facets is not None:
            frame.args, frame.kwargs = args, kwargs
            self.facets.begin(frame)

    def leave(self, frame: Frame, output: Any) -> None:
        if frame.again:
            if self.grad and frame.raised is None:
                self.gradients.watch_again(frame, output, "grad", self.see)
            return
        found = {} if self.facets is None else _facets_of(self.facets, frame, output)
        if self.end is not None:
            self.end(frame, output)
        if frame.raised is not None:
            return
        if self.output:
            self.see(frame, "output", (), output)
        if self.grad:
            self.gradients.watch(frame, output, "grad", self.see)
        for kind, (value, why) in found.items():
            if value is not None:
                self.see(frame, kind, (), value)
            elif self.lacks is not None:
                self.lacks(frame, kind, why)


def _facets_of(facets: Facets, frame: Frame, output: Any) -> dict[Kind, Facet]:
    found = facets.end(frame, output)
    frame.args, frame.kwargs = (), {}  # a tensor whose hook knows its own frame would never be freed
    return found
