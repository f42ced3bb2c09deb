"""Several targets from the same passes: what the model answered for the first target is asked again for the others.

A method makes the same passes whatever the target is, one after the other. So the first target's passes are written down
with their graphs, and each further target costs its backward passes only. A pass that is not the same after all, or that
the memory budget did not hold, is run again: sharing never changes an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inspector.tensors import nbytes, rebuild

Values = tuple[Tensor, ...]


@dataclass
class Made:
    """One pass: what was put in, what the model answered, and what layer methods saw on the way."""

    values: Values
    place: Any  # of the target: None at the model's output, the site of a Neuron
    graph: bool
    answer: Any
    bytes_per_example: int = 0
    look: Any = None

    def same(self, values: Values, place: Any) -> bool:
        if self.place != place or self.graph != torch.is_grad_enabled() or len(values) != len(self.values):
            return False
        return all(torch.equal(a, b) for a, b in zip(values, self.values, strict=True))


@dataclass
class Sharing:
    """budget: bytes of passes that are kept. latest: the latest pass. again: whether it was not run but asked again."""

    budget: int
    made: list[Made | None] = field(default_factory=list)
    count: int = 0
    latest: Made | None = None
    again: bool = False
    explained: Any = None
    bytes_per_example: int = 0
    others: dict[int, Any] = field(default_factory=dict)  # of Axis, whose passes know no target
    _instead: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def restart(self) -> None:
        """The next target begins."""
        self.count, self.again, self.latest, self._instead = 0, False, None, []

    def answer(self, values: Values, place: Any, cost: int, run: Callable[[], Any]) -> Any:
        """The model's answer for these values; ``cost``: the bytes of a graph that ``run()`` makes."""
        made = self.made[self.count] if self.count < len(self.made) else None
        self.again = made is not None and made.same(values, place)
        self.latest = made if made is not None and self.again else Made(values, place, torch.is_grad_enabled(), run())
        self._instead = list(zip(values, self.latest.values, strict=True))
        if self.count == len(self.made):
            self._keep(self.latest, sum(map(nbytes, values)) + (cost if self.latest.graph else 0))
        self.count += 1
        return rebuild(self.latest.answer, lambda _, tensor: tensor.clone())  # a target may write on what it gets

    def _keep(self, made: Made, cost: int) -> None:
        fits = cost <= self.budget or not self.made
        self.budget -= cost if fits else 0
        self.made.append(made if fits else None)

    def inputs(self, values: Sequence[Any]) -> list[Any]:
        """The tensors on the graph of the latest pass that stand for these."""
        return [next((there for here, there in self._instead if here is value), value) for value in values]

    def look(self, look: Any) -> Any:
        """What layer methods saw in the latest pass, which is ``look`` where it was run."""
        assert self.latest is not None
        if not self.again:
            self.latest.look = look
        return self.latest.look

    def weighed(self, bytes_per_example: int) -> int:
        """The bytes that an example of the latest pass costs, which are these where it was run. Its graph is let go."""
        assert self.latest is not None
        if not self.again:
            self.latest.bytes_per_example = bytes_per_example
            self.latest.answer = rebuild(self.latest.answer, lambda _, tensor: tensor.detach())
        return self.latest.bytes_per_example
