"""A measured step that looks like the one before: the same values seen, all of them finite. Most are, so nothing is looked up
again, and one call of one_pass.c makes the statistics of all rows; whatever is unusual is left to ``resolve``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from inspector.monitor.arrival import Array
from inspector.monitor.merge import LEAN, Layout, layout_of
from inspector.monitor.one_pass import ONE_PASS
from inspector.monitor.table import Entry, Ticket

_N, _RMS = LEAN.index("n"), LEAN.index("rms")


class Plan(NamedTuple):
    """What held for the last step that was looked up: its entries, and where their statistics go."""

    entries: list[Entry]
    layout: Layout
    at: Array  # the series, in the order of the statistics
    gradients: Array  # the rows that are gradients of parameters
    where: tuple[int, int, int]  # the addresses of slots, elements and first parts


class Steady:
    """Remembers one step."""

    def __init__(self) -> None:
        self.plan: Plan | None = None

    def learn(self, ticket: Ticket, at: Array, gradients: Array) -> None:
        """The statistics of this ticket, and nothing else, went to ``at``."""
        self.plan = None
        layout = layout_of(ticket)
        if ONE_PASS is not None and layout.shifted.all() and len(at) == len(LEAN) * len(layout.rows):
            where = layout.slots.ctypes.data, layout.n.ctypes.data, layout.ends.ctypes.data
            self.plan = Plan(ticket.entries, layout, at, gradients, where)

    def statistics(self, ticket: Ticket) -> tuple[Array, Array, float | None] | None:
        """(series, values, norm of the gradients); None where something is new or not finite."""
        plan = self.plan
        if plan is None or ONE_PASS is None or ticket.entries != plan.entries or ticket.numbers.host.device.type != "cpu":
            return None
        rows = len(plan.layout.rows)
        values = torch.empty(rows, len(LEAN))
        if not ONE_PASS.merge(ticket.numbers.address(), *plan.where, rows, values.data_ptr()):
            return None
        found = values.numpy()
        squares = found[plan.gradients, _N].astype(np.float64) * np.square(found[plan.gradients, _RMS], dtype=np.float64)
        return plan.at, found.reshape(-1), float(np.sqrt(squares.sum())) if len(squares) else None
