"""The rows that are measured and the tables they are measured into: the one place that knows which value goes where."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inspector.monitor.arrival import Array
from inspector.monitor.flat import flat, is_plain
from inspector.monitor.one_pass import ONE_PASS, is_dense
from inspector.monitor.ranks import Ranks, is_sharded, key
from inspector.monitor.steady import Steady
from inspector.monitor.table import SAMPLE, Place, Table
from inspector.monitor.units import Units


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
        self.steady = Steady()
        self.samples: Any = None  # what samples.py worked out for the last step with samples
        self.half: set[int] = set()  # rows of float16, whose range is small
        self.dense = self.table(torch.device("cpu")) if ONE_PASS is not None else None  # where dense tensors are reduced

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

    def put(self, kind: str, name: str, tensor: Tensor) -> Place | None:
        """Reduce a tensor into its row; None where there is nothing to reduce."""
        return self.put_row(self.row(kind, name), tensor)

    def put_row(self, row: int, tensor: Tensor, positive_of: Place | None = None) -> Place | None:
        """positive_of: where the value of which this is the positive part was measured."""
        if self.dense is not None and is_dense(tensor):
            return self.dense.write_dense(row, tensor, self.sampling)
        value = flat(tensor)
        if value is None:
            return None
        self._note(row, tensor, value)
        table = self.table(value.device)
        known = positive_of if positive_of is not None and positive_of.table is table else None
        return table.write(row, value, row not in self.lean, self.sampling, known)

    def put_all(self, rows: Sequence[int], tensors: Sequence[Tensor]) -> None:
        """Reduce many tensors, each into its row; small ones of one shape together, because calls cost more than they."""
        small: dict[Any, list[int]] = {}
        for i in self._put_dense(rows, tensors):
            tensor = tensors[i]
            if tensor.numel() <= SAMPLE and is_plain(tensor):
                small.setdefault((tensor.shape, tensor.dtype, tensor.device), []).append(i)
            else:
                self.put_row(rows[i], tensor)
        for (shape, _, device), group in small.items():
            if len(group) == 1 or not shape.numel():
                self.put_row(rows[group[0]], tensors[group[0]])
                continue
            value = torch.stack([tensors[i] for i in group]).detach().reshape(len(group), -1)
            of_rows = [rows[i] for i in group]
            for row in of_rows:
                self._note(row, value, value)
            self.table(device).write_all(of_rows, value, self.sampling)

    def _put_dense(self, rows: Sequence[int], tensors: Sequence[Tensor]) -> Sequence[int]:
        """Reduces the dense ones; the places of those that are left."""
        if self.dense is None:
            return range(len(tensors))
        dense = [is_dense(tensor) for tensor in tensors]
        if any(dense):
            self.dense.write_all_dense(list(compress(rows, dense)), list(compress(tensors, dense)), self.sampling)
        return [i for i, done in enumerate(dense) if not done]

    def _note(self, row: int, tensor: Tensor, value: Tensor) -> None:
        if type(tensor) is not Tensor and is_sharded(tensor):
            self.sharded.add(row)
        if value.dtype is torch.float16:
            self.half.add(row)

    def put_range(self, tensor: Tensor) -> Place | None:
        """Only whether it is finite, in no row."""
        if self.dense is not None and is_dense(tensor):
            place = self.dense.write_dense(-1, tensor)
            return None if place is None else Place(place.table, place.slot, 0)
        value = flat(tensor)
        return None if value is None else self.table(value.device).write_range(value)

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
