"""What each record has to say in columns, as plain text; markup comes later and escapes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from inspector.records import (
    Assessment,
    Attribution,
    Comparison,
    Cost,
    Coverage,
    Finding,
    History,
    Samples,
    Scores,
    Store,
    Summary,
    Task,
)
from inspector.records.store import Call
from inspector.records.summary import NUMBERS, in_bytes
from inspector.tensors import digest, dtype_text, nbytes, shape_text, walk

FEWEST = 32  # below so many elements a mean gives single values away


class Table(NamedTuple):
    """caption, column heads, rows of text; numbers: the columns flush right; shown open or folded."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    numbers: frozenset[int] = frozenset()
    folded: bool = True


def assessment(record: Assessment) -> Iterator[Table]:
    head = ["", "n", "accuracy", "precision", "recall", "F1"]
    yield Table("Overall", head, [[record.name or "all", *_rates(record)]], _right(head), folded=False)
    for column, groups in record.groups.items():
        rows = [[str(label), *_rates(a)] for label, a in groups.items()]
        gap = record.gaps.get(column, {})
        rows += [["largest gap", "", *(f"{100 * gap[m]:.1f}%" if m in gap else "" for m in _RATES)]] if gap else []
        yield Table(f"By {column}", [column, *head[1:]], rows, _right(head), folded=False)
    names = [name for name, values in record.per_class.items() if len(values) == len(record.classes)]
    rows = [[c, *(_number(record.per_class[name][i]) for name in names)] for i, c in enumerate(record.classes)]
    yield Table("By class", ["class", *names], rows, _right(["", *names]))
    counts = [[c, *(str(int(n)) for n in row)] for c, row in zip(record.classes, record.confusion, strict=True)]
    yield Table("Confusion: rows are true classes", ["true", *record.classes], counts, _right(["", *record.classes]))


def attribution(record: Attribution, private: bool = False) -> Iterator[Table]:
    facts = [
        ["method", record.method],
        ["layer", record.layer or "the input"],
        ["samples", str(len(record.samples))],
        ["values", ", ".join(shape_text(t) for _, t in walk(record.values))],
        ["options", "" if private else ", ".join(f"{k} = {_option(v)}" for k, v in record.options.items()) or "none"],
        ["baseline", _baseline(record.baselines, private)],
        ["largest |delta|", "not claimed by this method" if record.delta is None else _largest(record.delta)],
        ["cost", _cost(record.cost)],
        *([[key, str(record.model[key])] for key in ("class", "checksum", "seed") if key in record.model]),
    ]
    yield Table("How it was worked out", ["", "value"], facts)


def scores(record: Scores, controls: tuple[str, ...] = ()) -> Iterator[Table]:
    metrics = record.metrics
    head = ["method", *(_heading(record, metric) for metric in metrics)]
    marked = {label: f"{label} (control)" if label in controls else label for label in record}
    rows = [[shown, *(_interval(record, label, m) for m in metrics)] for label, shown in marked.items()]
    yield Table("Scores: mean over the samples and 95% interval", head, rows, _right(head), folded=False)
    known = [(m, record.about[m]) for m in metrics if m in record.about]
    about = [[m, *(str(row.get(key, "")) for key in _ABOUT), _meaning(str(row.get("doc", "")))] for m, row in known]
    if about:
        yield Table("What the metrics mean", ["metric", *_ABOUT, "what it is"], about)


def comparison(record: Comparison, private: bool = False) -> Iterator[Table]:
    yield from scores(record.scores, record.controls)
    for name, matrix in record.agreement.items():
        head = [name, *record.labels][: matrix.shape[-1] + 1]
        rows = [[label, *map(_number, row)] for label, row in zip(head[1:], matrix, strict=False)]
        yield Table(f"Agreement between methods ({name})", head, rows, _right(head))
    head = ["method", "forward", "backward", "examples", "seconds", "memory"]
    rows = [
        [k, str(c.forwards), str(c.backwards), str(c.examples), f"{c.seconds:.2f}", in_bytes(c.peak_bytes or None)]
        for k, c in record.cost.items()
    ]
    yield Table("Cost", head, rows, _right(head))
    hidden = ("methods",) if private else ()  # options in words can hold a baseline that is somebody's data
    settings = [[k, _option(v)] for k, v in record.settings.items() if k not in hidden]
    if settings:
        yield Table("Settings", ["", "value"], settings)


def store(record: Store, private: bool = False) -> Iterator[Table]:
    yield from calls({name: record[name] for name in record}, private)
    missing = [[path or "(model)", status.reason or ""] for path, status in record.coverage.missing.items()]
    if missing:
        yield Table("Not captured, and why", ["module", "reason"], missing)


def calls(record: Mapping[str, Call], private: bool = False) -> Iterator[Table]:
    """The values of some calls; where private, no extreme and no mean over few elements, which would be single values."""
    rows = [
        [(name or "(model)") + row[0].removeprefix(str(call.site)), call.module, *row[1:]]
        for name, call in record.items()
        for row in (_private(call) if private else _open(call))
    ]
    head = ["site", "module", "shape", "dtype", "bytes", "values"]
    yield Table("Captured, in run order", head, rows, frozenset({4}), folded=False)


def call(record: Call, private: bool = False) -> Iterator[Table]:
    yield from calls({str(record.site): record}, private)


