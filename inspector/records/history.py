"""History: what happened while training, by step or by epoch, and the findings about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from inspector.records.html import as_html
from inspector.records.saved import Saved
from inspector.records.stats import Column, Series, Stats

__all__ = ["LOG2_BINS", "Column", "Finding", "History", "Series", "Stats"]

# What each bin of a histogram counts: zeros, then 2**e <= |v| < 2**(e + 1) for e from -40 to 23 (the first and the
# last take what lies beyond), then what is not finite. One set for all, so that counts can be added.
LOG2_BINS: tuple[str, ...] = ("zero", *(f"2**{e}" for e in range(-40, 24)), "not finite")


@dataclass(frozen=True)
class Finding(Saved):
    """Something wrong, with its evidence: which rule, where, since which step, the value against its threshold."""

    rule: str
    name: str
    step: int
    value: float
    threshold: float
    message: str
    advice: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        advice = f" {self.advice}" if self.advice else ""
        return (
            f"[{self.rule}] {self.message} (since step {self.step}: {self.value:.4g} against {self.threshold:.4g}).{advice}"
        )

    _repr_html_ = as_html


@dataclass(eq=False)
class History(Saved):
    """``scalars[name]`` is (steps, values), two arrays; ``stats`` the statistics per layer; ``findings`` what is wrong.

    histograms[kind][name] is (steps, counts): counts (steps, 66) of the absolute value by power of two, in the bins of
    ``LOG2_BINS``; the bins are fixed, so histograms of several steps or runs add up.
    watch[name] is (steps, values) like a scalar: what every step is checked for, "grad_norm" (of the applied gradients).
    unit: "step" or "epoch". meta: model class, seed, versions and whatever else the maker knew.
    """

    unit: Literal["step", "epoch"] = "step"
    scalars: dict[str, tuple[Column, Column]] = field(default_factory=dict)
    stats: Stats = field(default_factory=Stats)
    findings: list[Finding] = field(default_factory=list)
    histograms: dict[str, dict[str, tuple[Column, Column]]] = field(default_factory=dict)
    watch: dict[str, tuple[Column, Column]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def to_tree(self) -> dict[str, Any]:
        scalars = {name: (np.asarray(s), np.asarray(v)) for name, (s, v) in self.scalars.items()}
        findings = [asdict(f) for f in self.findings]
        return super().to_tree() | {"scalars": scalars, "stats": self.stats.to_tree(), "findings": findings}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        findings = [Finding(**f) for f in tree["findings"]]
        return cls(**tree | {"stats": Stats.from_tree(tree["stats"]), "findings": findings})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved history, or the folder of a run: also one that still goes on, or that was killed."""
        from inspector.records.runfolder import FILE, read  # it needs Finding, so it cannot come first

        if not Path(path).exists():
            raise FileNotFoundError(f"{path} does not exist; give the folder of a Monitor(to=...), or what .save() wrote")
        if Path(path).is_dir():
            return cls(**read(Path(path)))
        return cls(**read(Path(path).parent)) if Path(path).name == FILE else super().load(path)

    def to_pandas(self) -> Any:
        """The statistics as a pandas DataFrame with the columns step, kind, name, statistic, value; needs pandas."""
        try:
            import pandas  # type: ignore[import-untyped,unused-ignore]
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas, which is not installed: pip install pandas") from error
        return pandas.DataFrame(dict(self.stats))

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, (_, values) in self.scalars.items() if len(values))
        logged = (len(steps) for steps, _ in [*self.scalars.values(), *self.watch.values()])
        count = max([len(self.stats.steps), *logged])
        found = f"; {len(self.findings)} findings" if self.findings else ""
        return f"History({count} {self.unit}s{': last ' * bool(last)}{last}{found})"

    _repr_html_ = as_html
