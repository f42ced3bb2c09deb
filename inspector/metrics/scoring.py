"""Score: every attribution by every metric, sample by sample. What cannot be judged is refused before any work is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution.untouched import untouched
from inspector.metrics.explaining import Explain, again
from inspector.metrics.surface import Surface, surface
from inspector.metrics.table import Metric, chosen
from inspector.metrics.truth import check_masks, truth_of
from inspector.provenance import checksum
from inspector.records import Attribution, Curve, Samples, Scores
from inspector.tensors import shape_text, walk

DEFAULT = ("deletion", "insertion", "completeness")
Tick = Callable[[str], None]


def score(
    model: nn.Module,
    attributions: Attribution | Iterable[Attribution] | Mapping[str, Attribution],
    metrics: Any = DEFAULT,
    *,
    seed: int = 0,
    explain: Mapping[str, Explain] | None = None,
    tick: Tick = lambda label: None,
) -> Scores:
    """Judge attributions of the same samples: ``scores["grad_cam"]["deletion"]`` is (batch,).

    metrics: names from METRICS, functions ``f(model, attribution) -> (batch,) or Curve``, or a mapping of labels to these
    or to ``dict(metric="deletion", baseline="blur")``. explain: per label how to ask a method of your own again.
    Each attribution is judged by the output of its own target. Where targets differ, compare what has no unit of the output
    (completeness, infidelity, auroc); deletion and insertion are then heights of different outputs, and their differences
    say nothing of the methods.
    Raises ValueError before any work for an attribution of another model or input, or where evidence is missing.
    """
    named, rows, own = labelled(attributions), chosen(metrics), dict(explain or {})
    check(model, named, rows, own)
    by_label: dict[str, dict[str, Tensor]] = {label: {} for label in named}
    curves: dict[str, dict[str, Curve]] = {}
    for label, attribution in named.items():
        for name, row in rows.items():
            tick(f"{label}: {name}")
            found = _judged(model, attribution, name, row, own.get(label), seed)
            by_label[label][name] = found.area if isinstance(found, Curve) else found
            if isinstance(found, Curve):
                curves.setdefault(label, {})[name] = found
    made_by = dict(next(iter(named.values())).model) | {"seed": seed}
    return Scores(by_label, curves, {name: row.about() for name, row in rows.items()}, made_by)


def labelled(attributions: Any) -> dict[str, Attribution]:
    """Label -> attribution; those of one method are told apart by their layer, then by number."""
    if isinstance(attributions, Mapping):
        return dict(attributions)
    given = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    for attribution in given:
        _is_attribution(attribution)
    return dict(zip(labels([(a.method, a.layer) for a in given]), given, strict=True))


def labels(methods: list[tuple[str, str | None]]) -> list[str]:
    """One label for each (method, layer): the method, or "grad_cam@layer4" where several share it, or "saliency#2"."""
    count = Counter(method for method, _ in methods)
    plain = [f"{method}@{layer}" if count[method] > 1 and layer is not None else method for method, layer in methods]
    seen: Counter[str] = Counter()
    found = []
    for label in plain:
        seen[label] += 1
        found.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return found


def check(
    model: nn.Module, attributions: Mapping[str, Attribution], rows: Mapping[str, Metric], explain: Mapping[str, Explain]
) -> None:
    """Everything that would make a score meaningless, found before the first pass through the model."""
    if not attributions:
        raise ValueError("there is no attribution to score; make one with attribute(model, inputs, ...)")
    first = next(iter(attributions.values()))
    sum_ = checksum(model)
    for label, attribution in attributions.items():
        _is_attribution(attribution)
        _same_model(label, attribution, model, sum_)
        _same_inputs(label, attribution, first)
        check_masks(attribution.samples)
        for name, row in rows.items():
            _can_judge(label, attribution, name, row, explain)


def _is_attribution(given: Any) -> None:
    if not isinstance(given, Attribution):
        raise TypeError(
            f"score judges Attributions, not {type(given).__name__}; make one with attribute(model, inputs, ...)"
        )


def _same_model(label: str, attribution: Attribution, model: nn.Module, sum_: str) -> None:
    known = attribution.model.get("checksum")
    if known is not None and known != sum_:
        raise ValueError(
            f"{label} explains another model: a {attribution.model.get('class')} with parameters {known}, not this "
            f"{type(model).__name__} with {sum_}; explain this model, or score with the one that was explained"
        )


def _same_inputs(label: str, attribution: Attribution, first: Attribution) -> None:
    if attribution.samples is first.samples:
        return
    mine, other = attribution.samples, first.samples
    if not _equal(mine.inputs, other.inputs):
        shapes = [", ".join(shape_text(t) for _, t in walk(samples.inputs)) for samples in (mine, other)]
        alike = f", which have the same shape ({shapes[0]}) but other values"
        differ = alike if shapes[0] == shapes[1] else f" ({shapes[1]}, not {shapes[0]})"
        raise ValueError(f"{label} explains other inputs than the first attribution{differ}; score one batch")
    for name in ("evidence", "valid"):
        if not _equal(getattr(mine, name), getattr(other, name)):
            raise ValueError(
                f"{label} has other {name} than the first attribution, so that they would be held against different truths; "
                "explain the same Samples"
            )


def _equal(one: Any, other: Any) -> bool:
    """Whether nested tensors are the same in every number, wherever they lie."""
    mine, theirs = dict(walk(one)), dict(walk(other))
    return mine.keys() == theirs.keys() and all(
        a.shape == theirs[leaf].shape and torch.equal(a, theirs[leaf].to(a.device)) for leaf, a in mine.items()
    )


def _can_judge(label: str, attribution: Attribution, name: str, row: Metric, explain: Mapping[str, Explain]) -> None:
    evidence = attribution.samples.evidence
    if row.needs == "evidence" and evidence is None:
        raise ValueError(
            f"{name} needs to know the truth; give Samples(inputs, evidence=mask), True where the evidence lies"
        )
    if row.needs == "explain" and label not in explain:
        again(attribution)
    if row.kind == "robustness" and not any(t.is_floating_point() for _, t in walk(attribution.samples.inputs)):
        raise ValueError(f"{name} moves the input a little, which ids cannot be; choose another metric for token inputs")
    if row.kind in ("faithfulness", "evidence", "shape", "sanity"):
        laid = _laid(label, attribution, name)
        if row.needs == "evidence":
            _fits_evidence(label, laid, attribution.samples)


def _fits_evidence(label: str, laid: Surface, samples: Samples) -> None:
    try:
        truth_of(laid, samples)
    except ValueError as error:
        raise ValueError(f"{label} cannot be held against the evidence: {error}") from error


def _laid(label: str, attribution: Attribution, name: str) -> Surface:
    try:
        return surface(attribution)
    except ValueError as error:
        raise ValueError(f"{label} cannot be judged by {name}: {error}") from error


def _judged(
    model: nn.Module, attribution: Attribution, name: str, row: Metric, explain: Explain | None, seed: int
) -> Tensor | Curve:
    options: dict[str, Any] = {"seed": seed} if row.options.get("seed") == 0 else {}
    if explain is not None and "explain" in row.options and row.options["explain"] is None:
        options["explain"] = explain
    with untouched(model, seed=seed):
        found = row(model, attribution, **options)
    return _checked(found, name, len(attribution.samples))


def _checked(found: Any, name: str, size: int) -> Tensor | Curve:
    values = found.y if isinstance(found, Curve) else found
    if not isinstance(values, Tensor) or values.shape[:1] != (size,) or values.dim() != 1 + isinstance(found, Curve):
        shape = shape_text(values) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"the metric {name!r} gave {shape}; it must give one number, or one Curve row, for each of {size} samples"
        )
    if isinstance(found, Curve):
        return Curve(found.x.detach().cpu(), found.y.detach().cpu())
    return values.detach().cpu()