def samples(record: Samples, private: bool = False) -> Iterator[Table]:
    facts = [["samples", str(len(record))], ["inputs", ", ".join(shape_text(t) for _, t in walk(record.inputs))]]
    known = {n: [shape_text(t) for _, t in walk(getattr(record, n))] for n in ("target", "evidence", "valid")}
    facts += [[name, ", ".join(shapes)] for name, shapes in known.items() if shapes]
    facts += [["groups", ", ".join(record.group_columns())]] if record.group_columns() else []
    yield Table("What is known about the samples", ["", "value"], facts, folded=False)


def task(record: Task, private: bool = False) -> Iterator[Table]:
    facts = [
        ["name", record.name],
        ["about", record.about],
        ["train", str(len(record.train))],
        ["test", str(len(record.test))],
    ]
    yield Table("What is known about the task", ["", "value"], [fact for fact in facts if fact[1]], folded=False)


def tensor(record: Tensor, private: bool = False) -> Iterator[Table]:
    values = _aggregate(record) if private else digest(record)
    row = [shape_text(record), dtype_text(record), f"{nbytes(record):,}", values]
    yield Table("Values", ["shape", "dtype", "bytes", "values"], [row], frozenset({2}), folded=False)


def nothing(record: Any) -> Iterator[Table]:
    return iter(())


def coverage(record: Coverage) -> Iterator[Table]:
    rows = [
        [path or "(model)", s.module, str(s.calls), "; ".join([s.reason or "", *(f"{k}: {v}" for k, v in s.notes.items())])]
        for path, s in record.items()
    ]
    yield Table("Modules", ["module", "type", "calls", "remarks"], rows, frozenset({2}), folded=False)


def history(record: History) -> Iterator[Table]:
    yield from findings(record.findings)
    rows = [[n, str(len(v)), f"{v[0]:.4g}", f"{v[-1]:.4g}"] for n, (_, v) in record.scalars.items() if len(v)]
    head = ["curve", f"{record.unit}s", "first", "last"]
    if rows:
        yield Table("Curves", head, rows, _right(head))
    if record.meta:
        yield Table("About the run", ["", "value"], [[k, _option(v)] for k, v in record.meta.items()])


def findings(record: list[Finding]) -> Iterator[Table]:
    rows = [[f.rule, f.name, str(f.step), f"{f.value:.4g}", f"{f.threshold:.4g}", f.message, f.advice] for f in record]
    head = ["rule", "where", "since", "value", "threshold", "what", "what to do"]
    if rows:
        yield Table("Findings", head, rows, frozenset({2, 3, 4}), folded=False)


def summary(record: Summary) -> Iterator[Table]:
    head, rows = record.cells()
    numbers = frozenset(i for i, name in enumerate(head) if name in NUMBERS)
    yield Table("Modules in run order", head, rows, numbers, folded=False)


_RATES = ("accuracy", "precision", "recall", "f1")
_ABOUT = ("kind", "better", "range", "reads", "baseline", "paper")


def _meaning(doc: str) -> str:
    """The first paragraph of a metric's own words, without what is said to programmers."""
    text = " ".join(doc.split("\n\n")[0].replace("``", "").split()).removeprefix("(batch,) ")
    return text[:1].upper() + text[1:]


def _rates(record: Assessment) -> list[str]:
    return [str(record.n), *(f"{100 * getattr(record, rate):.1f}%" for rate in _RATES)]


def _right(head: list[str]) -> frozenset[int]:
    return frozenset(range(1, len(head)))


def _open(call: Call) -> list[list[str]]:
    return [row for kind in call.kinds for row in call.rows(kind)]


def _private(call: Call) -> list[list[str]]:
    found = [(call.site._replace(kind=k, leaf=leaf), t) for k in call.kinds for leaf, t in walk(getattr(call, k))]
    return [[str(site), shape_text(t), dtype_text(t), f"{nbytes(t):,}", _aggregate(t)] for site, t in found]


def _aggregate(tensor: Tensor) -> str:
    if tensor.is_meta or tensor.is_nested or tensor.numel() < FEWEST or not tensor.is_floating_point():
        return ""
    flat = tensor.detach().to_dense().double()
    return f"mean {float(flat.mean()):.3g}, {100 * float((flat == 0).double().mean()):.0f}% zeros"


def _heading(record: Scores, metric: str) -> str:
    better = record.about.get(metric, {}).get("better")
    return f"{metric} ({better} is better)" if better else metric


def _interval(record: Scores, label: str, metric: str) -> str:
    if metric not in record[label]:
        return "–"
    return record.cell(label, metric)


def _number(value: Any) -> str:
    return f"{float(value):.3g}"


def _largest(delta: Tensor) -> str:
    return f"{float(delta.abs().max()):.3g}" if delta.numel() else "no samples"


def _cost(cost: Cost) -> str:
    return f"{cost.forwards} forward, {cost.backwards} backward passes, {cost.examples} examples, {cost.seconds:.2f} s"


def _baseline(value: Any, private: bool) -> str:
    """What it was measured against; where private only its kind, unless it is one plain number."""
    if value is None:
        return "the method's own"
    plain = isinstance(value, (int, float)) or any(True for _ in walk(value))
    return _option(value) if plain or not private else f"of type {type(value).__name__}"


def _option(value: Any) -> str:
    """A setting in words; tensors by shape only, since a baseline can be somebody's data."""
    tensors = [f"tensor {shape_text(t)}" for _, t in walk(value)]
    if tensors:
        return ", ".join(tensors)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_option(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_option, value))
    return getattr(value, "__name__", None) or str(value)
