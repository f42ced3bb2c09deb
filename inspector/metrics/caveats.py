"""What to be careful about in a comparison, in words and with the numbers: the reasons to doubt a table of means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

import torch
from torch import nn

from inspector.metrics.baselines import base_tensors, same_as
from inspector.metrics.surface import surface
from inspector.metrics.table import Metric
from inspector.records import Attribution, Scores
from inspector.records.comparison import members

FEW = 10  # samples below which an interval says little
TIED = 0.5  # share of equal positions above which an order is mostly luck


def caveats(
    model: nn.Module,
    scores: Scores,
    attributions: Mapping[str, Attribution],
    controls: list[str],
    rows: Mapping[str, Metric],
) -> list[str]:
    """Sentences for the reader of a comparison; empty where nothing is suspicious."""
    methods = {label: a for label, a in attributions.items() if label not in controls}
    return [
        *_too_few(attributions),
        *_no_better(scores, list(methods), controls, rows),
        *_circular(model, methods, rows),
        *_unreadable(methods),
        *_unequal(scores, methods, rows),
    ]


def _too_few(attributions: Mapping[str, Attribution]) -> Iterator[str]:
    count = len(next(iter(attributions.values())).samples)
    if count < FEW:
        yield f"only {count} samples: the intervals are rough and differences may be luck; use {FEW} or more"


def _no_better(scores: Scores, methods: list[str], controls: list[str], rows: Mapping[str, Metric]) -> Iterator[str]:
    """Any metric by which luck does as well; of the other controls only those that do as well by every metric, because
    one metric alone is fooled easily. One sentence names all the controls that do as well by the same metrics."""
    metrics = [name for name, row in rows.items() if row.kind in ("faithfulness", "evidence", "own") and row.better]
    for label in methods:
        unbeaten: dict[tuple[str, ...], list[str]] = {}
        for control in controls:
            failed = [metric for metric in metrics if not _beats(scores, label, control, metric)]
            if failed and (control == controls[0] or failed == metrics):
                unbeaten.setdefault(tuple(failed), []).append(control)
        for failed_by, names in unbeaten.items():
            yield f"{label} is no better than the {_listed(names)} control{'s'[: len(names) - 1]} by {_listed(failed_by)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _beats(scores: Scores, label: str, control: str, metric: str) -> bool:
    """Whether the paired interval is wholly on the better side; True where there is nothing to compare."""
    difference = scores.difference(label, control, metric)
    if difference.mean != difference.mean:
        return True
    return difference.low > 0 if scores.better(metric) == "high" else difference.high < 0


def _circular(model: nn.Module, methods: Mapping[str, Attribution], rows: Mapping[str, Metric]) -> Iterator[str]:
    for label, attribution in methods.items():
        if attribution.baselines is None or attribution.layer is not None:
            continue
        laid = surface(attribution)
        same = [
            name
            for name, row in rows.items()
            if "baseline" in row.options
            and same_as(base_tensors(model, laid, row.options["baseline"]), attribution.baselines, laid)
        ]
        if same:
            yield f"{label} was computed with the same baseline that {_listed(same)} removes to, which favours it"


def _unreadable(methods: Mapping[str, Attribution]) -> Iterator[str]:
    for label, attribution in methods.items():
        laid = surface(attribution)
        if broken := int(laid.broken.sum()):
            yield f"{label} has NaN or Inf in {broken} of {len(laid.heat)} maps, which are left out"
        spread = [len(torch.unique(row[valid])) / int(valid.sum()) for row, valid in zip(laid.heat, laid.valid, strict=True)]
        flat = sum(len(torch.unique(row[valid])) == 1 for row, valid in zip(laid.heat, laid.valid, strict=True))
        if flat:
            yield f"{label} is the same at every position in {flat} of {len(laid.heat)} maps, so its order there is luck"
        elif attribution.layer is None and sum(spread) / len(spread) < TIED:
            share = sum(spread) / len(spread)
            yield f"{label} has few different values ({share:.0%} of its positions), so luck decides much of its order"


def _unequal(scores: Scores, methods: Mapping[str, Attribution], rows: Mapping[str, Metric]) -> Iterator[str]:
    """Groups of people whose explanations are worse, where that is more than chance among all that was looked at."""
    samples = next(iter(methods.values())).samples
    columns = {name: members(column) for name, column in samples.group_columns().items()}
    metrics = [name for name, row in rows.items() if row.kind in ("faithfulness", "evidence") and row.better]
    looks = sum(len(groups) for groups in columns.values()) * len(metrics) * len(methods)
    for column, groups in columns.items():
        for label in methods:
            for metric in metrics:
                for group, own in groups.items():
                    worse = _worse(scores, label, metric, own, chance=0.05 / looks)
                    if worse:
                        yield f"{label} explains {column}={group} worse than the others by {metric} ({worse})"


def _worse(scores: Scores, label: str, metric: str, own: torch.Tensor, chance: float) -> str:
    """The group's mean against the others', where Welch's test finds it on the worse side; else nothing."""
    values = scores[label][metric].double()
    both = [some[some.isfinite()] for some in (values[own], values[~own])]
    if min(map(len, both)) < FEW:
        return ""
    difference = (both[0].mean() - both[1].mean()).item()
    error = sum(some.var().item() / len(some) for some in both) ** 0.5
    worse = difference < 0 if scores.better(metric) == "high" else difference > 0
    if not worse or abs(difference) <= NormalDist().inv_cdf(1 - chance) * error:
        return ""
    return f"{both[0].mean().item():.3g} against {both[1].mean().item():.3g}"
