"""A measured step that looks like the one before: the same values seen, all of them finite. Most are, so nothing is looked
up again, and one call of one_pass.c makes the statistics of all rows; whatever is unusual is left to ``resolve``."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from inspector.monitor.arrival import Array
from inspector.monitor.merge import LEAN, Layout, layout_of, spread_is_told
from inspector.monitor.one_pass import ONE_PASS
from inspector.monitor.table import Entry

_RMS = LEAN.index("rms")


class Measured(Protocol):
    """What a device, or a compiled graph, measured in one step. ``marks``: if they are the same, so are the entries.
    ``numbers.numpy()``: (slots, 5) on the host."""

    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def marks(self) -> Any: ...
    @property
    def numbers(self) -> Any: ...


class Plan(NamedTuple):
    """What held for one ticket of the last step that was looked up, and room for its statistics."""

    marks: Any
    layout: Layout
    shifted: bool  # were all parts shifted before squaring?
    room: Array  # (rows, LEAN)
    where: tuple[int, int, int, int, int]  # the addresses of slots, elements and first parts, rows, the address of the room


def _plan(marks: Any, layout: Layout) -> Plan:
    room: Array = np.empty((len(layout.rows), len(LEAN)), dtype=np.float32)
    where = layout.slots.ctypes.data, layout.n.ctypes.data, layout.ends.ctypes.data, len(room), room.ctypes.data
    return Plan(marks, layout, bool(layout.shifted.all()), room, where)


class Steady:
    """Remembers one step: its plans, the series of its statistics, and how much of each row is gradients of parameters."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.at: Array = np.array([], dtype=np.int64)
        self.elements: Array | None = None  # (rows,) of gradients of parameters; 0 of what is none

    def learn(self, tickets: Collection[Measured], at: Array, elements: Array | None) -> None:
        """The statistics of these tickets, and nothing else, went to ``at``."""
        layouts = [layout_of(ticket.entries) for ticket in tickets]
        self.plans, self.at, self.elements = [], at, elements
        if ONE_PASS is not None and len(at) == len(LEAN) * sum(len(layout.rows) for layout in layouts):
            self.plans = [_plan(ticket.marks, layout) for ticket, layout in zip(tickets, layouts, strict=True)]

    @property
    def shifted(self) -> bool:
        """Were all values shifted before squaring? Else who looks a step up finds those that should have been."""
        return all(plan.shifted for plan in self.plans)

    def statistics(self, tickets: Collection[Measured]) -> tuple[Array, Array, float | None] | None:
        """(series, values, norm of the gradients); None where something is new or not finite."""
        if len(tickets) != len(self.plans):
            return None
        parts = [_merged(plan, ticket) for plan, ticket in zip(self.plans, tickets, strict=True)]
        blocks = [part for part in parts if part is not None]
        if len(blocks) < len(parts) or not blocks:
            return None
        found = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if self.elements is None:
            return self.at, found.reshape(-1), None
        squares = self.elements @ np.square(found[:, _RMS], dtype=np.float64)
        return self.at, found.reshape(-1), math.sqrt(squares)


def _merged(plan: Plan, ticket: Measured) -> Array | None:
    """(rows, LEAN) if the ticket has the rows of the plan, and all is finite and within what float32 sums can tell."""
    if ONE_PASS is None or ticket.marks != plan.marks:
        return None
    lines = np.ascontiguousarray(ticket.numbers.numpy())
    if not ONE_PASS.merge(lines.ctypes.data, *plan.where):
        return None
    return plan.room.copy() if plan.shifted or spread_is_told(plan.room).all() else None
