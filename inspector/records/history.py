"""History: what happened while training, by step or by epoch, and the findings about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from inspector.records.saved import Saved

Column = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Finding:
    """Something wrong, with its evidence: which rule, where, since which step, the value against its threshold."""

    rule: str
    name: str
    step: int
    value: float
    threshold: float
    message: str
    advice: str = ""
    source: str = ""

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        return (
            f"[{self.rule}] {self.message} (since step {self.step}: {self.value:.4g} against {self.threshold:.4g}).{advice}"
        )


class Stats(Mapping[str, Column]):
    """A long table of equally long columns: step, kind, name, statistic, value. ``stats["value"]`` is a numpy array."""

    COLUMNS = ("step", "kind", "name", "statistic", "value")

    def __init__(self, columns: Mapping[str, Any] | None = None) -> None:
        given = columns or {}
        types = {"step": np.int64, "value": np.float64}
        self.columns = {c: np.asarray(given.get(c, []), dtype=types.get(c, np.str_)) for c in self.COLUMNS}

    def __getitem__(self, column: str) -> Column:
        if column not in self.columns:
            raise KeyError(f"{column!r} is no column; there are {', '.join(self.COLUMNS)}")
        return self.columns[column]

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.columns["step"])

    def where(self, **equal: Any) -> Stats:
        """The rows in which every named column equals the given value: ``stats.where(kind="grad", name="fc")``."""
        keep = np.ones(self.rows, dtype=bool)
        for column, wanted in equal.items():
            keep &= self[column] == wanted
        return Stats({column: values[keep] for column, values in self.columns.items()})

    def unique(self, column: str) -> list[Any]:
        """The different values of a column in order of first appearance (for names: execution order)."""
        return list(dict.fromkeys(self[column].tolist()))

    def __repr__(self) -> str:
        return f"Stats({self.rows} rows: {len(self.unique('name'))} names, {', '.join(self.unique('statistic'))})"


@dataclass(eq=False)
class History(Saved):
    """``scalars[name]`` is (steps, values), two arrays; ``stats`` the statistics per layer; ``findings`` what is wrong.

    unit: "step" or "epoch". meta: model class, seed, versions and whatever else the maker knew.
    """

    unit: Literal["step", "epoch"] = "step"
    scalars: dict[str, tuple[Column, Column]] = field(default_factory=dict)
    stats: Stats = field(default_factory=Stats)
    findings: list[Finding] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    def to_tree(self) -> dict[str, Any]:
        stats = {c: v if v.dtype.kind in "if" else v.tolist() for c, v in self.stats.columns.items()}
        scalars = {name: (np.asarray(s), np.asarray(v)) for name, (s, v) in self.scalars.items()}
        return super().to_tree() | {"scalars": scalars, "stats": stats, "findings": [asdict(f) for f in self.findings]}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        findings = [Finding(**f) for f in tree["findings"]]
        return cls(**tree | {"stats": Stats(tree["stats"]), "findings": findings})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved history, or the folder of a run: also one that still goes on, or that was killed."""
        if Path(path).is_dir():
            from inspector.records.runfolder import read  # it builds a History, so it cannot come first

            return cls.from_tree(read(Path(path)))
        return super().load(path)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, (_, values) in self.scalars.items() if len(values))
        count = max((len(steps) for steps, _ in self.scalars.values()), default=0)
        found = f"; {len(self.findings)} findings" if self.findings else ""
        return f"History({count} {self.unit}s{': last ' * bool(last)}{last}{found})"
