"""The folder of a run: one append-only file of records, written whole, so that all that was written is readable.

What a column of numbers means is said once, and a step is then its number and four bytes a value; what the user logged
takes four bytes too where float32 holds it exactly, else eight. ``resume`` marks the rows of later steps as superseded;
nothing is ever rewritten.
"""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from os import SEEK_END
from pathlib import Path
from typing import Any

import numpy as np

from inspector.records.framing import pack, records
from inspector.records.history import Finding
from inspector.records.stats import Column, Frame, Series, Stats, as_series

FILE = "history.run"
FORMAT = "inspector-run/1"
MAPPED = 1 << 24  # bytes from which a file is mapped instead of read
ROWS = {"s": "scalars", "w": "watch"}  # kinds of records that hold rows: what the user logged, what is checked each step

Rows = list[tuple[int, dict[str, float]]]

_FRAME = struct.Struct("<II")  # step, which columns
_COLUMNS = struct.Struct("<II")  # their number, of how many series
_ROWS = struct.Struct("<IcII")  # which names, f4 or f8, first step, steps between two rows
_HISTOGRAM = struct.Struct("<IIB")  # step, which names, bins


def json_record(content: Mapping[str, Any]) -> bytes:
    """What is said once: the header, series, names, findings, and facts about the run."""
    return pack("j", _small(json.dumps(content, separators=(",", ":"), default=str).encode()))


def header(meta: Mapping[str, Any], unit: str = "step") -> bytes:
    return json_record({"inspector": FORMAT, "unit": unit, "meta": meta})


def series_record(series: Sequence[Series], first: int) -> bytes:
    """Declares further series; ``first``: how many there were before."""
    return json_record({"series": series, "first": first})


def names_record(names: Sequence[str], number: int) -> bytes:
    return json_record({"names": names, "number": number})


def columns_record(present: Column, number: int) -> bytes:
    """Which of the series declared so far a frame holds; frames tell it by its number."""
    return pack("c", _COLUMNS.pack(number, len(present)), _small(np.packbits(present).tobytes()))


def frame_record(step: int, columns: int, values: Column) -> bytes:
    return pack("f", _FRAME.pack(step, columns), values.astype("<f4").tobytes())


def rows_records(kind: str, rows: Rows, names_number: int) -> bytes:
    """Rows that all have the same names: a record for each run of steps that lie equally far apart."""
    found = b""
    for run in _runs([step for step, _ in rows]):
        first, apart = rows[run[0]][0], rows[run[1]][0] - rows[run[0]][0] if len(run) > 1 else 1
        values = [value for i in run for value in rows[i][1].values()]  # so few that numpy would take longer
        exact = all(four == value or value != value for four, value in zip(array("f", values), values, strict=True))
        head = _ROWS.pack(names_number, b"4" if exact else b"8", first, apart)
        found += pack(kind, head, struct.pack(f"<{len(values)}{'f' if exact else 'd'}", *values))
    return found


def histogram_record(step: int, names_number: int, counts: Column) -> bytes:
    """counts (names, bins); their bytes are sorted by significance, which makes most of them zeros in a row."""
    planes = np.ascontiguousarray(counts.astype("<u8")).view(np.uint8).reshape(*counts.shape, 8).transpose(2, 0, 1)
    return pack("h", _HISTOGRAM.pack(step, names_number, counts.shape[1]), _small(planes.tobytes()))


def finding_record(finding: Mapping[str, Any]) -> bytes:
    """JSON has no NaN and no infinity: they are written as text, which float() reads."""
    plain = {k: str(v) if isinstance(v, float) and not np.isfinite(v) else v for k, v in finding.items()}
    return json_record({"finding": plain})


def read(folder: Path) -> dict[str, Any]:
    """The fields of a History from a run's folder. Raises FileNotFoundError, or ValueError if it is no run of ours."""
    run = Run(folder)
    run.update()
    return run.fields()


