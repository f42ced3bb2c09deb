"""Plain text in columns, the way every record prints itself."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"[-+]?[\d,.]*\d(%|e[-+]?\d+)?(\s*\[.*\])?|n/a|-|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns of numbers flush right, columns of words flush left, a line of dashes under the head."""
    columns = list(zip(*[head, *rows], strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [bool(rows) and i > 0 and all(map(_NUMBER.fullmatch, column[1:])) for i, column in enumerate(columns)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(_line(cells, widths, right) for cells in lines)


def _line(cells: list[str], widths: list[int], right: list[bool]) -> str:
    parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
    return "  ".join(parts).rstrip()
