"""Explaining again: robustness and sanity metrics ask the same method about other inputs, or about another model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution import METHODS, attribute
from inspector.attribution.origin import unsigned
from inspector.metrics.forward import asked, by_batch, examples_at_once, repeat
from inspector.records import Attribution, Samples
from inspector.tensors import rebuild, walk

Explain = Callable[[nn.Module, Samples, Any], Attribution]  # explain(model, samples, target)


def again(attribution: Attribution) -> Explain:
    """The method that made this attribution, ready to be asked again. Raises ValueError for a method that has no name in
    METHODS: its function is not kept in the record, so hand it over with ``explain=``."""
    if attribution.method not in METHODS:
        raise ValueError(
            f"{attribution.method!r} is not in METHODS, so it cannot be asked again; use compare, which knows the function, "
            "or give the metric explain=lambda model, samples, target: attribute(...)"
        )
    return explainer(
        len(attribution.samples),
        method=attribution.method,
        layer=attribution.layer,
        baselines=attribution.baselines,
        axes=attribution.axes,
        **attribution.options,
    )


def explainer(size: int, *, baselines: Any = None, **options: Any) -> Explain:
    """``attribute`` with these options, for any number of copies of a batch of ``size``; baselines that are one per
    sample are copied along."""

    def explain(model: nn.Module, samples: Samples, target: Any) -> Attribution:
        own = repeated(baselines, len(samples) // size, size)
        return attribute(model, samples, target=target, baselines=own, **options)

    return explain


def explain_copies(model: nn.Module, attribution: Attribution, inputs: list[Any], explain: Explain) -> list[Tensor]:
    """(batch, values) maps of several changed inputs, as many in one call as fit: they share the explainer's batch axis."""
    size, samples = len(attribution.samples), attribution.samples
    at_once = 1 if by_batch(attribution) else max(1, examples_at_once(samples.inputs) // (4 * size))
    found: list[Tensor] = []
    for start in range(0, len(inputs), at_once):
        some = inputs[start : start + at_once]
        target = repeated(asked(attribution), len(some), size)
        with asking_again():
            found += torch.split(flat_values(explain(model, _stacked(samples, some), target)), size)
    return found


@contextmanager
def asking_again() -> Iterator[None]:
    """For answers that only a metric sees: what the method warns of was said when it was first asked, or is no wonder of an
    untrained model, and nobody asks where they come from."""
    with warnings.catch_warnings(), unsigned():
        warnings.simplefilter("ignore")
        yield


def flat_values(attribution: Attribution) -> Tensor:
    """(batch, values) all that was attributed, in double precision."""
    size = len(attribution.samples)
    return torch.cat([t.detach().cpu().double().reshape(size, -1) for _, t in walk(attribution.values)], dim=1)


def _stacked(samples: Samples, inputs: list[Any]) -> Samples:
    tensors = [dict(walk(each)) for each in inputs]
    stacked = rebuild(inputs[0], lambda leaf, t: torch.cat([each[leaf] for each in tensors]) if t.dim() else t)
    copies = len(inputs)
    return replace(
        samples,
        inputs=stacked,
        target=repeat(samples.target, copies),
        valid=repeat(samples.valid, copies),
        evidence=None,
        groups=None,
        names={},
    )


def repeated(value: Any, copies: int, size: int) -> Any:
    """Per-sample tensors once for each copy; what holds for all samples as it is."""
    if copies == 1:
        return value
    return rebuild(value, lambda _, t: repeat(t, copies) if t.dim() and len(t) == size else t)
