"""Summary: the structure of a model as one honest table, in which every column adds up to its total."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from inspector.records.saved import Saved
from inspector.records.tables import table


@dataclass(frozen=True)
class Row:
    """One call of one module, without what its children did in it. None = not known, because nothing was run.

    output: shapes as text; parameters: its own, at its first call only; multiply_adds: of its own operations;
    output_bytes: of its own tensors; saved_bytes: kept for backward; seconds: median over the runs.
    """

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
    multiply_adds: int | None = None
    output_bytes: int | None = None
    saved_bytes: int | None = None
    seconds: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Operations(NamedTuple):
    """How many of the operations that compute something have a known number of multiply-adds; the others by name."""

    counted: int
    total: int
    skipped: Mapping[str, int] = {}

    def __str__(self) -> str:
        names = ", ".join(f"{name} x{count}" if count > 1 else name for name, count in list(self.skipped.items())[:8])
        rest = f"; none for {names}" if names else ""
        more = f" and {len(self.skipped) - 8} more kinds" if len(self.skipped) > 8 else ""
        return f"{self.counted} of {self.total} operations counted{rest}{more}"


@dataclass(frozen=True, eq=False)
class Summary(Saved):
    """Rows in run order and totals; each parameter is counted once in the totals however often it is used.

    multiply_adds, output_bytes, saved_bytes (kept for backward, parameters and buffers apart) and seconds (median of
    whole runs) are None where the model was not run; operations says what the multiply-adds leave out.
    extra["origin"]: class, parameter checksum and versions of the model.
    """

    model: str
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    buffers: int = 0
    multiply_adds: int | None = None
    output_bytes: int | None = None
    saved_bytes: int | None = None
    seconds: float | None = None
    operations: Operations | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frozen(self) -> int:
        """Parameters that do not require gradients."""
        return self.parameters - self.trainable

    def to_tree(self) -> dict[str, Any]:
        operations = None if self.operations is None else tuple(self.operations)
        return super().to_tree() | {"rows": [asdict(row) for row in self.rows], "operations": operations}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        operations = None if tree["operations"] is None else Operations(*tree["operations"])
        return cls(**tree | {"rows": tuple(Row(**row) for row in tree["rows"]), "operations": operations})

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        operations = None if self.operations is None else self.operations._asdict()
        return asdict(self) | {"rows": [asdict(row) for row in self.rows], "operations": operations}

    def to_markdown(self) -> str:
        """The table as Markdown, numbers flush right, and the totals below."""
        columns = self._columns()
        head = ["|".join(["", *(f" {c.name} " for c in columns), ""])]
        head += ["|".join(["", *(" ---: " if c.number else " --- " for c in columns), ""])]
        body = ["|".join(["", *(f" {_markdown(c.cell(row))} " for c in columns), ""]) for row in self.rows]
        return "\n".join([*head, *body, "", *self.totals()])

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Column names and rows of text; a column of which nothing is known is left out."""
        columns = self._columns()
        return [c.name for c in columns], [[c.cell(row) for c in columns] for row in self.rows]

    def totals(self) -> list[str]:
        """What the table adds up to, one sentence a line."""
        frozen = f", {self.frozen:,} frozen" if self.frozen else ""
        buffers = f", {self.buffers:,} numbers in buffers" if self.buffers else ""
        lines = [f"{self.model}: {self.parameters:,} parameters, {self.trainable:,} trainable{frozen}{buffers}"]
        if self.multiply_adds is not None:
            lines += [f"{self.multiply_adds:,} multiply-adds ({self.operations})"]
        if self.saved_bytes is not None:
            lines += [f"{in_bytes(self.output_bytes)} of outputs, {in_bytes(self.saved_bytes)} kept for backward"]
        return [*lines, *([f"{in_seconds(self.seconds)} a run (median)"] if self.seconds is not None else [])]

    def _columns(self) -> list[_Column]:
        return [c for c in COLUMNS if not c.optional or any(c.cell(row) for row in self.rows)]

    def __repr__(self) -> str:
        head, rows = self.cells()
        plain = [[cell.replace(INDENT, "  ") for cell in row] for row in rows]
        return "\n".join([table(head, plain), *self.totals()])

    def _repr_html_(self) -> str:
        head, rows = self.cells()
        sides = ["text-align:right" if name in NUMBERS else "text-align:left" for name in head]
        style = [f'style="{side};padding:1px 10px;white-space:nowrap"' for side in sides]
        cells = ["".join(f"<td {s}>{html.escape(cell)}</td>" for s, cell in zip(style, row, strict=True)) for row in rows]
        body = "".join(f"<tr>{row}</tr>" for row in cells[:SHOWN])
        more = [f"{SHOWN} of {len(rows)} rows shown"] * (len(rows) > SHOWN)
        names = "".join(f"<th {s}>{name}</th>" for s, name in zip(style, head, strict=True))
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in [*self.totals(), *more])
        return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>{lines}"


SHOWN = 500
INDENT = "\u00a0\u00a0\u00a0"  # spaces that HTML and Markdown keep and never break


class _Column(NamedTuple):
    name: str
    cell: Callable[[Row], str]
    number: bool = True
    optional: bool = True


def in_bytes(count: int | None) -> str:
    """Bytes for people, in powers of ten."""
    if count is None:
        return ""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def in_seconds(seconds: float | None) -> str:
    """Seconds for people."""
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _count(number: int | None) -> str:
    return f"{number:,}" if number else ""


def _label(row: Row) -> str:
    call = "" if row.call is None else f"@{row.call}"
    return INDENT * row.depth + (row.name or "(model)") + call


def _remark(row: Row) -> str:
    shared = f"shared with {row.shared_with}" if row.shared_with else ""
    frozen = f"{row.parameters - row.trainable:,} frozen" if row.parameters > row.trainable else ""
    return "; ".join(filter(None, [frozen, shared, row.note]))


def _markdown(cell: str) -> str:
    return html.escape(cell, quote=False).replace("|", "\\|").replace("\n", " ")


COLUMNS = (
    _Column("module", _label, number=False, optional=False),
    _Column("type", lambda row: row.kind, number=False, optional=False),
    _Column("output", lambda row: row.output, number=False),
    _Column("dtype", lambda row: row.dtype, number=False),
    _Column("parameters", lambda row: _count(row.parameters), optional=False),
    _Column("multiply-adds", lambda row: _count(row.multiply_adds)),
    _Column("output bytes", lambda row: in_bytes(row.output_bytes or None)),
    _Column("kept for backward", lambda row: in_bytes(row.saved_bytes or None)),
    _Column("time", lambda row: in_seconds(row.seconds)),
    _Column("remarks", _remark, number=False),
)
NUMBERS = frozenset(column.name for column in COLUMNS if column.number)
