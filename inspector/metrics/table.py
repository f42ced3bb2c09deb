"""The table of metrics. A row says what a number means: which way is better, its range, what of the map it reads, what
takes the place of removed positions, and whose definition it is.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from inspector.metrics import evidence, fidelity, removal, robustness, sanity, shape
from inspector.metrics.baselines import check_name
from inspector.records import Attribution, Curve
from inspector.records.html import as_html
from inspector.records.tables import table

Judge = Callable[..., Tensor | Curve]  # (model, attribution, **options) -> (batch,)
Better = Literal["high", "low"]


@dataclass(frozen=True)
class Metric:
    """One row, and callable as its function. range: the bounds of a score, in words where they are the output's own.

    reads: "order" (ranks only), "signed" or "absolute" values. baseline: what removed positions become. needs: "evidence"
    in the samples, or "explain", which means that the method is asked again. kind: what the number is about; of
    "faithfulness" and "evidence" a random map is the yardstick. undefined: what a table says where it gives NaN.
    """

    run: Judge
    better: Better | None = None
    range: str = "any number"
    reads: str = "as it is written"
    baseline: str = "none"
    needs: str = ""
    paper: str = ""
    kind: str = "own"
    undefined: str = "n/a"

    def __call__(self, model: nn.Module, attribution: Attribution, **options: Any) -> Tensor | Curve:
        return self.run(model, attribution, **options)

    @property
    def options(self) -> dict[str, Any]:
        """The metric's own options with their defaults."""
        parameters = list(inspect.signature(self.run).parameters.values())[2:]
        return {p.name: p.default for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}

    def about(self) -> dict[str, Any]:
        """Plain data on what the number means, kept in Scores."""
        names = ("better", "range", "reads", "baseline", "needs", "paper", "kind", "undefined")
        return {name: getattr(self, name) for name in names} | {"doc": inspect.getdoc(_plain(self.run)) or ""}


