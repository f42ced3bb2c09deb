"""Keeps what was measured: in memory for the rules, in the run's folder, and in the sinks that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inspector.monitor.diagnosis import Diagnosis, Rules
from inspector.monitor.folder import Folder, create, reopen
from inspector.monitor.memory import Memory
from inspector.monitor.resolve import Resolved
from inspector.monitor.sinks import Sink, cautious
from inspector.records.history import Finding, History

Target = str | Path | Sink

_ENOUGH = 50  # steps that are watched before they are written, where none is measured


class Book:
    """The record of one run. ``to``: a folder, sinks, or nothing; ``resume``: continue in the folder after this step."""

    def __init__(self, targets: Sequence[Target], resume: int | None, rules: Rules, meta: dict[str, Any]) -> None:
        folders = [target for target in targets if not callable(target)]
        self.sinks = [cautious(target) for target in targets if callable(target)]
        to = folders[0] if folders else None
        self.memory = Memory(meta)
        self.diagnosis = Diagnosis(rules)
        self.folder: Folder | None = None
        self.unlooked = 0
        self.alarmed = False
        self.unwritten: list[tuple[int, dict[str, float]]] = []  # what was watched since the last measured step
        if to is not None and resume is not None:
            self._resume(to, resume)
        elif to is not None:
            self.folder = create(to, meta)

    def _resume(self, to: str | Path, step: int) -> None:
        self.folder, history = reopen(to, step)
        self.memory.recall(history)
        self.diagnosis.found = list(history.findings)

    def frame(self, resolved: Resolved) -> None:
        if not len(resolved.at):
            return
        self.memory.add_frame(resolved.step, resolved.at, resolved.values)
        self.unlooked += 1
        self.alarmed = self.alarmed or not np.isfinite(resolved.values).all()
        if self.folder is not None:
            self._write_watched(later=True)
            self.folder.frame(resolved.step, self.memory.series, resolved.at, resolved.values)
        if self.sinks:
            keys = [self.memory.series[i] for i in resolved.at.tolist()]
            tags = [f"{s.kind}/{s.statistic}/{s.name or 'model'}" for s in keys]
            self._send(resolved.step, dict(zip(tags, resolved.values.tolist(), strict=True)))
        for kind, names, counts in resolved.histograms:
            self.memory.add_histogram(resolved.step, kind, names, counts)
            if self.folder is not None:
                self.folder.histogram(resolved.step, kind, names, counts)

    def scalars(self, values: Iterable[tuple[int, str, float]]) -> None:
        rows = _by_step(values)
        for step, row in rows.items():
            self.memory.scalars.add(step, row)
            self._send(step, row)
        if self.folder is not None and rows:
            self.folder.rows(list(rows.items()), "scalars")

    def _send(self, step: int, values: dict[str, float]) -> None:
        for sink in self.sinks:
            sink(values, step)

    def watch(self, values: Iterable[tuple[int, str, float]]) -> None:
        rows = _by_step(values)
        for step, row in rows.items():
            self.memory.watch.add(step, row)
        self.unwritten += rows.items()
        if len(self.unwritten) >= _ENOUGH:
            self._write_watched()

    def _write_watched(self, *, later: bool = False) -> None:
        rows, self.unwritten = self.unwritten, []
        if self.folder is not None and rows:
            self.folder.rows(rows, "watch", later=later)

    def look(self) -> None:
        """Let the rules look at the recent steps."""
        self.unlooked, self.alarmed = 0, False
        if not self.diagnosis.rules:
            return
        for finding in self.diagnosis.look(self.memory.recent()):
            self.memory.findings.append(finding)
            if self.folder is not None:
                self.folder.finding(finding)

    def about(self, meta: dict[str, Any]) -> None:
        """Something that is known only now, for whoever reads the run."""
        self.memory.meta.update(meta)
        if self.folder is not None:
            self.folder.meta(meta)

    def history(self) -> History:
        return replace(self.memory.history(), findings=self.findings())

    def findings(self) -> list[Finding]:
        return self.diagnosis.ranked()

    def close(self, meta: dict[str, Any]) -> None:
        self.memory.meta.update(meta)
        folder = self.folder
        if folder is not None:
            try:
                self._write_watched()
                folder.meta(meta)
            finally:
                self.folder = None
                folder.close()


def _by_step(values: Iterable[tuple[int, str, float]]) -> dict[int, dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    for step, name, value in values:
        rows.setdefault(step, {})[name] = value
    return rows
