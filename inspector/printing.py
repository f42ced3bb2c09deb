"""How records look at the terminal: the tables of the pages, with rich. What would move the cursor is not printed.

rich comes with the extra "demo", so it is loaded when something is printed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inspector.records.summary import INDENT
from inspector.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

WIDE = 200  # where nobody sees it but a file or another program, lines are not folded


def console() -> Console:
    """Standard output; made anew each time, since tests and notebooks replace it."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def plain(value: object) -> Text:
    """Text without markup and without control characters, which could rewrite what the terminal shows."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() or c in "\n " else "\ufffd" for c in str(value)))


def say(*lines: object) -> None:
    for line in lines:
        console().print(plain(line), soft_wrap=not sys.stdout.isatty())


def heading(words: str) -> None:
    console().rule(plain(words), align="left", style="dim")


def tables(found: Iterable[Table], *, folded: bool = False) -> None:
    """The tables that stand open on a page; folded: the others too."""
    for table in found:
        if folded or not table.folded:
            console().print(rich(table))


def fitted(table: Table, drop: Iterable[str]) -> tuple[Table, list[str]]:
    """The table without the first of ``drop`` that must go so that no line is folded, and which went."""
    gone: list[str] = []
    for name in drop:
        if _width(table) <= console().width:
            break
        if name in table.head:
            table = _without(table, table.head.index(name))
            gone.append(name)
    return table, gone


def _width(table: Table) -> int:
    return sum(max(map(len, column)) + 3 for column in zip(table.head, *table.rows, strict=True))


def _without(table: Table, at: int) -> Table:
    head, *rows = ([*row[:at], *row[at + 1 :]] for row in [table.head, *table.rows])
    numbers = frozenset(i - (i > at) for i in table.numbers if i != at)
    return table._replace(head=head, rows=rows, numbers=numbers)


def as_json(value: Any) -> None:
    """One line of JSON; numbers that JSON does not have are null."""
    print(json.dumps(_data(value), allow_nan=False, ensure_ascii=False))


def sentence(error: BaseException) -> str:
    """What went wrong in one line, without a traceback."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return str(plain(" ".join(text.split()))) or type(error).__name__


@contextmanager
def bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on standard error: a function of the share that is done and what comes next."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), BarColumn(28), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    words = TextColumn("{task.description}", markup=False)
    with Progress(*columns, words, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda done, label: progress.update(task, completed=done, description=label)


def steps(tell: Callable[[float, str], None]) -> Callable[[int, int, str], None]:
    """The same bar for those who count steps."""
    return lambda done, total, label: tell(done / total, label)


def rich(table: Table) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    drawn = RichTable(title=plain(table.caption), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(table.head):
        number = i in table.numbers
        drawn.add_column(plain(name), justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(plain(cell.replace(INDENT, "  ")) for cell in row))
    return drawn


def _data(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(item) for item in value]
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return _data(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)
