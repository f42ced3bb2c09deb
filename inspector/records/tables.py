"""Plain text in columns, the way every record prints itself."""

from __future__ import annotations


def table(head: list[str], rows: list[list[str]]) -> str:
    """The first column flush left, the others flush right, a line of dashes under the head."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in [head, *rows]
    ]
    return "\n".join("  ".join(line).rstrip() for line in [lines[0], ["-" * w for w in widths], *lines[1:]])
