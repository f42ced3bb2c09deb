"""What a notebook shows of a record: its own plain text as an escaped table. Pure and bounded: no network, no script."""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise

ROWS = 200
LONGEST = 400  # characters of one cell
_RULE = re.compile(r"-+(  -+)*")
_CELL = 'style="text-align:{};padding:1px 10px;white-space:pre"'
_NUMBER = re.compile(r"[-+]?[\d,.]*\d(%|e[-+]?\d+)?(\s*\[.*\])?\S*|n/a|-|")


def as_html(record: object) -> str:
    """``repr(record)`` as HTML; a table where the text is one, at most 200 rows of it, everything escaped."""
    return text_as_html(repr(record))


def text_as_html(text: str) -> str:
    """Plain text as HTML; its table as one."""
    lines = text.split("\n")
    rule = next((i for i, line in enumerate(lines) if i and _RULE.fullmatch(line)), None)
    if rule is None:
        return "".join(_line(line) for line in lines[:ROWS])
    spans = [match.span() for match in re.finditer("-+", lines[rule])]
    end = next((i for i in range(rule + 1, len(lines)) if not _fits(lines[i], spans)), len(lines))
    rows = [_cells(line, spans) for line in lines[rule + 1 : end]]
    more = [f"{ROWS} of {len(rows)} rows shown"] if len(rows) > ROWS else []
    before = "".join(map(_line, lines[: rule - 1]))
    after = "".join(map(_line, [*more, *lines[end : end + ROWS]]))
    return before + _table(_cells(lines[rule - 1], spans), rows) + after


def _fits(line: str, spans: list[tuple[int, int]]) -> bool:
    """Whether a line keeps to the columns: two spaces between them, and nothing beyond the last."""
    gaps = [line[end:start] for (_, end), (start, _) in pairwise(spans)]
    return len(line) <= spans[-1][1] and all(not gap.strip() for gap in gaps)


def _cells(line: str, spans: list[tuple[int, int]]) -> list[str]:
    return [line[start:end].rstrip() for start, end in spans]


def _table(head: list[str], rows: list[list[str]]) -> str:
    columns = list(zip(*rows, strict=True)) or [() for _ in head]
    right = [i > 0 and all(_NUMBER.fullmatch(c.strip()) for c in column) for i, column in enumerate(columns)]
    top = "".join(f'<th scope="col" {_style(r)}>{_text(c)}</th>' for c, r in zip(head, right, strict=True))
    body = "".join(f"<tr>{_row(row, right)}</tr>" for row in rows[:ROWS])
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _row(row: list[str], right: list[bool]) -> str:
    return "".join(f"<td {_style(r)}>{_text(c)}</td>" for c, r in zip(row, right, strict=True))


def _style(right: bool) -> str:
    return _CELL.format("right" if right else "left")


def _text(cell: str) -> str:
    cell = cell if len(cell) <= LONGEST else f"{cell[: LONGEST - 1]}…"
    return escape(cell.strip() if _NUMBER.fullmatch(cell.strip()) else cell)


def _line(line: str) -> str:
    return f"<div>{escape(line[:4000])}</div>" if line else ""
