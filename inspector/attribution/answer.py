"""``attribute``: check at the door, ask the question, write the record."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inspector.attribution import explained
from inspector.attribution.cannot_run import diagnosed
from inspector.attribution.door import ask, check_layer, common_options, recorded, row_of
from inspector.attribution.layers import at_one_layer, explain_inputs, kept_baselines
from inspector.attribution.methods import Method
from inspector.attribution.noise import combined, noisy
from inspector.attribution.origin import origin
from inspector.attribution.places import known
from inspector.attribution.positions import only_input_axes
from inspector.attribution.question import Question
from inspector.attribution.sharing import Sharing
from inspector.attribution.targets import Target, by_name
from inspector.attribution.untouched import untouched
from inspector.records import Attribution, Cost
from inspector.sites import Site
from inspector.tensors import walk

TOLERANCE = 0.05


def attribute(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    method: str | Callable[..., Any] = "integrated_gradients",
    layer: str | Site | None = None,
    baselines: Any = None,
    explain: Any = None,
    **options: Any,
) -> Attribution:
    """How much each part of the inputs (or of the value at ``layer``) counted for the target.

    inputs: a tensor, a tuple by position, a dict by keyword, or Samples, whose target is used where none is given.
    target: int, tensor (batch,), tensor (batch, steps), tuple of indices, Neuron, or a function of the output -> (batch,).
    method: a name in METHODS, or ``f(score, values, **options)`` with ``score(values) -> (batch,)``.
    baselines: None (zero), a number, "zero", "mean", "blur", "noise", a tensor or a function; one each for several inputs.
    explain: which of several inputs; by default every floating one and every one that an nn.Embedding receives, jointly.
    options: the method's own, and seed (of its random draws), budget (bytes), axes (which axes of the values are positions),
    noise (a standard deviation: the method is averaged over noise_samples noisy copies; noise_form "square" or "variance").
    The model is explained in evaluation mode and left exactly as it was. Warns where a method that claims completeness is
    off by more than 5 % in some sample, as a share of the difference of outputs (of its mean over samples, or of a tenth of
    the absolute values, where these are larger). An error of the model's own on these inputs is raised again with what was
    given and what to do.
    """
    name, row = row_of(method)
    common = common_options(row, name, options)
    check_layer(row, name, layer, model)
    question = ask(model, inputs, target, common)
    asked = Asked(name, row, layer, baselines, explain, options, common)
    attribution = _record(question, asked, *_explain(question, asked), question.ledger.cost())
    _warn_incomplete(asked, attribution)
    return attribution


def attribute_targets(
    model: nn.Module,
    inputs: Any,
    targets: Iterable[Any] | Mapping[Any, Any],
    *,
    method: str = "integrated_gradients",
    layer: str | Site | None = None,
    baselines: Any = None,
    explain: Any = None,
    **options: Any,
) -> dict[Any, Attribution]:
    """``attribute`` for several targets from the same forward passes: one attribution per target, keyed by it.

    targets: what ``attribute`` takes as target, several of them; a mapping names them, such as {"cat": 281, "dog": 207}.
    Targets that cannot be keys, such as tensors, are keyed by their place. The answers are those of one target at a time;
    each target costs its own backward passes. ``cost`` is that of all passes together, the same for every target.
    lrp, attention methods and functions are run for each target anew, and so is what the budget (bytes) cannot hold.
    """
    name, row = row_of(method)
    common = common_options(row, name, options)
    check_layer(row, name, layer, model)
    named = by_name(targets)
    first = ask(model, inputs, next(iter(named.values())), common)
    first.sharing = None if row.alone else Sharing(first.budget)
    asked, found = Asked(name, row, layer, baselines, explain, options, common), {}
    for key, target in named.items():
        question = replace(first, target=Target(target, first.samples))
        found[key] = question, _explain(question, asked)
    cost = first.ledger.cost()
    answers = {key: _record(question, asked, *answer, cost) for key, (question, answer) in found.items()}
    for attribution in answers.values():
        _warn_incomplete(asked, attribution)
    return answers


class Asked(NamedTuple):
    """What was asked for, as it came through the door."""

    name: str
    row: Method
    layer: str | Site | None
    baselines: Any
    explain: Any
    options: Mapping[str, Any]
    common: Mapping[str, Any]


def _explain(question: Question, asked: Asked) -> tuple[Any, Any, Tensor | None]:
    """Values, axes of positions and delta; the model is left as it was."""
    row, layer, model = asked.row, asked.layer, question.model
    if question.sharing is not None:
        question.sharing.restart()
    with diagnosed(question), untouched(model, seed=asked.common["seed"]):
        if row.check is not None:
            row.check(model)
        if row.at_layer is not None and layer is not None:
            return at_one_layer(question, row, known(model, layer), asked.baselines, asked.options)
        question.layer = known(model, layer) if row.helped and layer is not None else None
        at = None if row.helped else layer
        return _at_slots(question, row, asked.explain, at, asked.baselines, asked.options)


def _record(question: Question, asked: Asked, values: Any, axes: Any, delta: Tensor | None, cost: Cost) -> Attribution:
    return Attribution(
        values=values,
        samples=question.samples,
        target=question.target.given,
        method=asked.name,
        layer=None if asked.layer is None else str(asked.layer),
        baselines=kept_baselines(question, asked.row),
        options=recorded(asked.options, asked.common, asked.explain),
        delta=delta,
        cost=cost,
        axes=axes if asked.common["axes"] is None else asked.common["axes"],
        model=origin(question.model, asked.common["seed"]),
        input_axes=only_input_axes(question.model, question.samples),
    )


def _at_slots(
    question: Question, row: Method, explain: Any, layer: Any, baselines: Any, options: Mapping[str, Any]
) -> tuple[Any, Any, Tensor | None]:
    assert row.run is not None
    explain_inputs(question, explain, layer)
    if row.baselines == "data" and baselines is None:
        question.baselines = question.values
    elif row.baselines or baselines is not None:
        question.baselines = explained.baselines_for(
            question, baselines, at_layer=layer is not None, several=row.baselines in ("distribution", "data")
        )
    values, delta = _run(question, row, options)
    if row.tokens:
        return values[0].detach(), (1,), delta
    for slot, given, value in zip(question.slots, question.values, values, strict=True):
        if value.shape != given.shape:
            raise ValueError(f"the method answered {tuple(value.shape)} for {slot.name}, which is {tuple(given.shape)}")
    positions = tuple(slot.positions for slot in question.slots)
    return explained.nest(question, tuple(v.detach() for v in values)), explained.nest(question, positions), delta


def _run(question: Question, row: Method, options: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The method's values and delta; with noise, combined over noisy copies of what is explained (SmoothGrad)."""
    assert row.run is not None
    if question.noise is None:
        found = row.run(question, **options)
        return found if len(found) == 2 and isinstance(found[0], tuple) else (found, None)
    values, answers = question.values, []
    for _ in range(question.noise.samples):
        question.values = tuple(noisy(v, question.noise.stdev) for v in values)
        found = row.run(question, **options)
        answers.append(found[0] if isinstance(found[0], tuple) else found)
    question.values = values
    return combined(answers, question.noise.form), None


def _warn_incomplete(asked: Asked, attribution: Attribution) -> None:
    row, delta = asked.row, attribution.delta
    if delta is None or not row.complete or (asked.layer is not None and row.at_layer is not None):
        return
    values = torch.cat([value.reshape(len(value), -1) for _, value in walk(attribution.values)], 1)
    difference = (values.sum(1) - delta).abs()
    # where evidence for and against nearly cancel, the difference alone is no measure of an error
    scale = torch.stack([difference, difference.mean().expand_as(difference), 0.1 * values.abs().sum(1)]).amax(0)
    off = (delta.abs() / scale.clamp(min=1e-6)).max().item()
    if not off <= TOLERANCE:  # NaN too
        warnings.warn(
            f"{attribution.method} is off by {off:.0%} in the worst sample: its values do not sum to the difference of the "
            "outputs (attribution.delta, as a share of that difference, of its mean over samples or of a tenth of the "
            f"absolute values, whichever is largest). {row.advice}".strip(),
            stacklevel=3,
        )