class Metrics(MutableMapping[str, Metric]):
    """Name -> row; ``print(METRICS)`` shows the table. A function ``f(model, attribution) -> (batch,)`` may be put in."""

    def __init__(self, rows: Mapping[str, Metric]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Metric:
        if name in self._rows:
            return self._rows[name]
        near = difflib.get_close_matches(str(name), self._rows, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise KeyError(f"{name!r} is no metric; there are {', '.join(self._rows)}, or give a function.{hint}")

    def __setitem__(self, name: str, row: Metric | Judge) -> None:
        self._rows[name] = as_metric(row)

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        head = ["metric", "better", "range", "reads", "baseline", "needs", "paper"]
        rows = [[n, r.better or "-", r.range, r.reads, r.baseline, r.needs or "-", r.paper] for n, r in self._rows.items()]
        return table(head, rows)

    _repr_html_ = as_html


def as_metric(given: Any) -> Metric:
    """A row as it is, a function as a row; its attribute ``better`` ("high" or "low") is read where it has one."""
    if isinstance(given, Metric):
        return given
    if not callable(given):
        raise TypeError(f"a metric is a name or a function f(model, attribution) -> (batch,), not {type(given).__name__}")
    return Metric(given, better=getattr(given, "better", None), paper=f"function {_name(given)}")


def chosen(metrics: str | Judge | Iterable[Any] | Mapping[str, Any]) -> dict[str, Metric]:
    """Label -> metric, of names, functions, or a mapping of labels to them or to ``dict(metric=name, **options)``."""
    if isinstance(metrics, Mapping):
        return {label: _with_options(entry) for label, entry in metrics.items()}
    entries = [metrics] if isinstance(metrics, (str, Metric)) or callable(metrics) else list(metrics)
    found: dict[str, Metric] = {}
    for entry in entries:
        label = entry if isinstance(entry, str) else _name(entry)
        if label in found:
            raise ValueError(
                f"the metric {label!r} is asked for twice; give labels: metrics={{'first': ..., 'second': ...}}"
            )
        found[label] = METRICS[entry] if isinstance(entry, str) else as_metric(entry)
    if not found:
        raise ValueError(f"no metric was asked for; there are {', '.join(METRICS)}")
    return found


def _with_options(entry: Any) -> Metric:
    if isinstance(entry, str):
        return METRICS[entry]
    if not isinstance(entry, Mapping):
        return as_metric(entry)
    options = dict(entry)
    row = _with_options(options.pop("metric"))
    if unknown := [name for name in options if name not in row.options]:
        raise TypeError(f"{unknown[0]!r} is no option of this metric; it has {', '.join(row.options) or 'none'}")
    check_name(options.get("baseline"))
    baseline = str(options["baseline"]) if isinstance(options.get("baseline"), (str, int, float)) else row.baseline
    return replace(row, run=partial(row.run, **options), baseline=baseline)


def _name(given: Any) -> str:
    function = _plain(given.run if isinstance(given, Metric) else given)
    return getattr(function, "__name__", type(function).__name__)


def _plain(function: Any) -> Any:
    return _plain(function.func) if isinstance(function, partial) else function


_CRABBE, _ARRAS = "Crabbe, van der Schaar 2021", "Arras, Osman, Samek 2022"


def _removal(run: Judge, better: Better, paper: str) -> Metric:
    return Metric(run, better, "the output's", "order", "mean", paper=paper, kind="faithfulness")


def _evidence(run: Judge, paper: str) -> Metric:
    return Metric(run, "high", "0 to 1", "absolute", needs="evidence", paper=paper, kind="evidence")


def _again(run: Judge, better: Better, bounds: str, paper: str, kind: str) -> Metric:
    return Metric(run, better, bounds, "signed", needs="explain", paper=paper, kind=kind)


METRICS = Metrics(
    {
        "deletion": _removal(removal.deletion, "low", "Petsiuk, Das, Saenko 2018"),
        "insertion": _removal(removal.insertion, "high", "Petsiuk, Das, Saenko 2018"),
        "deletion_gap": _removal(removal.deletion_gap, "high", "Samek et al. 2017"),
        "comprehensiveness": _removal(removal.comprehensiveness, "high", "DeYoung et al. 2020"),
        "sufficiency": _removal(removal.sufficiency, "low", "DeYoung et al. 2020"),
        "infidelity": Metric(
            fidelity.infidelity, "low", "0 to 1", "signed", "mean", paper="Yeh et al. 2019", kind="faithfulness"
        ),
        "sensitivity_n": Metric(
            fidelity.sensitivity_n, "high", "-1 to 1", "signed", "mean", paper="Ancona et al. 2018", kind="faithfulness"
        ),
        "completeness": Metric(
            fidelity.completeness,
            "low",
            "0 or more",
            "signed",
            "the method's",
            "",
            "Sundararajan et al. 2017",
            "axiom",
            "not claimed",
        ),
        "max_sensitivity": _again(robustness.max_sensitivity, "low", "0 or more", "Yeh et al. 2019", "robustness"),
        "local_lipschitz": _again(
            robustness.local_lipschitz, "low", "0 or more", "Alvarez-Melis, Jaakkola 2018", "robustness"
        ),
        "randomization": _again(sanity.randomization, "low", "-1 to 1", "Adebayo et al. 2018", "sanity"),
        "complexity_rise": _again(sanity.complexity_rise, "high", "-1 or more", "Hedstrom et al. 2024", "sanity"),
        "sparseness": Metric(shape.sparseness, "high", "0 to 1", "absolute", paper="Chalasani et al. 2020", kind="shape"),
        "complexity": Metric(
            shape.complexity, "low", "0 to log(positions)", "absolute", paper="Bhatt, Weller, Moura 2020", kind="shape"
        ),
        "auroc": _evidence(evidence.auroc, "Hanley, McNeil 1982"),
        "auprc": _evidence(evidence.auprc, "Davis, Goadrich 2006"),
        "relevance_mass": _evidence(evidence.relevance_mass, _ARRAS),
        "relevance_rank": _evidence(evidence.relevance_rank, _ARRAS),
        "pointing_game": _evidence(evidence.pointing_game, "Zhang et al. 2018"),
        "aup": _evidence(evidence.aup, _CRABBE),
        "aur": _evidence(evidence.aur, _CRABBE),
    }
)
