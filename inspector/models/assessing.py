"""``assess``: how well a classifier does on samples that it has not seen, over all and per group.

The arithmetic is scikit-learn's. Macro means run over the classes that occur, truly or by prediction, so that a group
is not marked down for a class that it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspector.models.answers import all_class_scores, class_target
from inspector.models.restore import as_found, own_randomness
from inspector.provenance import provenance
from inspector.records.assessment import Assessment
from inspector.records.samples import Samples, Task

RATES = ("accuracy", "precision", "recall", "f1")


def assess(model: nn.Module, data: Task | Samples, *, groups: Any = None, batch_size: int = 256) -> Assessment:
    """Accuracy, precision, recall, F1 (per class and macro) and the confusion matrix on a Task's test half or Samples.

    groups: one label per sample, or a dict of columns of them (default: the samples' own); then all of it per group,
    and gaps[column][rate], the largest minus the smallest. The model's mode and the random state are left as found.
    """
    samples = data.test if isinstance(data, Task) else data
    if groups is not None:  # Samples checks their length
        samples = Samples(samples.inputs, samples.target, groups=groups, names=samples.names)
    with as_found(model), own_randomness(model, seed=0):
        scores = all_class_scores(model, samples, batch_size)
    true, predicted, classes = class_target(samples).cpu(), scores.argmax(1), _class_names(samples, scores.shape[1])
    facts: dict[str, Any] = {"classes": classes, "model": provenance(model)}
    found = {
        column: {
            label: _measure(true[rows], predicted[rows], name=label, **facts) for label, rows in _members(labels).items()
        }
        for column, labels in samples.group_columns().items()
    }
    name = data.name if isinstance(data, Task) else ""
    return _measure(true, predicted, name=name, groups=found, gaps={c: _gaps(row) for c, row in found.items()}, **facts)


def _measure(true: Tensor, predicted: Tensor, *, classes: tuple[str, ...], **facts: Any) -> Assessment:
    metrics = _sklearn_metrics()
    every = range(len(classes))
    confusion = torch.from_numpy(metrics.confusion_matrix(true, predicted, labels=every))
    rates = metrics.precision_recall_fscore_support(true, predicted, labels=every, zero_division=0)[:3]
    occurs = (confusion.sum(0) + confusion.sum(1)) > 0
    per_class = {n: torch.from_numpy(r).where(occurs, torch.nan) for n, r in zip(RATES[1:], rates, strict=True)}
    overall: dict[str, Any] = {name: float(rate.nanmean()) for name, rate in per_class.items()}
    accuracy = float(metrics.accuracy_score(true, predicted))
    return Assessment(len(true), accuracy, **overall, per_class=per_class, confusion=confusion, classes=classes, **facts)


def _sklearn_metrics() -> Any:
    try:
        from sklearn import metrics
    except ImportError as error:
        raise ImportError('assess needs scikit-learn; install it: pip install "inspector[demo]"') from error
    return metrics


def _members(labels: Any) -> dict[str, Tensor]:
    """For every label of a column, in sorted order, the row numbers of its samples."""
    plain = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).tolist()
    texts = np.array([str(label) for label in plain])
    return {str(label): torch.from_numpy((texts == label).nonzero()[0]) for label in np.unique(texts)}


def _gaps(groups: Mapping[str, Assessment]) -> dict[str, float]:
    rates = {name: [getattr(group, name) for group in groups.values()] for name in RATES}
    return {name: max(values) - min(values) for name, values in rates.items()}


def _class_names(samples: Samples, count: int) -> tuple[str, ...]:
    names = tuple(samples.names.get("classes", ()))
    return names if len(names) == count else tuple(str(i) for i in range(count))
