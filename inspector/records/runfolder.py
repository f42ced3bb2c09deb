"""The folder of a run: one append-only file of JSON lines, flushed line by line, so that all that was written is readable.

Statistics are float32 in base64 (5.3 bytes a value); what a column means is said once. A line that was torn by a crash
is skipped. ``resume`` marks the rows of later steps as superseded, and nothing is ever rewritten.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inspector.records.stats import Column, Series, Stats, as_series

FILE = "history.jsonl"
FORMAT = "inspector-run/1"


def header(meta: Mapping[str, Any], unit: str = "step") -> str:
    return _line({"inspector": FORMAT, "unit": unit, "meta": meta})


def series_line(series: Sequence[Series]) -> str:
    """Declares further columns: they follow the ones declared before."""
    return _line({"series": series})


def stats_line(step: int, values: Column, present: Column) -> str:
    """One value for each column declared so far that is present at this step."""
    line: dict[str, Any] = {"step": step, "values": _pack(values[present].astype("<f4"))}
    if not present.all():
        line["columns"] = _pack(np.packbits(present))
    return _line(line | {"of": len(present)})


def scalars_line(step: int, scalars: Mapping[str, float], key: str = "scalars") -> str:
    """key: "scalars" for what the user logged, "watch" for what is checked at every step."""
    return _line({"step": step, key: {name: _number(value) for name, value in scalars.items()}})


def histogram_line(step: int, kind: str, names: Sequence[str], counts: Column) -> str:
    """counts (names, bins)."""
    return _line({"step": step, "histogram": kind, "names": names, "counts": _pack(counts.astype("<i4"))})


def finding_line(finding: Mapping[str, Any]) -> str:
    return _line({"finding": {key: _number(v) if isinstance(v, float) else v for key, v in finding.items()}})


def resume_line(step: int) -> str:
    """Rows of later steps written so far are superseded."""
    return _line({"resume": step})


def meta_line(meta: Mapping[str, Any]) -> str:
    """Adds to what the header says, such as what monitoring cost."""
    return _line({"meta": meta})


def read(folder: Path) -> dict[str, Any]:
    """The tree of a History from a run's folder. Raises FileNotFoundError, or ValueError if it is no run of ours."""
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {FILE}; give the folder that a Monitor(to=...) or fit wrote")
    lines = _lines(path)
    first = next(lines, {})
    if first.get("inspector") != FORMAT:
        raise ValueError(f"{path} does not begin with {FORMAT!r}: it is no run of this library, or of another version")
    run = _Run(first.get("unit", "step"), dict(first.get("meta", {})))
    for line in lines:
        run.add(line)
    return run.tree()


class _Run:
    """The rows read so far."""

    def __init__(self, unit: str, meta: dict[str, Any]) -> None:
        self.unit, self.meta = unit, meta
        self.series: list[Series] = []
        self.frames: list[tuple[int, Column, Column]] = []  # step, which columns, values
        self.scalars: list[tuple[int, dict[str, Any]]] = []
        self.watch: list[tuple[int, dict[str, Any]]] = []
        self.histograms: list[tuple[int, str, list[str], Column]] = []
        self.findings: list[dict[str, Any]] = []

    def add(self, line: dict[str, Any]) -> None:
        if "series" in line:
            self.series += as_series(line["series"])
        elif "values" in line:
            self.frames.append((int(line["step"]), _columns(line), _unpack(line["values"], "<f4")))
        elif "scalars" in line:
            self.scalars.append((int(line["step"]), line["scalars"]))
        elif "watch" in line:
            self.watch.append((int(line["step"]), line["watch"]))
        elif "histogram" in line:
            counts = _unpack(line["counts"], "<i4").reshape(len(line["names"]), -1)
            self.histograms.append((int(line["step"]), line["histogram"], line["names"], counts))
        elif "finding" in line:
            self.findings.append({k: float(v) if k in ("value", "threshold") else v for k, v in line["finding"].items()})
        elif "resume" in line:
            self._supersede(int(line["resume"]))
        elif "meta" in line:
            self.meta |= line["meta"]

    def _supersede(self, step: int) -> None:
        self.frames = [frame for frame in self.frames if frame[0] <= step]
        self.scalars = [row for row in self.scalars if row[0] <= step]
        self.watch = [row for row in self.watch if row[0] <= step]
        self.histograms = [row for row in self.histograms if row[0] <= step]
        self.findings = [finding for finding in self.findings if finding["step"] <= step]

    def tree(self) -> dict[str, Any]:
        stats = block(self.frames, self.series).to_tree()
        tree = {"unit": self.unit, "stats": stats, "findings": self.findings, "meta": self.meta}
        tree |= {"scalars": columns(self.scalars), "watch": columns(self.watch)}
        return tree | {"histograms": _stacked(self.histograms)}


def block(frames: Sequence[tuple[int, Column, Column]], series: Sequence[Series]) -> Stats:
    """Frames (step, which columns, their values) as Stats; frames of one step are one row."""
    steps = sorted({step for step, _, _ in frames})
    row_of = {step: i for i, step in enumerate(steps)}
    values = np.full((len(steps), len(series)), np.nan, dtype=np.float32)
    present = np.zeros(values.shape, dtype=bool)
    for step, at, numbers in frames:
        values[row_of[step], at] = numbers
        present[row_of[step], at] = True
    return Stats.dense(steps, series, values, present)


def columns(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[str, tuple[Column, Column]]:
    """Rows of scalars as name -> (steps, values)."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for step, scalars in rows:
        for name, value in scalars.items():
            steps, values = found.setdefault(name, ([], []))
            steps.append(step)
            values.append(float(value))
    return {name: (np.array(steps, np.int64), np.array(values, np.float64)) for name, (steps, values) in found.items()}


def _stacked(rows: list[tuple[int, str, list[str], Column]]) -> dict[str, dict[str, tuple[Column, Column]]]:
    found: dict[str, dict[str, tuple[list[int], list[Column]]]] = {}
    for step, kind, names, counts in rows:
        for name, row in zip(names, counts, strict=True):
            steps, kept = found.setdefault(kind, {}).setdefault(name, ([], []))
            steps.append(step)
            kept.append(row)
    return {
        kind: {name: (np.array(steps, np.int64), np.stack(kept)) for name, (steps, kept) in of_kind.items()}
        for kind, of_kind in found.items()
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:  # torn by a crash, or still being written
                continue
            if isinstance(line, dict):
                yield line


def _columns(line: dict[str, Any]) -> Column:
    if "columns" not in line:
        return np.arange(line["of"])
    return np.flatnonzero(np.unpackbits(_unpack(line["columns"], "u1"), count=line["of"]))


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), default=str) + "\n"


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they are written as text, which float() reads."""
    return value if np.isfinite(value) else str(value)


def _pack(array: Column) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _unpack(text: str, dtype: str) -> Column:
    return np.frombuffer(base64.b64decode(text), dtype=dtype)
