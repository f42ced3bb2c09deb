"""Summary: the structure of a model as one honest table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from inspector.records.saved import Saved
from inspector.records.tables import table


@dataclass(frozen=True)
class Row:
    """One call of one module. output: shapes as text; parameters: its own, not its children's; None = not known."""

    name: str
    kind: str
    call: int | None = None
    depth: int = 0
    output: str = ""
    dtype: str = ""
    parameters: int = 0
    trainable: int = 0
    shared_with: str | None = None
    note: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Summary(Saved):
    """Rows in run order and totals; each parameter is counted once in the totals however often it is used."""

    model: str
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    buffers: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_tree(self) -> dict[str, Any]:
        return super().to_tree() | {"rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        return cls(**tree | {"rows": tuple(Row(**row) for row in tree["rows"])})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"rows": [asdict(row) for row in self.rows]}

    def __repr__(self) -> str:
        rows = [
            [_label(r), r.kind, r.output, r.dtype, f"{r.parameters:,}" if r.parameters else "", r.note] for r in self.rows
        ]
        total = f"{self.model}: {self.parameters:,} parameters, {self.trainable:,} trainable"
        return table(["module", "type", "output", "dtype", "parameters", ""], rows) + "\n" + total


def _label(row: Row) -> str:
    call = "" if row.call is None else f"@{row.call}"
    return "  " * row.depth + (row.name or "(model)") + call
