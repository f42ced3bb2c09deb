"""``attribute`` and ``attribute_layers``: check at the door, ask the question, write the record."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution import explained
from inspector.attribution.methods import Method, of_function, options_of
from inspector.attribution.noise import combined, noisy
from inspector.attribution.places import known
from inspector.attribution.question import Noise, Question
from inspector.attribution.seen import Seen
from inspector.attribution.table import METHODS
from inspector.attribution.targets import Target
from inspector.attribution.untouched import untouched
from inspector.hooks import Where
from inspector.provenance import provenance
from inspector.records import Attribution
from inspector.records.samples import as_samples
from inspector.sites import Site, key
from inspector.tensors import walk

TOLERANCE = 0.05
_COMMON: dict[str, Any] = {
    "seed": 0,
    "budget": 2**30,
    "axes": None,
    "noise": None,
    "noise_samples": 10,
    "noise_form": "mean",
}


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
    off by more than 5 %.
    """
    name, row = _row(method)
    common = _common(row, name, options)
    _check_layer(row, name, layer, model)
    question = _question(model, inputs, target, common)
    with untouched(model, seed=common["seed"]):
        if row.check is not None:
            row.check(model)
        if row.at_layer is not None and layer is not None:
            values, slots_axes, delta = _at_one_layer(question, row, known(model, layer), baselines, options)
        else:
            question.layer = known(model, layer) if row.helped and layer is not None else None
            at = None if row.helped else layer
            values, slots_axes, delta = _at_slots(question, row, explain, at, baselines, options)
    attribution = Attribution(
        values=values,
        samples=question.samples,
        target=question.target.given,
        method=name,
        layer=None if layer is None else str(layer),
        baselines=_kept(question, row),
        options=options,
        delta=delta,
        cost=question.ledger.cost(),
        axes=slots_axes if common["axes"] is None else common["axes"],
        model=provenance(model, seed=common["seed"]),
    )
    _warn_incomplete(question, row, attribution)
    return attribution


def attribute_layers(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    method: str = "grad_cam",
    where: Where = "*",
    baselines: Any = None,
    **options: Any,
) -> dict[str, Attribution]:
    """One attribution per layer, keyed by its address ("layer4", "relu@1", "lstm:output[0]"), from one pass for all layers.

    Layers that the target does not depend on are left out: no gradient is not a zero gradient. ``cost`` is that of the
    pass, the same for every layer.
    """
    name, row = _row(method)
    if row.at_layer is None:
        one_pass = ", ".join(other for other, r in METHODS.items() if r.at_layer is not None)
        raise ValueError(f"{name} has no pass that serves all layers; these have: {one_pass}. Or call attribute per layer")
    common = _common(row, name, options)
    question = _question(model, inputs, target, common)
    with untouched(model, seed=common["seed"]):
        _explain_inputs(question)
        if row.baselines:
            question.baselines = explained.baselines_for(question, baselines, at_layer=False)
        found = _see(row, options)(question, where)
        values = {site: _finish(row, seen, options) for site, seen in found.items()}
    if not values:
        raise LookupError(f"none of the layers chosen by where={where!r} has a value that the target depends on")
    origin, cost = provenance(model, seed=common["seed"]), question.ledger.cost()
    return {
        key: Attribution(
            values=values[site],
            samples=question.samples,
            target=question.target.given,
            method=name,
            layer=key,
            options=options,
            delta=found[site].delta,
            cost=cost,
            axes=found[site].positions if common["axes"] is None else common["axes"],
            model=origin,
        )
        for site, key in _keys(list(values)).items()
    }


def _row(method: Any) -> tuple[str, Method]:
    if isinstance(method, str):
        return method, METHODS[method]
    return getattr(method, "__name__", type(method).__name__), of_function(method)


