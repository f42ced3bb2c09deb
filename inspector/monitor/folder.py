"""Writes a run's folder: each line is flushed when it is written, so that a killed run loses nothing that was logged."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inspector.monitor.arrival import Array
from inspector.records.history import Finding, History, Series
from inspector.records.runfolder import (
    FILE,
    finding_line,
    header,
    histogram_line,
    meta_line,
    resume_line,
    scalars_line,
    series_line,
    stats_line,
)


class Folder:
    """The open file of one run."""

    def __init__(self, path: Path, text: str, *, append: bool) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | (0 if append else os.O_CREAT | os.O_EXCL)
        self.file = os.open(path / FILE, flags, 0o666)
        self.declared = 0
        self._write(text)

    def frame(self, step: int, series: list[Series], at: Array, values: Array) -> None:
        """One measured step; columns that are new are declared first."""
        text = series_line(series[self.declared :]) if len(series) > self.declared else ""
        self.declared = len(series)
        present = np.zeros(len(series), dtype=np.bool_)
        dense = np.zeros(len(series), dtype=np.float32)
        present[at], dense[at] = True, values
        self._write(text + stats_line(step, dense, present))

    def rows(self, rows: list[tuple[int, dict[str, float]]], key: str) -> None:
        """Scalars or what is watched, one line a step."""
        self._write("".join(scalars_line(step, values, key) for step, values in rows))

    def histogram(self, step: int, kind: str, names: list[str], counts: Array) -> None:
        self._write(histogram_line(step, kind, names, counts))

    def finding(self, finding: Finding) -> None:
        self._write(finding_line(vars(finding)))

    def meta(self, meta: Mapping[str, Any]) -> None:
        self._write(meta_line(meta))

    def close(self) -> None:
        os.close(self.file)

    def _write(self, text: str) -> None:
        """Straight to the kernel, with no buffer of our own that a kill would lose."""
        left = text.encode()
        while left:
            left = left[os.write(self.file, left) :]


def create(path: str | Path, meta: Mapping[str, Any]) -> Folder:
    """A new run at ``path``; where there is one already, at the first free numbered sibling, which is said."""
    for number in range(1, 10_000):
        wanted = Path(path) if number == 1 else Path(f"{path}-{number}")
        wanted.mkdir(parents=True, exist_ok=True)
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
    folder = Folder(Path(path), "\n" + resume_line(step), append=True)  # the empty line ends one that was torn
    history = History.load(path)
    folder.declared = len(history.stats.series)
    return folder, history
