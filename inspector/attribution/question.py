"""A question to a model: how much did these values count for that score? Every method asks it through ``score``.

The values may be inputs or anything inside the model (an edit puts them there). Each pass says by ``rows`` which
sample each of its rows belongs to, so that whatever is not explained (masks, lengths, targets) is expanded rightly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inspector import tensors
from inspector.attribution.ledger import Ledger
from inspector.attribution.places import at, batch_axis, known, run_for, watch
from inspector.attribution.positions import Axes, channels_first
from inspector.attribution.sharing import Sharing
from inspector.attribution.targets import Target
from inspector.hooks import edit
from inspector.records import Samples
from inspector.sites import Site
from inspector.tensors import Leaf, nbytes, rebuild

__all__ = ["Ledger", "Noise", "Question", "Slot", "expand", "run_for"]


CACHED = 2**26  # of a graph: a CPU loses from passes beyond it, which leave its caches (CNN 1.8, resnet18 3 times slower)


@dataclass(frozen=True)
class Slot:
    """One thing that is explained: the tensor at ``leaf`` of the inputs, or the value at ``site`` inside the model,
    whose batch axis is ``axis``. positions: which axes are (batch first)."""

    name: str
    leaf: Leaf = ()
    site: Site | None = None
    axis: int = 0
    positions: Axes = None


class Noise(NamedTuple):
    """Gaussian noise on what is explained, and how the answers are combined."""

    stdev: float
    samples: int = 10
    form: str = "mean"


@dataclass
class Question:
    """values: what is explained, one tensor per slot, batch axis first. baselines: the same shapes, or () where the
    method needs none. size: samples in the user's batch. last: the scores of the latest pass."""

    model: nn.Module
    samples: Samples
    inputs: Any
    target: Target
    slots: tuple[Slot, ...] = ()
    values: tuple[Tensor, ...] = ()
    baselines: tuple[Tensor, ...] = ()
    layer: Site | None = None  # of methods that explain inputs with the help of a layer
    ledger: Ledger = field(default_factory=Ledger)
    budget: int = 2**30
    noise: Noise | None = None
    last: Tensor | None = None
    bytes_per_example: int = 0
    unplaced: dict[Site, str] = field(default_factory=dict)  # values that have no batch axis, and why
    sharing: Sharing | None = None
    neuron_axis: int | None = None  # which axis of the target's value is the batch, found at the first pass

    @property
    def size(self) -> int:
        return self.target.size

    @cached_property
    def channels_first(self) -> bool:
        return channels_first(self.model)

    def score(self, *values: Tensor, rows: Tensor | None = None) -> Tensor:
        """(n,) scores of n = k * size rows; without ``rows``, k copies of the batch one after the other."""
        rows = self.rows(values[0]) if rows is None else rows
        score = self.target(self.answer(values, rows), rows)
        self.last = score.detach()
        if score.requires_grad:
            score.register_hook(self.ledger.backward)  # type: ignore[no-untyped-call]  # torch's own is untyped
        return score

    def rows(self, values: Tensor) -> Tensor:
        n = values.shape[0]
        if n % self.size or not n:
            raise ValueError(f"score wants whole batches of {self.size} samples, one after the other, not {n} rows")
        return torch.arange(n, device=values.device) % self.size

    def for_captum(self, *values_and_rows: Tensor) -> Tensor:
        """``score`` as Captum calls it: the rows are its additional argument, which it expands with the values."""
        *values, rows = values_and_rows
        return self.score(*values, rows=rows)

    def gradient(self, score: Tensor, values: Sequence[Any]) -> tuple[Tensor, ...]:
        """The gradient of the summed scores; raises ValueError where none arrives, which is not the zero gradient."""
        if not score.requires_grad:
            raise ValueError(
                "the score has no gradient: the model detaches its output, runs under no_grad inside, or does not use what "
                "is explained; a perturbation method such as occlusion needs none"
            )
        leaves = list(values) if self.sharing is None else self.sharing.inputs(values)
        found = torch.autograd.grad(score.sum(), leaves, allow_unused=True, retain_graph=self.sharing is not None)
        for slot, gradient in zip(self.slots, found, strict=False):
            if gradient is None:
                raise ValueError(
                    f"no gradient reaches {slot.name}: the target does not depend on it, or through something that has no "
                    "gradient; leave it out with explain=..., or use a perturbation method such as occlusion"
                )
        return found

    def fresh(self) -> tuple[Tensor, ...]:
        """The values as leaves that a gradient may be asked of."""
        return tuple(value.detach().requires_grad_() for value in self.values)

    def difference(self) -> Tensor:
        """(batch,) the score of the values minus the score of the baselines, from one pass of both."""
        both = [torch.cat([value, base]) for value, base in zip(self.values, self.baselines, strict=True)]
        score = self.weighed(both)
        return score[: self.size] - score[self.size :]

    def weighed(self, values: Sequence[Tensor]) -> Tensor:
        """The scores of a pass that also learns how many bytes an example costs where a graph is kept."""
        score: Tensor = self._learn(values, lambda leaves: self.score(*leaves).detach())
        if self.sharing is not None:
            self.bytes_per_example = self.sharing.weighed(self.bytes_per_example)
        return score

    def weigh(self) -> None:
        """Learn how many bytes an example costs from one of them, whatever the target."""
        if self.sharing is not None and self.sharing.bytes_per_example:
            self.bytes_per_example = self.sharing.bytes_per_example
            return
        first = torch.zeros(1, dtype=torch.long, device=self.values[0].device)
        self._learn([value[:1] for value in self.values], lambda leaves: self._run_with(leaves, first))
        if self.sharing is not None:
            self.sharing.bytes_per_example = self.bytes_per_example

    def _learn(self, values: Sequence[Tensor], run: Callable[[tuple[Tensor, ...]], Any]) -> Any:
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = nbytes(tensor)
            return tensor

        if values[0].device.type == "cpu":
            self.budget = min(self.budget, CACHED)
        leaves = tuple(value.detach().requires_grad_() for value in values)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            answer = run(leaves)
        fixed = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept = sum(size for place, size in seen.items() if place not in fixed)
        own = sum(nbytes(value) for value in values)  # which a model of frozen linear layers does not keep
        self.bytes_per_example = max(1, (kept + own) // len(values[0]))
        return answer

    def copies(self) -> int:
        """How many copies of the batch fit into one pass within the budget."""
        return max(1, self.budget // (self.size * max(1, self.bytes_per_example)))

    def parts(self, count: int, copies: int = 0) -> Iterator[tuple[int, int]]:
        """(start, length) of runs of at most ``copies`` copies of the batch, by default as many as fit into one pass."""
        size = copies or self.copies()
        return shown([(start, min(size, count - start)) for start in range(0, count, size)])

    def run(self, placed: Mapping[Leaf, Tensor], rows: Tensor) -> Any:
        """The model's answer for these rows of the inputs, with the explained tensors put in place."""
        self.ledger.forward(len(rows))
        try:
            return tensors.run(self.model, expand(self.inputs, rows, self.size, placed))
        except Exception:
            self.ledger.failed = len(rows)
            raise

    def answer(self, values: tuple[Tensor, ...], rows: Tensor) -> Any:
        """What the model answers (or holds at the target neuron) with the values in their places."""
        if self.sharing is None:
            return self._answer(values, rows)
        place = None if self.target.neuron is None else str(self.target.neuron.site)
        cost = self.bytes_per_example * len(rows)
        return self.sharing.answer(values, place, cost, lambda: self._answer(values, rows))

    def unscored(self, values: tuple[Tensor, ...], rows: Tensor) -> None:
        """A pass whose answer nobody asks for, such as to see what passes the layers."""
        placed = {slot.leaf: value for slot, value in zip(self.slots, values, strict=True) if slot.site is None}
        if self.sharing is None:
            self.run(placed, rows)
        else:
            self.sharing.answer(values, "unscored", 0, lambda: self.run(placed, rows))

    def _answer(self, values: tuple[Tensor, ...], rows: Tensor) -> Any:
        neuron = self.target.neuron
        if neuron is None:
            return self._run_with(values, rows)
        return self._at_neuron(known(self.model, neuron.site), values, rows)

    def _run_with(self, values: tuple[Tensor, ...], rows: Tensor) -> Any:
        pairs = list(zip(self.slots, values, strict=True))
        placed = {slot.leaf: value for slot, value in pairs if slot.site is None}
        changes = {slot.site: _putting(value, slot.axis) for slot, value in pairs if slot.site is not None}
        with _edited(self.model, changes):
            return self.run(placed, rows)

    def _at_neuron(self, site: Site, values: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """The value at the target's site, batch axis first."""
        seen = watch(self.model, [site.path], lambda: self._run_with(values, rows), (site.kind,))
        found, value, module = at(seen, site)
        if self.neuron_axis is None:
            self.neuron_axis = batch_axis(module, found, value, len(rows), lambda n: self._neuron_again(site, n))
        return value.movedim(self.neuron_axis, 0)

    def _neuron_again(self, site: Site, n: int) -> Tensor:
        with torch.no_grad():
            rows = torch.arange(n) % self.size
            return at(watch(self.model, [site.path], lambda: self.run({}, rows), (site.kind,)), site)[1]


def shown(parts: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts, with a progress bar on a terminal where they take more than two seconds."""
    if len(parts) < 2:
        return iter(parts)
    from tqdm import tqdm

    return iter(tqdm(parts, desc="explaining", unit="pass", delay=2, leave=False, disable=None))


def expand(inputs: Any, rows: Tensor, size: int, placed: Mapping[Leaf, Tensor]) -> Any:
    """The inputs for these rows: explained tensors are put in place, other per-sample tensors are indexed."""
    same = len(rows) == size

    def change(leaf: Leaf, tensor: Tensor) -> Tensor:
        if leaf in placed:
            return placed[leaf]
        per_sample = tensor.dim() and tensor.shape[0] == size
        return tensor[rows.to(tensor.device)] if per_sample and not same else tensor

    return rebuild(inputs, change)


def _putting(value: Tensor, axis: int) -> Callable[[Tensor], Tensor]:
    """Cloned, because a layer may be followed by an in-place operation, which no leaf allows."""
    return lambda there: value.movedim(0, axis).clone()


def _edited(model: nn.Module, changes: Mapping[Any, Callable[[Tensor], Tensor]]) -> AbstractContextManager[None]:
    return edit(model, changes) if changes else nullcontext()
