"""Where a training step ends: found through the optimizers' own step hooks, so that the loop needs no change.

Gradients are read when they are final: before the step, or, given a closure (Lightning, LBFGS), after the closure ran.
The first optimizer seen counts the steps; a step of several optimizers (GAN) ends with the last of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

_PATIENCE = 20  # steps of others without one of the optimizer that counts

Told = Callable[[Optimizer], None]


class Boundary:
    """Calls ``before(optimizer)`` ahead of a step, ``gradients(optimizer)`` when its gradients are final, ``after``
    behind it, and ``ended()`` when a training step is complete. ``count`` is the number of complete steps."""

    def __init__(
        self, model: nn.Module, given: list[Optimizer], before: Told, gradients: Told, after: Told, ended: Callable[[], None]
    ) -> None:
        self.model, self.given = model, given
        self.before, self.gradients, self.after, self.ended = before, gradients, after, ended
        self.count = 0
        self.counters: WeakSet[Optimizer] = WeakSet(given[:1])
        self.counted: set[int] = set()  # ids of the parameters that counting optimizers step
        self.known: WeakSet[Optimizer] = WeakSet(given)
        self.strangers: WeakSet[Optimizer] = WeakSet()
        self.cycle: list[Optimizer] = self.given[1:]  # who else stepped in the last step
        self.stepped: list[Optimizer] = []  # who else stepped in this one
        self.waiting: list[Optimizer] | None = None  # who is still to come before this step, already counted, ends
        self.handles: list[Any] = []

    def open(self) -> None:
        self.handles = [register_optimizer_step_pre_hook(self._pre), register_optimizer_step_post_hook(self._post)]

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    @property
    def label(self) -> int:
        """The number of the step that what is measured now belongs to."""
        return self.count if self.waiting is not None else self.count + 1

    @property
    def alone(self) -> bool:
        """Has only one optimizer been seen?"""
        return len(self.known) == 1

    def mine(self, optimizer: Optimizer) -> bool:
        """Is it one that was given, or, where none was, one that steps a parameter of the model?"""
        if optimizer in self.known or self.given:
            return optimizer in self.known
        if optimizer in self.strangers:
            return False
        parameters = {id(p) for p in self.model.parameters()}
        mine = any(id(p) in parameters for group in optimizer.param_groups for p in group["params"])
        (self.known if mine else self.strangers).add(optimizer)
        return mine

    def _counts(self, optimizer: Optimizer) -> bool:
        """Is it the one that counts the steps, or one that took over some of its parameters?"""
        if optimizer in self.counters:
            return True
        ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
        first = not self.counters and not self.counted
        if first or ids & self.counted or len(self.stepped) >= _PATIENCE:
            self.counters.add(optimizer)
            self.counted |= ids
            return True
        return False

    def _pre(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if not self.mine(optimizer):
            return None
        counts = self._counts(optimizer)
        if counts and self.waiting is not None:
            self._end()  # not all came this time
        elif not counts and self.count and self.waiting is None and not _among(optimizer, self.cycle):
            self.waiting = [optimizer]  # a newcomer: it belongs to the step that was just counted
        self.before(optimizer)
        closure = _closure(args, kwargs)
        if closure is None:
            self.gradients(optimizer)
            return None
        return _with_closure(args, kwargs, self._then_read(closure, optimizer))

    def _post(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self.mine(optimizer):
            return
        self.after(optimizer)
        if optimizer in self.counters:
            self.count += 1
            self.waiting = [other for other in self.cycle if not _among(other, self.stepped)]
        else:
            self.stepped.append(optimizer)
            if self.waiting is not None:
                self.waiting = [other for other in self.waiting if other is not optimizer]
        if self.waiting == []:
            self._end()

    def _end(self) -> None:
        self.cycle, self.stepped = self.stepped or self.cycle, []
        self.ended()
        self.waiting = None

    def _then_read(self, closure: Callable[..., Any], optimizer: Optimizer) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            loss = closure(*args, **kwargs)
            self.gradients(optimizer)
            return loss

        return run


def _among(optimizer: Optimizer, others: list[Optimizer]) -> bool:
    return any(optimizer is other for other in others)


def _closure(args: Any, kwargs: Any) -> Any:
    """The closure that ``step`` was given, by position or by name; args begin with the optimizer itself."""
    return args[1] if len(args) > 1 and callable(args[1]) else kwargs.get("closure")


def _with_closure(args: Any, kwargs: Any, closure: Callable[..., Any]) -> tuple[Any, Any]:
    if len(args) > 1 and callable(args[1]):
        return (args[0], closure, *args[2:]), kwargs
    return args, {**kwargs, "closure": closure}
