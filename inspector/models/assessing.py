"""``assess``: how well a classifier does on samples that it has not seen, over all and per group of people.

The arithmetic is scikit-learn's, the vocabulary fairlearn's. Macro means run over the classes that occur, truly or by
prediction, so that a group is not marked down for a class that it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspector.models import resampling
from inspector.models.answers import all_class_scores, class_target
from inspector.models.disparity import LOWER_IS_WORSE, SMALL, disparities, shares
from inspector.models.grouping import Column, columns
from inspector.models.restore import as_found, own_randomness
from inspector.provenance import provenance
from inspector.records.assessment import Assessment, Interval
from inspector.records.samples import Samples, Task

RATES = ("accuracy", "precision", "recall", "f1", "selection_rate", "false_positive_rate", "false_negative_rate")


def assess(
    model: nn.Module,
    data: Task | Samples,
    *,
    groups: Any = None,
    positive: int | str | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Assessment:
    """Accuracy, precision, recall, F1 and the confusion matrix on a Task's test half or on Samples, with intervals.

    groups: one label per sample, or a dict of columns of them (default: the samples' own); then all of it per group
    and per intersection of two columns, gaps, ratios, worst groups, and which differ by more than chance.
    positive: the class one is selected for, by name or index (default: the second of two). seed: of the resampling.
    The model's mode and the random state are left as found.
    """
    samples = data.test if isinstance(data, Task) else data
    if groups is not None:  # Samples checks their length
        if isinstance(groups, Mapping) and not groups:
            raise ValueError("groups={} has no column; give a label for each sample, a dict of columns, or leave groups out")
        samples = Samples(samples.inputs, samples.target, groups=groups, names=samples.names)
    with as_found(model), own_randomness(model, seed):
        scores = all_class_scores(model, samples, batch_size)
    classes = _class_names(samples, scores.shape[1])
    facts: dict[str, Any] = {"classes": classes, "positive": _index(positive, classes), "model": provenance(model)}
    true, predicted = class_target(samples).cpu(), scores.argmax(1)
    found = columns(samples)
    measured = {
        name: {label: _measure(true[rows], predicted[rows], seed, name=label, **facts) for label, rows in members.items()}
        for name, (members, _) in found.items()
    }
    facts |= {"name": data.name if isinstance(data, Task) else "", "groups": measured}
    return _measure(true, predicted, seed, **facts, **_compared(measured, found, facts["positive"], seed))


def _measure(true: Tensor, predicted: Tensor, seed: int, *, classes: Any, positive: Any, **facts: Any) -> Assessment:
    metrics = _sklearn_metrics()
    every = range(len(classes))
    confusion = metrics.confusion_matrix(true, predicted, labels=every)
    values = metrics.precision_recall_fscore_support(true, predicted, labels=every, zero_division=0)[:3]
    occurs = torch.from_numpy(confusion.sum(0) + confusion.sum(1)) > 0
    per_class = {n: torch.from_numpy(v).where(occurs, torch.nan) for n, v in zip(RATES[1:4], values, strict=True)}
    rates: dict[str, Any] = {n: float(r) for n, r in resampling.rates(resampling.counts(confusion), positive).items()}
    rates |= {name: float(rate.nanmean()) for name, rate in per_class.items()}
    rates |= {"accuracy": float(metrics.accuracy_score(true, predicted))}
    facts |= {"intervals": _intervals(confusion, rates, positive, seed), "small": len(true) < SMALL}
    facts |= {"positive": None if positive is None else classes[positive], "classes": classes}
    return Assessment(len(true), per_class=per_class, confusion=torch.from_numpy(confusion), **rates, **facts)


def _intervals(confusion: Any, rates: Mapping[str, float], positive: int | None, seed: int) -> dict[str, Interval]:
    drawn = resampling.rates(resampling.draws(confusion, np.random.default_rng(seed)), positive)
    found = {name: resampling.interval(drawn[name]) for name in RATES if not np.isnan(rates[name])}
    sizes = resampling.denominators(resampling.counts(confusion), positive)
    return {n: resampling.widened(i, rates[n], sizes[n]) if n in sizes else i for n, i in found.items()}


def _compared(
    groups: Mapping[str, Mapping[str, Assessment]], known: Mapping[str, Column], positive: int | None, seed: int
) -> dict[str, Any]:
    """Over the groups of each column: gaps with their intervals, ratios, worst groups; over all columns: disparities."""
    random = np.random.default_rng(seed)
    counts = {c: {label: a.confusion.numpy() for label, a in row.items()} for c, row in groups.items()}
    spread = {column: _gap_intervals(row, positive, random) for column, row in counts.items()}
    every = {column: _extremes(row) for column, row in groups.items()}
    tested = [share for column, row in counts.items() for share in shares(column, row, known[column].within, positive)]
    return {
        "gaps": {c: {rate: high - low for rate, (low, high, _) in row.items()} for c, row in every.items()},
        "ratios": {
            c: {rate: low / high if high else 1.0 for rate, (low, high, _) in row.items()} for c, row in every.items()
        },
        "worst": {c: {rate: label for rate, (_, _, label) in row.items()} for c, row in every.items()},
        "gap_intervals": {c: {rate: row[rate] for rate in every[c]} for c, row in spread.items()},
        "disparities": disparities(tested, random),
    }


def _extremes(groups: Mapping[str, Assessment]) -> dict[str, tuple[float, float, str]]:
    """For each rate that some group has: the lowest, the highest, and the label of the worst group."""
    found = {}
    for rate in RATES:
        values = {label: v for label, a in groups.items() if not np.isnan(v := getattr(a, rate))}
        if values:
            worst = (min if rate in LOWER_IS_WORSE else max)(values, key=values.__getitem__)
            found[rate] = (min(values.values()), max(values.values()), worst)
    return found


def _gap_intervals(groups: Mapping[str, Any], positive: int | None, random: np.random.Generator) -> dict[str, Interval]:
    """Each group's samples drawn anew: 95 % of the gaps that come out. They are never below 0, whatever the truth."""
    drawn = [resampling.rates(resampling.draws(confusion, random), positive) for confusion in groups.values()]
    found = {}
    for rate in RATES:
        values = np.stack([row[rate] for row in drawn])
        known = values[~np.isnan(values).all(1)]
        gaps = np.nanmax(known, 0, initial=-np.inf) - np.nanmin(known, 0, initial=np.inf) if len(known) else np.array([])
        found[rate] = resampling.interval(gaps[np.isfinite(gaps)])
    return found


def _sklearn_metrics() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError('assess needs scikit-learn; install it: pip install "inspector[demo]"') from error
    return metrics


def _class_names(samples: Samples, count: int) -> tuple[str, ...]:
    names = tuple(map(str, samples.names.get("classes", ())))
    return names if len(names) == count else tuple(str(i) for i in range(count))


def _index(positive: int | str | None, classes: tuple[str, ...]) -> int | None:
    if positive is None:
        return 1 if len(classes) == 2 else None
    found = classes.index(positive) if positive in classes else positive
    if not isinstance(found, int) or not 0 <= found < len(classes):
        raise LookupError(f"positive={positive!r} is no class; there are {', '.join(classes)}")
    return found
