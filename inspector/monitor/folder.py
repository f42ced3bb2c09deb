"""Writes a run's folder: each record goes straight to the kernel, so that a killed run loses nothing that was logged."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from inspector.monitor.arrival import Array
from inspector.records.history import Finding, History, Series
from inspector.records.runfolder import (
    FILE,
    ROWS,
    Rows,
    columns_record,
    finding_record,
    frame_record,
    header,
    histogram_record,
    json_record,
    names_record,
    rows_records,
    series_record,
)

_KIND = {name: kind for kind, name in ROWS.items()}


class Folder:
    """The open file of one run."""

    def __init__(self, path: Path, first: bytes, *, append: bool) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | (0 if append else os.O_CREAT | os.O_EXCL)
        self.file = os.open(path / FILE, flags, 0o666)
        self.declared, self.later = 0, b""
        self.columns: dict[bytes, int] = {}  # what a frame holds, packed -> its number
        self.names: dict[tuple[str, ...], int] = {}
        self.last: tuple[Array | None, int, Array] = None, 0, np.array([])  # the last frame's series, columns, order
        self._write(first)

    def frame(self, step: int, series: list[Series], at: Array, values: Array) -> None:
        """One measured step; columns that are new are declared first."""
        if at is self.last[0] and len(series) == self.declared:
            self._write(frame_record(step, self.last[1], values[self.last[2]]))
            return
        new = series_record(series[self.declared :], self.declared) if len(series) > self.declared else b""
        self.declared = len(series)
        present = np.zeros(len(series), dtype=np.bool_)
        dense = np.zeros(len(series), dtype=np.float32)
        present[at], dense[at] = True, values
        packed = len(series).to_bytes(4, "little") + np.packbits(present).tobytes()
        if packed not in self.columns:
            self.columns[packed] = len(self.columns)
            new += columns_record(present, self.columns[packed])
        self.last = at, self.columns[packed], np.argsort(at)
        self._write(new + frame_record(step, self.columns[packed], dense[present]))

    def rows(self, rows: Rows, key: str, *, later: bool = False) -> None:
        """Scalars or what is watched. later: with the next record, since going to the kernel costs as much as the rest."""
        text = b""
        for names, some in groupby(rows, lambda row: tuple(row[1])):
            text += self._named(names)
            text += rows_records(_KIND[key], list(some), self.names[names])
        self.later += text
        if not later:
            self._write(b"")

    def histogram(self, step: int, kind: str, names: list[str], counts: Array) -> None:
        all_names = (kind, *names)
        text = self._named(all_names)
        self._write(text + histogram_record(step, self.names[all_names], counts))

    def finding(self, finding: Finding) -> None:
        self._write(finding_record(vars(finding)))

    def meta(self, meta: Mapping[str, Any]) -> None:
        """Adds to what the header says, such as what monitoring cost."""
        self._write(json_record({"meta": meta}))

    def close(self) -> None:
        os.close(self.file)

    def _named(self, names: tuple[str, ...]) -> bytes:
        """Declares a list of names when it is first needed."""
        if names in self.names:
            return b""
        self.names[names] = len(self.names)
        return names_record(names, self.names[names])

    def _write(self, text: bytes) -> None:
        """Straight to the kernel, with no buffer of our own that a kill would lose."""
        if os.fstat(self.file).st_nlink == 0:  # the kernel would go on taking what nobody can read any more
            raise FileNotFoundError(f"{self.path / FILE} was removed while the run was written; nothing more can be kept")
        text, self.later = self.later + text, b""
        while text:
            text = text[os.write(self.file, text) :]


def create(path: str | Path, meta: Mapping[str, Any]) -> Folder:
    """A new run at ``path``; where there is one already, at the first free numbered sibling, which is said."""
    for number in range(1, 10_000):
        wanted = Path(path) if number == 1 else Path(f"{path}-{number}")
        try:
            wanted.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise FileExistsError(
                f"to={str(wanted)!r} is or lies in a file, and a run is a folder; give another path"
            ) from error
        try:
            folder = Folder(wanted, header(meta), append=False)
        except FileExistsError:
            continue
        if number > 1:
            print(f"inspector: {path} already holds a run, so this one goes to {wanted}", file=sys.stderr)
        return folder
    raise FileExistsError(f"{path} and 9,999 siblings of it hold runs already; give another path")


def reopen(path: str | Path, step: int) -> tuple[Folder, History]:
    """The run at ``path``, continued after ``step``, and what it holds up to there: later rows count as superseded."""
    if not (Path(path) / FILE).exists():
        raise FileNotFoundError(f"resume={step}: {path} holds no run to continue; leave resume out to begin one")
    folder = Folder(Path(path), json_record({"resume": step}), append=True)  # later rows are superseded from here on
    history = History.load(path)
    folder.declared = len(history.stats.series)
    return folder, history
