"""What the optimizers do: the gradients they apply, the parameters, the updates, their state.

Updates are told from a fixed random sample of positions in each parameter, so that no clone of all parameters is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inspector.hooks.select import names
from inspector.monitor.flat import local
from inspector.monitor.measure import Measure
from inspector.monitor.ranks import is_sharded
from inspector.monitor.table import SAMPLE, Table

Named = list[tuple[str, nn.Parameter]]


class Plan(NamedTuple):
    """How many parameters an optimizer steps, the chosen ones among them with their names, the rows of their gradients, and
    whether any is sharded."""

    size: int
    named: Named
    rows: list[int]
    sharded: bool


class Parameters:
    """Measures the chosen parameters of an optimizer around its step."""

    def __init__(self, chosen: Mapping[int, str], measure: Measure, kinds: Iterable[str]) -> None:
        self.chosen, self.measure, self.kinds = chosen, measure, frozenset(kinds)
        self.plans: WeakKeyDictionary[Optimizer, Plan] = WeakKeyDictionary()
        self.positions: dict[str, Tensor] = {}
        self.old: dict[str, Tensor] = {}
        self.written: list[tuple[Table, int, int]] = []  # which entries are gradients of the step under way

    def of(self, optimizer: Optimizer) -> Plan:
        """What is known about an optimizer; made anew when it steps more or fewer parameters than before."""
        plan = self.plans.get(optimizer)
        count = sum([len(group["params"]) for group in optimizer.param_groups])
        if plan is None or plan.size != count:
            every = [p for group in optimizer.param_groups for p in group["params"]]
            named = [(self.chosen[id(p)], p) for p in every if id(p) in self.chosen]
            rows = self._rows("param_grad", named) if "param_grad" in self.kinds else []
            plan = self.plans[optimizer] = Plan(count, named, rows, any(is_sharded(p) for p in every))
        return plan

    def covers(self, optimizer: Optimizer) -> bool:
        """Are the gradients of all that it steps measured? Then their norm is known without another look."""
        plan = self.of(optimizer)
        return "param_grad" in self.kinds and plan.size == len(plan.named)

    def before(self, optimizer: Optimizer) -> None:
        self.written.clear()
        named = self.of(optimizer).named
        if "param" in self.kinds:
            self.measure.put_all(self._rows("param", named), [parameter for _, parameter in named])
        if "update" in self.kinds:
            for name, parameter in named:
                if parameter.numel():
                    self.old[name] = self._sample(name, parameter).clone()

    def gradients(self, optimizer: Optimizer) -> None:
        """The gradients as they are now; called again (a closure that runs several times), the last ones count."""
        if "param_grad" not in self.kinds:
            return
        for table, start, stop in self.written:
            table.forget(start, stop)
        begun = {table: (len(table.entries), table.used) for table in self.measure.tables.values()}
        plan = self.of(optimizer)
        rows, there = plan.rows, [p.grad for _, p in plan.named]
        grads = [grad for grad in there if grad is not None]
        if len(grads) < len(there):
            rows = [row for row, grad in zip(rows, there, strict=True) if grad is not None]
        self.measure.put_all(rows, grads)
        scale = getattr(optimizer, "grad_scale", None)
        self.written = []
        for table in self.measure.tables.values():
            start, slot = begun.get(table, (0, 0))
            self.written.append((table, start, len(table.entries)))
            if scale is not None:
                table.rescale(slot, 1.0 / torch.as_tensor(scale).to(table.device, torch.float32))

    def _rows(self, kind: str, named: Named) -> list[int]:
        row = self.measure.row
        return [row(kind, name) for name, _ in named]

    def after(self, optimizer: Optimizer) -> None:
        if self.old:
            self._updates(optimizer)
        if "state" in self.kinds:
            for name, parameter in self.of(optimizer).named:
                self._state(name, optimizer.state.get(parameter, {}))

    def _updates(self, optimizer: Optimizer) -> None:
        changed: Named = [(name, parameter) for name, parameter in self.of(optimizer).named if name in self.old]
        old = [self.old.pop(name) for name, _ in changed]
        new = [self._sample(name, parameter) for name, parameter in changed]
        self.measure.put_all(self._rows("update", changed), [a - b for a, b in zip(new, old, strict=True)])
        self.measure.put_all(self._rows("_old", changed), old)

    def _state(self, name: str, state: Mapping[str, Any]) -> None:
        for key, value in state.items():
            if isinstance(value, Tensor) and value.numel() > 1:
                self.measure.put("state", f"{name}[{key}]", value)

    def _sample(self, name: str, parameter: Tensor) -> Tensor:
        """The values at this parameter's positions."""
        value = local(parameter.detach()).reshape(-1)
        if value.numel() <= SAMPLE:
            return value
        if name not in self.positions:
            draw = torch.Generator(value.device).manual_seed(value.numel())  # its own, so that the user's stays as it is
            self.positions[name] = torch.randint(value.numel(), (SAMPLE,), generator=draw, device=value.device)
        return value.index_select(0, self.positions[name])


def named(model: nn.Module, chosen: Mapping[str, nn.Module]) -> dict[int, str]:
    """id of each parameter inside the chosen modules -> its name; a tied one goes by its first name."""
    found: dict[int, str] = {}
    inside = tuple(f"{path}." if path else "" for path in chosen)
    for path, module in names(model).items():
        if path in chosen or path.startswith(inside):
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    found.setdefault(id(parameter), f"{path}.{key}" if path else key)
    return found
