"""Plain text in columns, the way every record prints itself."""

from __future__ import annotations

import re
import shutil
import textwrap

WIDE = 1_000_000  # where nothing is folded
_NUMBER = re.compile(r"[-+]?[\d,.]*\d(%|e[-+]?\d+)?(\s*\[.*\])?|n/a|-|")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns of numbers flush right, columns of words flush left, a line of dashes under the head."""
    columns = list(zip(*[head, *rows], strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [bool(rows) and i > 0 and all(map(_NUMBER.fullmatch, column[1:])) for i, column in enumerate(columns)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(_line(cells, widths, right) for cells in lines)


def screen() -> int:
    """How many characters fit in a line: of the terminal, or as the variable COLUMNS says; 120 where nobody does."""
    return shutil.get_terminal_size((120, 24)).columns


def folded(head: list[str], rows: list[list[str]], width: int) -> str:
    """The table in as many parts as it takes to keep within ``width``, each with the first column again."""
    sizes = [max(map(len, column)) for column in zip(*[head, *rows], strict=True)]
    parts, used = [[0]], sizes[0]
    for i, size in enumerate(sizes[1:], 1):
        if used + 2 + size > width and len(parts[-1]) > 1:
            parts, used = [*parts, [0]], sizes[0]
        parts[-1].append(i)
        used += 2 + size
    return "\n\n".join(table([head[i] for i in part], [[row[i] for i in part] for row in rows]) for part in parts)


def wrapped(line: str, width: int) -> str:
    """A sentence in lines of ``width``, those after the first indented."""
    return textwrap.fill(line, max(width, 20), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _line(cells: list[str], widths: list[int], right: list[bool]) -> str:
    parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
    return "  ".join(parts).rstrip()