def _common(row: Method, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options that every method has out of ``options``; unknown ones are refused."""
    common = _COMMON | {k: options.pop(k) for k in _COMMON if k in options}
    if row.needs != "as it asks":
        for option in options:
            if option not in row.options:
                there = ", ".join([*row.options, *_COMMON])
                raise TypeError(f"{name} has no option {option!r}; it has {there}")
    return common


def _check_layer(row: Method, name: str, layer: Any, model: nn.Module) -> None:
    if layer is not None and row.explains == "input" and not row.helped:
        raise ValueError(f"{name} explains inputs, not layers; leave layer out, or take integrated_gradients or saliency")
    if layer is None and (row.explains == "layer" or row.helped):
        raise ValueError(f"{name} needs a layer: say which with layer=..., such as layer={_likely_layer(model)!r}")
    if layer is not None:
        known(model, layer)


def _likely_layer(model: nn.Module) -> str:
    """The last convolution, or else the last module but one."""
    named = [(name, module) for name, module in model.named_modules() if name]
    convolutions: list[str] = [name for name, module in named if isinstance(module, nn.modules.conv._ConvNd)]
    return (convolutions or [name for name, _ in named][:-1] or [""])[-1]


def _question(model: nn.Module, inputs: Any, target: Any, common: Mapping[str, Any], *, scored: bool = True) -> Question:
    samples = as_samples(inputs, target)
    if not len(samples):
        raise ValueError("inputs hold no sample (batch of 0); give at least one")
    with torch.inference_mode(False):
        own = explained.private(samples.inputs)
    noise = None if common["noise"] is None else Noise(common["noise"], common["noise_samples"], common["noise_form"])
    return Question(model, samples, own, Target(target, samples), budget=common["budget"], noise=noise)


def _explain_inputs(question: Question, explain: Any = None, layer: Any = None) -> None:
    found = explained.find(question, explain, layer)
    question.slots = tuple(slot for slot, _ in found)
    question.values = tuple(value for _, value in found)


def _at_slots(
    question: Question, row: Method, explain: Any, layer: Any, baselines: Any, options: Mapping[str, Any]
) -> tuple[Any, Any, Tensor | None]:
    assert row.run is not None
    _explain_inputs(question, explain, layer)
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


def _at_one_layer(
    question: Question, row: Method, site: Site, baselines: Any, options: Mapping[str, Any]
) -> tuple[Tensor, Any, Tensor | None]:
    _explain_inputs(question)
    if row.baselines or baselines is not None:
        question.baselines = explained.baselines_for(question, baselines, at_layer=False)
    found = _see(row, options)(question, [site.path], kinds=(site.kind,))
    seen = _choose(found, site)
    return _finish(row, seen, options), seen.positions, seen.delta


def _choose(found: Mapping[Site, Seen], site: Site) -> Seen:
    calls = sorted({s.call or 0 for s in found})
    if not calls:
        raise LookupError(f"the target does not depend on {site}, or it did not run for these inputs")
    if site.call is None and len(calls) > 1:
        names = ", ".join(key(site.path, call) for call in calls[:8])
        raise LookupError(f"{site.path!r} ran {len(calls)} times; name one: {names}")
    here = {s: seen for s, seen in found.items() if site.call in (None, s.call)}
    fits = [seen for s, seen in here.items() if s.leaf[: len(site.leaf)] == site.leaf]
    if len(fits) != 1:
        there = ", ".join(map(str, here)) or f"calls {', '.join(map(str, calls))}"
        raise LookupError(f"{site} is not one tensor that the target depends on; there are {there}")
    return fits[0]


def _see(row: Method, options: Mapping[str, Any]) -> Callable[..., dict[Site, Seen]]:
    """The pass over layers, with the options that are its own."""
    assert row.see is not None
    return partial(row.see, **{name: value for name, value in options.items() if name in options_of(row.see)})


def _finish(row: Method, seen: Seen, options: Mapping[str, Any]) -> Tensor:
    assert row.at_layer is not None
    own = {name: value for name, value in options.items() if name in options_of(row.at_layer)}
    value: Tensor = row.at_layer(seen, **own)
    return value.detach()


def _keys(sites: list[Site]) -> dict[Site, str]:
    """Addresses as short as they can be: the call is named where there were several, the leaf where a value nests."""
    calls: dict[str, set[int | None]] = {}
    for site in sites:
        calls.setdefault(site.path, set()).add(site.call)
    return {site: str(site if len(calls[site.path]) > 1 else site._replace(call=None)) for site in sites}


def _kept(question: Question, row: Method) -> Any:
    return explained.nest(question, question.baselines) if question.baselines else None


def _warn_incomplete(question: Question, row: Method, attribution: Attribution) -> None:
    delta = attribution.delta
    if delta is None or not row.complete:
        return
    values = torch.cat([value.reshape(len(value), -1) for _, value in walk(attribution.values)], 1)
    difference = (values.sum(1) - delta).abs()
    # where evidence for and against nearly cancel, the difference alone is no measure of an error
    scale = torch.stack([difference, difference.mean().expand_as(difference), 0.1 * values.abs().sum(1)]).amax(0)
    off = (delta.abs() / scale.clamp(min=1e-6)).max().item()
    if off > TOLERANCE:
        warnings.warn(
            f"{attribution.method} is off by {off:.0%}: its values do not sum to the difference of the outputs "
            f"(attribution.delta, per sample). {row.limits}".strip(),
            stacklevel=3,
        )
