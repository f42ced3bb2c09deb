"""What layer methods are made of: each layer's activation and its gradient, for all layers from one pass.

The gradient is asked of the edge of the value at the moment it was seen, so that an in-place operation behind the layer
changes neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from inspector.attribution.places import batch_axis
from inspector.attribution.positions import Axes, layer_axes
from inspector.attribution.question import Question
from inspector.hooks import Where, tap
from inspector.sites import Kind, Site
from inspector.tensors import walk


@dataclass
class Seen:
    """One layer in one pass, batch axis first. gradient: of the summed scores. delta: (batch,) where it is claimed."""

    site: Site
    activation: Tensor
    gradient: Tensor | None = None
    positions: Axes = None
    delta: Tensor | None = None
    axis: int = 0  # which axis is the batch as the module lays it out

    @property
    def grad(self) -> Tensor:
        assert self.gradient is not None  # a method that needs it looks with gradients
        return self.gradient


class Look:
    """Everything floating that passes the chosen modules in one run."""

    def __init__(self, *, gradient: bool) -> None:
        self.gradient = gradient
        self.values: dict[Site, Tensor] = {}
        self.modules: dict[Site, nn.Module] = {}
        self.edges: dict[Site, Any] = {}

    def see(self, event: Any) -> None:
        for leaf, tensor in walk(event.value):
            if tensor.is_floating_point():
                site = event.site._replace(leaf=leaf)
                self.values[site] = tensor.detach().clone()
                self.modules[site] = event.module
                if self.gradient and tensor.requires_grad:
                    self.edges[site] = get_gradient_edge(tensor)

    def gradients(self, score: Tensor, *, again: bool = False) -> dict[Site, Tensor]:
        """The gradient of the summed scores at every site that the score depends on. again: more will be asked."""
        sites = list(self.edges)
        if not sites or not score.requires_grad:
            return {}
        edges = [self.edges[site] for site in sites]
        found = torch.autograd.grad(score.sum(), edges, allow_unused=True, retain_graph=again)
        return {site: gradient for site, gradient in zip(sites, found, strict=True) if gradient is not None}


@dataclass
class Pass:
    """One pass over many layers: values and gradients as the modules lay them out, and the axis that is the batch."""

    look: Look
    grads: Mapping[Site, Tensor]
    score: Tensor | None
    rows: int

    def seen(self, question: Question, site: Site, axis: int) -> Seen:
        activation, gradient = self.look.values[site].movedim(axis, 0), self.grads.get(site)
        positions = layer_axes(question.channels_first, self.look.modules[site], site, activation)
        return Seen(site, activation, None if gradient is None else gradient.movedim(axis, 0), positions, axis=axis)


def run_pass(
    question: Question,
    where: Where,
    values: Sequence[Tensor],
    *,
    kinds: Sequence[Kind] = ("output",),
    gradient: bool = True,
    scored: bool | None = None,
) -> Pass:
    """Run the model once on k copies of the batch and take every chosen layer's value and gradient.

    Without gradients the target is not asked either, unless ``scored``.
    """
    look = Look(gradient=gradient)
    n = len(values[0]) if values else question.size
    rows = torch.arange(n, device=values[0].device if values else None) % question.size
    with tap(question.model, where, look.see, what=kinds), torch.set_grad_enabled(gradient):
        if not (gradient if scored is None else scored):
            question.unscored(tuple(values), rows)
            return Pass(_shared(question, look), {}, None, n)
        score = question.score(*values, rows=rows)
    look = _shared(question, look)
    return Pass(look, look.gradients(score, again=question.sharing is not None), score.detach(), n)


def _shared(question: Question, look: Look) -> Look:
    """What was seen in this pass, or in the one that it stands for."""
    return look if question.sharing is None else question.sharing.look(look)


class Axis:
    """Which axis of each layer's value is the batch; a second pass with another batch size decides where shapes do not."""

    def __init__(self, question: Question, where: Where, kinds: Sequence[Kind]) -> None:
        self.question, self.where, self.kinds = question, where, kinds
        self.others: dict[int, dict[Site, Tensor]] = {} if question.sharing is None else question.sharing.others

    def of(self, seen: Pass, site: Site) -> int | None:
        """None where no axis is the batch, such as of packed sequences; the question keeps the reason."""
        value = seen.look.values[site]
        try:
            return batch_axis(seen.look.modules[site], site, value, seen.rows, lambda n: self._again(n)[site])
        except ValueError as error:
            self.question.unplaced[site] = str(error)
            return None

    def _again(self, n: int) -> dict[Site, Tensor]:
        if n not in self.others:
            look = Look(gradient=False)
            rows = torch.arange(n) % self.question.size
            with tap(self.question.model, self.where, look.see, what=self.kinds), torch.no_grad():
                self.question.run({}, rows)
            self.others[n] = look.values
        return self.others[n]


def once(
    question: Question, where: Where, *, kinds: Sequence[Kind] = ("output",), gradient: bool = True
) -> dict[Site, Seen]:
    """Activation (and gradient) of every chosen layer from one forward and one backward pass.

    Layers that the score does not depend on are left out where a gradient is wanted: no gradient is not a zero one.
    """
    seen = run_pass(question, where, question.fresh(), kinds=kinds, gradient=gradient)
    axis = Axis(question, where, kinds)
    found = {}
    for site in seen.look.values:
        if gradient and site not in seen.grads:
            continue
        place = axis.of(seen, site)
        if place is not None:
            found[site] = seen.seen(question, site, place)
    return found
