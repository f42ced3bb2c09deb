"""Monitor: a tap into a History while a model trains. It opens at the optimizer's step, so the loop needs no change.

Whatever goes wrong in here switches the monitor off, with one warning; the training never notices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from inspector.hooks.select import Where, select
from inspector.monitor.book import Book, Target
from inspector.monitor.diagnosis import as_rules
from inspector.monitor.parameters import named
from inspector.monitor.ranks import is_sharded, several
from inspector.monitor.rules import RULES, Rule
from inspector.monitor.scalars import check
from inspector.monitor.schedule import Every, schedule
from inspector.monitor.session import Session
from inspector.provenance import provenance
from inspector.records.history import Finding, History

KINDS = ("output", "grad", "param", "param_grad", "update", "state")


class Monitor:
    """Measures a model while it trains; a context manager, or ``start()`` and ``stop()``.

    optimizer: one, several, or None for every optimizer that steps a parameter of the model; the first counts the steps.
    where: see ``select``; a parameter is measured where it is inside a chosen module. what: kinds among "output", "grad"
    (of outputs), "param", "param_grad" (the gradient that is applied), "update", "state" (of the optimizer).
    every: steps between measurements, a function of the step (steps count from 1), or a share of the step time ("2%").
    to: the run's folder; None keeps the run in memory; sinks (see ``sinks``) may
    stand beside it. resume: continue the run in ``to`` after this step.
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
        to: Target | Sequence[Target] | None = None,
        resume: int | None = None,
        rules: Any = RULES,
    ) -> None:
        self.targets = _targets(to)
        if resume is not None and not any(isinstance(target, (str, Path)) for target in self.targets):
            raise ValueError(f"resume={resume} continues a run, but to=None names none; give the run's folder as to=")
        self.model, self.chosen, self.kinds = model, select(model, where), _kinds(what)
        self.resume, self.every = resume, schedule(every)
        self.optimizers = _optimizers(optimizer)
        self.rules: dict[str, Rule] = dict(as_rules(rules))
        self.session: Session | None = None
        self.open = False

    def start(self) -> Self:
        """Begin to measure. Raises LookupError or ValueError for what cannot be; afterwards nothing is raised."""
        if self.session is not None:
            raise RuntimeError("this Monitor has run already; make another one, with resume= to continue its folder")
        targets = [] if several() and dist.get_rank() > 0 else self.targets  # one folder for all ranks
        book = Book(targets, self.resume if targets else None, self.rules, self._about())
        self.session = Session(self.model, self.chosen, self.kinds, self.optimizers, self.every, book)
        self.session.open(self.resume or 0)
        self.open = True
        return self

    def stop(self) -> None:
        """Take all hooks away, wait for what is under way, and close the folder. Does nothing the second time."""
        if self.open and self.session is not None:
            self.open = False
            self.session.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def log(self, **scalars: Any) -> list[Finding]:
        """Add numbers to the step just completed; returns the findings that are new since the last call."""
        check(scalars)
        if self.session is None:
            raise RuntimeError("this Monitor does not run yet; use it as `with Monitor(...) as monitor:`, or call start()")
        if self.open:
            self.session.guard(self.session.log, scalars)
        return self.session.book.diagnosis.take()

    @property
    def step(self) -> int:
        """How many steps are complete."""
        return self.session.boundary.count if self.session is not None else self.resume or 0

    @property
    def history(self) -> History:
        """What was measured so far; waits for what is under way."""
        return self._book().history() if self.session is not None else History()

    @property
    def findings(self) -> list[Finding]:
        """What is wrong, the gravest first."""
        return self._book().findings() if self.session is not None else []

    @property
    def cost(self) -> float:
        """The share of the training's time that was spent in here, on the host."""
        return self.session.cost if self.session is not None else 0.0

    def _about(self) -> dict[str, Any]:
        """What the rules need to know: the types of the chosen modules, the sizes of their trainable parameters."""
        modules = {path: type(module).__name__ for path, module in self.chosen.items()}
        names = named(self.model, self.chosen)
        trained = {names[id(p)]: list(p.shape) for p in self.model.parameters() if p.requires_grad and id(p) in names}
        origin = {} if any(is_sharded(p) for p in self.model.parameters()) else provenance(self.model)
        return origin | {"modules": modules, "parameters": trained, "what": self.kinds, "rules": list(self.rules)}

    def _book(self) -> Book:
        assert self.session is not None  # asked by the callers
        if self.open:
            self.session.guard(self.session.catch_up)
        return self.session.book


def _targets(to: Target | Sequence[Target] | None) -> list[Target]:
    targets: list[Target] = [] if to is None else [to] if isinstance(to, (str, Path)) or callable(to) else list(to)
    if sum(isinstance(target, (str, Path)) for target in targets) > 1:
        raise ValueError(f"to={to!r} names several folders; give one, and sinks beside it")
    return targets


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
