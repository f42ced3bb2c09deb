"""The rows that are measured and the tables they are measured into: the one place that knows which value goes where."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inspector.monitor.arrival import Array
from inspector.monitor.ranks import Ranks, is_sharded, key
from inspector.monitor.table import Entry, Table, flat
from inspector.monitor.units import Units


class Place(NamedTuple):
    """Where a value's numbers are."""

    table: Table
    entry: Entry


class Call(NamedTuple):
    """One call of a module: rows and places of its outputs, places of its inputs; in the order in which calls ended."""

    rows: list[int]
    outputs: list[Place]
    inputs: list[Place]


class Step(NamedTuple):
    """What one step measured, on its way to the host."""

    step: int
    tickets: dict[Any, Any]  # device -> Ticket, and what reads like one
    calls: list[Call]
    dropped: set[str]  # kinds that mean nothing in this step: a GradScaler threw its gradients away

    @property
    def ready(self) -> bool:
        return all(ticket.ready for ticket in self.tickets.values())


class Measure:
    """Row numbers and tables. ``sampling``: also look at a sample of elements; ``lean``: rows that need no shifting."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.ids: dict[tuple[str, str], int] = {}
        self.tables: dict[torch.device, Table] = {}
        self.lean: set[int] = set()
        self.calls: list[Call] = []
        self.sampling = False
        self.dropped: set[str] = set()
        self.units = Units()
        self.types: dict[int, type[nn.Module]] = {}  # of the modules whose outputs are rows
        self.ranks: Ranks | None = None
        self.sharded: set[int] = set()  # rows of which each rank holds a part
        self.keys: dict[float, tuple[str, str]] = {}  # what the ranks call the rows
        self.half: set[int] = set()  # rows of float16, whose range is small

    def row(self, kind: str, name: str) -> int:
        """The number of a row; a new row is measured the careful way until its spread is known."""
        row = self.ids.get((kind, name))
        if row is None:
            row = self.ids[kind, name] = len(self.rows)
            self.rows.append((kind, name))
            self.keys[key(kind, name)] = (kind, name)
        return row

    def table(self, device: torch.device) -> Table:
        table = self.tables.get(device)
        if table is None:
            table = self.tables[device] = Table(device)
        return table

    def put(self, kind: str, name: str, tensor: Tensor, at: int | None = None) -> Place | None:
        """Reduce a tensor into its row; None where there is nothing to reduce."""
        value = flat(tensor)
        if value is None:
            return None
        row, table = self.row(kind, name), self.table(value.device)
        if is_sharded(tensor):
            self.sharded.add(row)
        if value.dtype == torch.float16:
            self.half.add(row)
        entry = table.write(row, value, careful=row not in self.lean, sample=self.sampling, at=at)
        return None if entry is None else Place(table, entry)

    def put_range(self, tensor: Tensor) -> Place | None:
        """Only whether it is finite, in no row."""
        value = flat(tensor)
        if value is None:
            return None
        table = self.table(value.device)
        entry = table.write_range(value)
        return None if entry is None else Place(table, entry)

    def learn(self, rows: set[int], careful: set[int]) -> None:
        """Which of the measured rows can do with plain squares."""
        self.lean |= rows - careful
        self.lean -= careful

    def flush(self, step: int) -> Step:
        tickets: dict[Any, Any] = {
            device: table.flush() for device, table in self.tables.items() if table.used or table.extras
        }
        flushed = Step(step, tickets, self.calls, self.dropped)
        self.calls, self.dropped = [], set()
        return flushed

    def drop_where(self, overflowed: Tensor) -> None:
        """Leave gradients and updates out of this step if this number on the device turns out not to be 0."""
        dropped = self.dropped

        def receive(value: Array) -> None:
            if value.any():
                dropped.update(("grad", "param_grad", "update", "_old"))

        self.table(overflowed.device).extra(overflowed.detach().float(), receive)

    def clear(self) -> None:
        self.calls, self.dropped = [], set()
        for table in self.tables.values():
            table.clear()