class Run:
    """A run as far as it was read; ``update`` reads what was written since."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        if not self.path.is_file():
            raise FileNotFoundError(f"{folder} holds no {FILE}; give the folder that a Monitor(to=...) wrote")
        self.read = 0
        self.unit = ""
        self.meta: dict[str, Any] = {}
        self.series: list[Series] = []
        self.columns: dict[int, Column] = {}
        self.names: dict[int, list[str]] = {}
        self.frames: list[Frame] = []
        self.rows: dict[str, list[tuple[int, dict[str, Any]]]] = {kind: [] for kind in ROWS}
        self.histograms: list[tuple[int, list[str], Column]] = []
        self.findings: list[Finding] = []

    def update(self) -> bool:
        """Read on; was there anything new? Raises ValueError if the file is not the run of a monitor."""
        done = 0
        for kind, body, end in records(self._unread()):
            with suppress(ValueError, LookupError, TypeError, struct.error, zlib.error):  # of another version, say
                self._add(kind, body)
            done = end
        self.read += done
        if not self.unit:
            raise ValueError(f"{self.path} does not begin with {FORMAT!r}: it is no run, or one of another version")
        return done > 0

    def _unread(self) -> bytes | mmap:
        """What was not read yet. A large file is mapped: its numbers then take no memory that the system could not have
        back. Each record's checksum is compared here, once; the file is only ever appended to."""
        with self.path.open("rb") as file:
            if not self.read and file.seek(0, SEEK_END) >= MAPPED:
                return mmap(file.fileno(), 0, access=ACCESS_READ)
            file.seek(self.read)
            return file.read()

    def _add(self, kind: str, body: memoryview) -> None:
        if kind == "f":
            step, number = _FRAME.unpack_from(body)
            values = np.frombuffer(body, "<f4", offset=_FRAME.size)
            self.frames.append((step, self.columns[number], values))
        elif kind in ROWS:
            self.rows[kind] += self._rows(body)
        elif kind == "h":
            self.histograms.append(self._histogram(body))
        elif kind == "c":
            number, count = _COLUMNS.unpack_from(body)
            bits = np.frombuffer(_large(body[_COLUMNS.size :]), np.uint8)
            self.columns[number] = np.flatnonzero(np.unpackbits(bits, count=count))
        elif kind == "j":
            self._say(json.loads(_large(body)))

    def _rows(self, body: memoryview) -> Iterator[tuple[int, dict[str, Any]]]:
        number, size, first, apart = _ROWS.unpack_from(body)
        names = self.names[number]
        values = np.frombuffer(body, f"<f{size.decode()}", offset=_ROWS.size).reshape(-1, len(names))
        for i, row in enumerate(values.tolist()):
            yield first + i * apart, dict(zip(names, row, strict=True))

    def _histogram(self, body: memoryview) -> tuple[int, list[str], Column]:
        step, number, bins = _HISTOGRAM.unpack_from(body)
        names = self.names[number]
        planes = np.frombuffer(_large(body[_HISTOGRAM.size :]), np.uint8).reshape(8, len(names) - 1, bins)
        counts = np.ascontiguousarray(planes.transpose(1, 2, 0)).view("<u8")[..., 0].astype(np.int64)
        return step, names, counts

    def _say(self, line: dict[str, Any]) -> None:
        if line.get("inspector") == FORMAT and not self.unit:
            self.unit, self.meta = line["unit"], dict(line["meta"])
        elif "series" in line:
            lost = range(len(self.series), line["first"])  # their declaration was spoilt
            self.series += [*(Series("lost", f"column {i}", "lost") for i in lost), *as_series(line["series"])]
        elif "names" in line:
            self.names[line["number"]] = line["names"]
        elif "finding" in line:
            found = line["finding"]
            self.findings.append(Finding(**found | {k: float(found[k]) for k in ("value", "threshold")}))
        elif "resume" in line:
            self._supersede(int(line["resume"]))
        elif "meta" in line:
            self.meta |= line["meta"]

    def _supersede(self, step: int) -> None:
        """Who resumes declares its columns and names anew."""
        self.columns, self.names = {}, {}
        self.frames = [frame for frame in self.frames if frame[0] <= step]
        self.rows = {kind: [row for row in rows if row[0] <= step] for kind, rows in self.rows.items()}
        self.histograms = [row for row in self.histograms if row[0] <= step]
        self.findings = [finding for finding in self.findings if finding.step <= step]

    def fields(self, *, histograms: bool = True) -> dict[str, Any]:
        """What was read so far, as a History takes it; findings in the order of the rules, as the monitor ranks them."""
        rank = {name: i for i, name in enumerate(self.meta.get("rules", []))}
        findings = sorted(self.findings, key=lambda f: (rank.get(f.rule, len(rank)), f.step))
        found: dict[str, Any] = {"unit": self.unit, "stats": Stats.framed(self.frames, self.series), "meta": dict(self.meta)}
        found |= {ROWS[kind]: columns(rows) for kind, rows in self.rows.items()}
        return found | {"histograms": _stacked(self.histograms) if histograms else {}, "findings": findings}


def block(frames: Sequence[Frame], series: Sequence[Series]) -> Stats:
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


def _stacked(rows: list[tuple[int, list[str], Column]]) -> dict[str, dict[str, tuple[Column, Column]]]:
    found: dict[str, dict[str, tuple[list[int], list[Column]]]] = {}
    for step, (kind, *names), counts in rows:
        for name, row in zip(names, counts, strict=True):
            steps, kept = found.setdefault(kind, {}).setdefault(name, ([], []))
            steps.append(step)
            kept.append(row)
    return {
        kind: {name: (np.array(steps, np.int64), np.stack(kept)) for name, (steps, kept) in of_kind.items()}
        for kind, of_kind in found.items()
    }


def _small(data: bytes) -> bytes:
    """Deflated, without the head and checksum of zlib, which a record has already."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush()


def _large(data: memoryview) -> bytes:
    return zlib.decompress(data, -15)


def _runs(steps: list[int]) -> Iterator[range]:
    """Cuts 1 2 3 10 20 30 into stretches whose steps rise by one and the same number."""
    begin = 0
    gaps = [b - a for a, b in pairwise(steps)]
    for i in range(1, len(steps)):
        if gaps[i - 1] <= 0 or (i - begin > 1 and gaps[i - 1] != gaps[begin]):
            yield range(begin, i)
            begin = i
    if steps:
        yield range(begin, len(steps))
