"""The running monitor: opens a step, measures what passes while it is due, and reads a step later what arrived."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.optim import Optimizer

from inspector.monitor.book import Book
from inspector.monitor.boundary import Boundary
from inspector.monitor.guard import Guard
from inspector.monitor.ingraph import InGraph, is_compiled
from inspector.monitor.measure import Measure, Step
from inspector.monitor.mounting import Mounting
from inspector.monitor.parameters import Parameters, named
from inspector.monitor.passing import Passing
from inspector.monitor.ranks import Ranks, key, several
from inspector.monitor.resolve import resolve
from inspector.monitor.scalars import Scalars
from inspector.monitor.schedule import Schedule
from inspector.monitor.skipped import Skipped
from inspector.monitor.watch import Watch

_SAMPLE_EVERY = 10  # steps between two looks at samples (zero fraction, histogram), which cost more than sums do
_FLUSH_SECONDS = 2.0


class Session:
    """From ``open`` to ``close``. Hooks are on the modules only while a step is due."""

    def __init__(
        self,
        model: nn.Module,
        chosen: Mapping[str, nn.Module],
        kinds: tuple[str, ...],
        optimizers: list[Optimizer],
        plan: Schedule,
        book: Book,
    ) -> None:
        self.model, self.chosen, self.kinds, self.schedule, self.book = model, chosen, kinds, plan, book
        self.guard = Guard()
        self.measure, self.watch, self.scalars = Measure(), Watch(), Scalars()
        if several():
            self._join_ranks()
        self.passing = Passing(model, self.measure, kinds, self.guard)
        self.parameters = Parameters(named(model, chosen), self.measure, kinds)
        of = self.guard.of
        self.boundary = Boundary(model, optimizers, of(self._before), of(self._applied), of(self._after), of(self._ended))
        self.skipped = Skipped(model)
        self.flying: deque[Step] = deque()
        self.mounting = Mounting(chosen, self.passing)
        self.dues: dict[int, bool] = {}
        self.graph = (
            InGraph(model, chosen, self.measure, kinds) if is_compiled(model) and {"output", "grad"} & set(kinds) else None
        )
        self.covered: set[int] = set()
        self.told: WeakSet[Optimizer] = WeakSet()
        self.sampled = -(10**9)
        self.seconds = self.spent_before = self.flushed = 0.0
        self.began = time.perf_counter()

    def _join_ranks(self) -> None:
        """Lay out the names of all rows, also of those that this rank never runs."""
        parameters = named(self.model, self.chosen)
        self.measure.ranks = Ranks(len(self.chosen), len(parameters))
        for kind in self.kinds:
            for name in self.chosen if kind in ("output", "grad") else parameters.values():
                self.measure.keys[key(kind, name)] = (kind, name)

    def open(self, done: int) -> None:
        """Begin after ``done`` steps."""
        self.boundary.count = done
        self.boundary.open()
        if self.graph is not None:
            self.mounting.for_graph(self.graph)
        self.skipped.open()
        self.began = time.perf_counter()
        self.guard(self._begin, done + 1)

    def close(self) -> None:
        """Take all hooks away, wait for what is under way, and close the book."""
        self.boundary.close()
        self.skipped.close()
        self.mounting.close()
        self.passing.begin_step()
        self.guard(self._finish)

    def log(self, scalars: Mapping[str, Any]) -> None:
        for name, value in scalars.items():
            self.scalars.add(self.boundary.count, name, value)
        now = time.monotonic()
        if self.dues.get(self.boundary.count) or now - self.flushed > _FLUSH_SECONDS:
            self.flushed = now
            self.book.scalars(self.scalars.take())

    def catch_up(self) -> None:
        """Read all that is under way, waiting for it."""
        self.scalars.send()
        self.book.scalars(self.scalars.take(wait=True))
        if self.measure.ranks is None:
            self._receive(wait=True)

    @property
    def cost(self) -> float:
        return self.guard.spent / max(self.seconds, 1e-9)

    def _is_due(self, step: int) -> bool:
        if step not in self.dues:
            self.dues = {s: due for s, due in self.dues.items() if s >= step - 2}
            self.dues[step] = self.schedule.due(step)
        return self.dues[step]

    def _begin(self, step: int) -> None:
        due = self._is_due(step)
        rarely = _SAMPLE_EVERY if self.schedule.share is None else 5 * self.schedule.interval
        self.measure.sampling = due and step - self.sampled >= rarely
        if self.measure.sampling:
            self.sampled = step
        self.passing.begin_step()
        if self.graph is not None:
            self.graph.begin_step()
            return
        if self.passing.outputs or self.passing.grads:
            self.mounting.for_step(due=due, sampling=self.measure.sampling)

    def _before(self, optimizer: Optimizer) -> None:
        self.passing.trained_in_mode = self.model.training
        if self._is_due(self.boundary.label):
            self.parameters.before(optimizer)
        if optimizer not in self.told:
            self.told.add(optimizer)
            stepped = self.book.memory.meta.get("stepped", [])
            self.book.about({"stepped": [*stepped, *(name for name, _ in self.parameters.of(optimizer).named)]})

    def _applied(self, optimizer: Optimizer) -> None:
        step = self.boundary.label
        scale, overflowed = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        if self._is_due(step):
            self.parameters.gradients(optimizer)
            if overflowed is not None:
                self.measure.drop_where(overflowed)
            elif self.boundary.alone and self.parameters.covers(optimizer):
                self.covered.add(step)
                return  # the norm follows from what was measured
        if self.parameters.of(optimizer).sharded or not self.schedule.looks(step):
            return  # the norm of a part is no norm
        gradients = [g for group in optimizer.param_groups for p in group["params"] if (g := p.grad) is not None]
        self.watch.look(step, gradients, scale, overflowed)

    def _after(self, optimizer: Optimizer) -> None:
        self.skipped.stepped()
        if self._is_due(self.boundary.label):
            self.parameters.after(optimizer)

    def _ended(self) -> None:
        """A step is complete: send off what it measured, and take in what has arrived."""
        step = self.boundary.label
        due = self._is_due(step)
        if self.skipped.count:
            self.measure.dropped.add("grad")
            self.book.watch([(step, "skipped", float(self.skipped.count))])
            self.skipped.count = 0
        if self.measure.ranks is not None:
            self._receive(wait=True)  # the step before, on all ranks at the same place
        if due:
            if self.graph is None:
                self.mounting.say_what_was_unseen()
            self.flying.append(self.measure.flush(step))
            if self.graph is not None:
                self.flying[-1].tickets["graph"] = self.graph.flush()
            self.scalars.send()
        if self.measure.ranks is None:
            self._receive(wait=False)
        self._clock(due)
        self._begin(step + 1)

    def _clock(self, due: bool) -> None:
        now = time.perf_counter()
        self.schedule.note(self.boundary.count, due, now - self.began, self.guard.spent - self.spent_before)
        if self.measure.ranks is not None:
            ranks = self.measure.ranks
            wanted, self.schedule.interval = self.schedule.interval, ranks.interval or self.schedule.interval
            ranks.interval = wanted if self.schedule.share is not None else 0
        self.seconds += now - self.began
        self.began, self.spent_before = now, self.guard.spent

    def _receive(self, *, wait: bool) -> None:
        for step, norm, skipped in self.watch.read(wait=wait):
            self._note(step, norm, skipped)
        while self.flying and (wait or self.flying[0].ready):
            resolved = resolve(self.flying.popleft(), self.measure, self.book.memory)
            self.book.frame(resolved)
            if resolved.step in self.covered and resolved.grad_norm is not None:
                self._note(resolved.step, resolved.grad_norm, skipped=False)
            self.covered.discard(resolved.step)
        if self.book.unlooked and (wait or self._time_to_look()):
            self.book.look()

    def _note(self, step: int, norm: float, skipped: bool) -> None:
        """What every step is checked for; a jump, or what is no number, makes the next steps due."""
        self.book.watch([(step, "skipped", 1.0) if skipped else (step, "grad_norm", norm)])
        if skipped:
            return
        finite, jumped = math.isfinite(norm), self.watch.jumped(norm)
        if finite:
            self.schedule.heard()
        if jumped and self.measure.ranks is None:  # over several ranks, only step numbers may decide what is due
            self.schedule.alert(step, always=not finite)

    def _time_to_look(self) -> bool:
        """Rules look at every measured step, or at every tenth where each step is measured; at once when alarmed."""
        alarmed = self.book.alarmed or self.schedule.alert_until >= self.boundary.count
        return alarmed or self.book.unlooked >= 10 or self.schedule.interval >= 5

    def _finish(self) -> None:
        self.catch_up()
        self._receive(wait=True)
        self.measure.clear()
        self.book.close({"steps": self.boundary.count, "cost": self.cost})
