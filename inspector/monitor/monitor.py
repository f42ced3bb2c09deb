"""Monitor: a tap into a History while a model trains. It opens at the optimizer's step, so the loop needs no change.

Whatever goes wrong in here switches the monitor off, with one warning; the training never notices.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.optim import Optimizer

from inspector.hooks.select import Where, select
from inspector.hooks.tap import mount
from inspector.monitor.book import Book
from inspector.monitor.boundary import Boundary
from inspector.monitor.diagnosis import as_rules
from inspector.monitor.measure import Measure, Step
from inspector.monitor.parameters import Parameters, named
from inspector.monitor.passing import Passing
from inspector.monitor.resolve import resolve
from inspector.monitor.rules import RULES, Rule
from inspector.monitor.scalars import Scalars, check
from inspector.monitor.schedule import Every, schedule
from inspector.monitor.skipped import Skipped
from inspector.monitor.watch import Watch
from inspector.provenance import provenance
from inspector.records.history import Finding, History

KINDS = ("output", "grad", "param", "param_grad", "update", "state")
_SAMPLE_EVERY = 10  # steps between two looks at samples (zero fraction, histogram), which cost more than sums do
_FLUSH_SECONDS = 2.0


class Monitor:
    """Measures a model while it trains; a context manager, or ``start()`` and ``stop()``.

    optimizer: one, several, or None for every optimizer that steps a parameter of the model; the first counts the steps.
    where: see ``select``; a parameter is measured where it is inside a chosen module. what: kinds among "output", "grad"
    (of outputs), "param", "param_grad" (the gradient that is applied), "update", "state" (of the optimizer).
    every: steps between measurements, a function of the step (steps count from 1), or a share of the step time ("2%").
    to: the run's folder; None keeps the run in memory. resume: continue the run in ``to`` after this step.
    rules: which rules look at the run, as a table or a list of functions History -> findings.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with Monitor(model, every=1) as monitor:
    ...     for _ in range(3):
    ...         loss = model(torch.ones(4, 2)).square().mean()
    ...         optimizer.zero_grad(), loss.backward(), optimizer.step()
    ...         found = monitor.log(loss=loss)
    (None, None, None)
    (None, None, None)
    (None, None, None)
    >>> monitor.history.scalars["loss"][0].tolist(), monitor.findings
    ([1, 2, 3], [])
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Iterable[Optimizer] | None = None,
        *,
        where: Where = "*",
        what: str | Iterable[str] = ("output", "param_grad"),
        every: Every = 10,
        to: str | Path | None = None,
        resume: int | None = None,
        rules: Any = RULES,
    ) -> None:
        if resume is not None and to is None:
            raise ValueError(f"resume={resume} continues a run, but to=None names none; give the run's folder as to=")
        self.model, self.chosen, self.kinds = model, select(model, where), _kinds(what)
        self.to, self.resume = to, resume
        self.optimizers = _optimizers(optimizer)
        self.rules: dict[str, Rule] = dict(as_rules(rules))
        self.schedule = schedule(every)
        self.measure, self.watch, self.scalars = Measure(), Watch(), Scalars()
        self.passing = Passing(model, self.measure, self.kinds, self._safely)
        self.parameters = Parameters(named(model, self.chosen), self.measure, self.kinds)
        told = [self._safe(act) for act in (self._before, self._applied, self._after, self._ended)]
        self.boundary = Boundary(model, self.optimizers, *told)
        self.skipped = Skipped(model)
        self.flying: deque[Step] = deque()
        self.mounted: ExitStack | None = None
        self.book: Book | None = None
        self.dues: dict[int, bool] = {}
        self.off: str | None = None
        self.open = False
        self.sampled = -_SAMPLE_EVERY
        self.spent = self.seconds = self.began = self.spent_before = self.flushed = 0.0

    def start(self) -> Self:
        """Begin to measure. Raises LookupError or ValueError for what cannot be; afterwards nothing is raised."""
        if self.book is not None:
            raise RuntimeError("this Monitor has run already; make another one, with resume= to continue its folder")
        meta = {"modules": {path: type(module).__name__ for path, module in self.chosen.items()}, "what": self.kinds}
        self.book = Book(self.to, self.resume, self.rules, provenance(self.model) | meta)
        self.boundary.count = self.resume or 0
        self.boundary.open()
        self.skipped.open()
        self.open = True
        self.began = time.perf_counter()
        self._safely(self._begin, self.boundary.count + 1)
        return self

    def stop(self) -> None:
        """Take all hooks away, wait for what is under way, and close the folder. Does nothing the second time."""
        if not self.open:
            return
        self.open = False
        self.boundary.close()
        self.skipped.close()
        self._unmount()
        self.passing.begin_step()
        self._safely(self._finish)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def log(self, **scalars: Any) -> list[Finding]:
        """Add numbers to the step just completed; returns the findings that are new since the last call."""
        check(scalars)
        if self.open:
            self._safely(self._log, scalars)
        return self._book.diagnosis.take() if self.book is not None else []

    @property
    def step(self) -> int:
        """How many steps are complete."""
        return self.boundary.count

    @property
    def history(self) -> History:
        """What was measured so far; waits for what is under way."""
        if self.book is None:
            return History()
        self._safely(self._receive, True)
        return self._book.history()

    @property
    def findings(self) -> list[Finding]:
        """What is wrong, the gravest first."""
        if self.book is None:
            return []
        self._safely(self._receive, True)
        return self._book.findings()

    @property
    def cost(self) -> float:
        """The share of the time since the start that was spent in here, on the host."""
        return self.spent / max(self.seconds, 1e-9)

    def _safe(self, act: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: self._safely(act, *args)

    def _safely(self, act: Callable[..., Any], *args: Any) -> Any:
        """Run something of ours on the training's time: an error of ours ends the monitor and nothing else."""
        if self.off is not None:
            return None
        begin = time.perf_counter()
        try:
            return act(*args)
        except Exception as error:
            self._fail(error)
            return None
        finally:
            self.spent += time.perf_counter() - begin

    def _fail(self, error: Exception) -> None:
        self.off = f"{type(error).__name__}: {error}"
        self.measure.clear()
        self.flying.clear()
        warnings.warn(
            f"the monitor is off from step {self.step} on, training goes on: {self.off}", RuntimeWarning, stacklevel=3
        )

    @property
    def _book(self) -> Book:
        assert self.book is not None  # it is made before any hook
        return self.book

    def _is_due(self, step: int) -> bool:
        if step not in self.dues:
            self.dues = {s: due for s, due in self.dues.items() if s >= step - 2}
            self.dues[step] = self.schedule.due(step)
        return self.dues[step]

    def _begin(self, step: int) -> None:
        """Open a step: hooks are on the modules only while it is due."""
        due = self._is_due(step)
        self.measure.sampling = due and step - self.sampled >= _SAMPLE_EVERY
        if self.measure.sampling:
            self.sampled = step
        self.passing.begin_step()
        if due and self.mounted is None and {"output", "grad"} & set(self.kinds):
            self.mounted = ExitStack()
            self.mounted.enter_context(mount(self.chosen, enter=self.passing.enter, leave=self.passing.leave))
        elif not due:
            self._unmount()

    def _unmount(self) -> None:
        if self.mounted is not None:
            mounted, self.mounted = self.mounted, None
            mounted.close()

    def _before(self, optimizer: Optimizer) -> None:
        self.passing.trained_in_mode = self.model.training
        if self._is_due(self.boundary.label):
            self.parameters.before(optimizer)

    def _applied(self, optimizer: Optimizer) -> None:
        if self._is_due(self.boundary.label):
            self.parameters.gradients(optimizer)
            if getattr(optimizer, "found_inf", None) is not None:
                self.measure.drop_where(optimizer.found_inf)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        scale, found = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        self.watch.look(self.boundary.label, gradients, scale, found)

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
            self._book.watch([(step, "skipped", float(self.skipped.count))])
            self.skipped.count = 0
        if due:
            self.flying.append(self.measure.flush(step))
            self.scalars.send()
        self._receive(False)
        self._clock(due)
        self._begin(step + 1)

    def _clock(self, due: bool) -> None:
        now = time.perf_counter()
        self.schedule.note(due, now - self.began, self.spent - self.spent_before)
        self.seconds += now - self.began
        self.began, self.spent_before = now, self.spent

    def _receive(self, wait: bool) -> None:
        arrived = self.watch.read(wait=wait)
        for step, norm, skipped in arrived:
            if not skipped and self.watch.jumped(norm):
                self.schedule.alert(step)
        self._book.watch(
            (step, "skipped" if skipped else "grad_norm", 1.0 if skipped else norm) for step, norm, skipped in arrived
        )
        while self.flying and (wait or self.flying[0].ready):
            self._book.frame(resolve(self.flying.popleft(), self.measure, self._book.memory))
        if self._book.unlooked and (wait or self._time_to_look()):
            self._book.look()

    def _time_to_look(self) -> bool:
        """Rules look at every measured step, or at every fifth where each step is measured; at once when alarmed."""
        alarmed = self._book.alarmed or self.schedule.alert_until >= self.step
        return alarmed or self._book.unlooked >= 5 or self.schedule.interval >= 5

    def _log(self, scalars: dict[str, Any]) -> None:
        for name, value in scalars.items():
            self.scalars.add(self.boundary.count, name, value)
        now = time.monotonic()
        if self.dues.get(self.boundary.count) or now - self.flushed > _FLUSH_SECONDS:
            self.flushed = now
            self._book.scalars(self.scalars.take())

    def _finish(self) -> None:
        self.scalars.send()
        self._book.scalars(self.scalars.take(wait=True))
        self._receive(True)
        self.measure.clear()
        self._book.close({"steps": self.step, "cost": self.cost})


def _kinds(what: str | Iterable[str]) -> tuple[str, ...]:
    asked = (what,) if isinstance(what, str) else tuple(what)
    for kind in asked:
        if kind not in KINDS:
            raise ValueError(f"what={kind!r} is no kind that is monitored; there are {', '.join(map(repr, KINDS))}")
    if not asked:
        raise ValueError("what=() asks for nothing; give at least one kind, such as 'output'")
    return tuple(kind for kind in KINDS if kind in asked)


def _optimizers(given: Optimizer | Iterable[Optimizer] | None) -> list[Optimizer]:
    optimizers = [given] if isinstance(given, Optimizer) else list(given or [])
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"optimizer={type(optimizer).__name__} is no torch optimizer; leave it out to find them by themselves"
            )
    return optimizers
