"""Layer methods: one layer by its address, or all layers from one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from inspector.attribution import explained
from inspector.attribution.cannot_run import diagnosed
from inspector.attribution.door import ask, common_options, row_of
from inspector.attribution.methods import Method, options_of
from inspector.attribution.origin import origin
from inspector.attribution.places import missed
from inspector.attribution.positions import only_input_axes
from inspector.attribution.question import Question
from inspector.attribution.seen import Seen
from inspector.attribution.sharing import Sharing
from inspector.attribution.table import METHODS
from inspector.attribution.targets import Target, by_name
from inspector.attribution.untouched import untouched
from inspector.hooks import Where
from inspector.records import Attribution
from inspector.sites import Site, key


def attribute_layers(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    targets: Iterable[Any] | Mapping[Any, Any] | None = None,
    method: str | tuple[str, ...] = "grad_cam",
    where: Where = "*",
    **options: Any,
) -> dict[str, Attribution]:
    """One attribution per layer, keyed by its address ("layer4", "relu@1", "lstm:output[0]"), from one pass for all layers.

    method: a name, or several, which then share their passes; the keys are then "grad_cam@layer4".
    targets: several targets, which then share their forward passes, as of attribute_targets; the keys are then "3@layer4".
    Layers that the target does not depend on are left out (no gradient is not a zero gradient), and so are values that have
    no batch axis, such as packed sequences. ``cost`` is that of all passes together, the same for every layer. options: as
    of ``attribute``, baselines too.
    """
    baselines = options.pop("baselines", None)
    several = not isinstance(method, str)
    rows = dict(row_of(name) for name in (method if several else (method,)))
    _check_pass(rows)
    own, common = _options(rows, options)
    named = _named_targets(target, targets)
    first = ask(model, inputs, next(iter(named.values())), common)
    _refuse_noise(first)
    shares = targets is not None and not any(row.alone for row in rows.values())
    first.sharing = Sharing(first.budget) if shares else None
    found: dict[tuple[Any, str, str], tuple[Question, Seen, Tensor]] = {}
    for label, one in named.items():
        question = replace(first, target=Target(one, first.samples))
        answers = _of_all_layers(question, rows, where, own, baselines, common["seed"])
        found |= {(label, name, layer): (question, *answer) for (name, layer), answer in answers.items()}
    if not found:
        for reason in first.unplaced.values():
            raise ValueError(reason)
        raise LookupError(f"none of the layers chosen by where={where!r} has a value that the target depends on")
    made_by, cost = origin(model, common["seed"]), first.ledger.cost()
    return {
        "@".join([f"{label}"] * (targets is not None) + [name] * several + [layer]): Attribution(
            values=values,
            samples=question.samples,
            target=question.target.given,
            method=name,
            layer=layer,
            baselines=kept_baselines(question, rows[name]),
            options=own[name],
            delta=seen.delta,
            cost=cost,
            axes=seen.positions if common["axes"] is None else common["axes"],
            model=made_by,
            input_axes=only_input_axes(model, question.samples),
        )
        for (label, name, layer), (question, seen, values) in found.items()
    }


def _named_targets(target: Any, targets: Any) -> dict[Any, Any]:
    if targets is None:
        return {None: target}
    if target is not None:
        raise TypeError("give target=, one target, or targets=, several; not both")
    return by_name(targets)


def _of_all_layers(
    question: Question,
    rows: Mapping[str, Method],
    where: Where,
    own: Mapping[str, Mapping[str, Any]],
    baselines: Any,
    seed: int,
) -> dict[tuple[str, str], tuple[Seen, Tensor]]:
    if question.sharing is not None:
        question.sharing.restart()
    with diagnosed(question), untouched(question.model, seed=seed):
        path = any(row.baselines for row in rows.values())
        explain_inputs(question, lenient=not path)
        if path:
            question.baselines = explained.baselines_for(question, baselines, at_layer=False)
        return _answers(question, rows, where, own)


def _options(rows: Mapping[str, Method], options: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Each method's own options, and those that all share; one that is nobody's is refused."""
    own = {name: {k: v for k, v in options.items() if k in row.options} for name, row in rows.items()}
    rest = {k: v for k, v in options.items() if not any(k in taken for taken in own.values())}
    first = next(iter(rows))
    return own, common_options(rows[first], first, rest)


def _answers(
    question: Question, rows: Mapping[str, Method], where: Where, own: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], tuple[Seen, Tensor]]:
    """(method, layer) -> what was seen there and what the method makes of it."""
    passes: dict[Any, dict[Site, Seen]] = {}
    answers = {}
    for name, row in rows.items():
        found = _shared(question, row, where, own[name], passes)
        for site, layer in _keys(list(found)).items():
            answers[name, layer] = found[site], _finish(row, found[site], own[name])
    return answers


def _refuse_noise(question: Question) -> None:
    if question.noise is not None:
        raise ValueError("noise= goes with methods that explain inputs, such as saliency, not with layer methods")


def _check_pass(rows: Mapping[str, Method]) -> None:
    if not rows:
        raise ValueError("method is empty; give a name, or several")
    for name, row in rows.items():
        if row.at_layer is None:
            one_pass = ", ".join(other for other, r in METHODS.items() if r.at_layer is not None)
            raise ValueError(
                f"{name} has no pass that serves all layers; these have: {one_pass}. Or call attribute per layer"
            )


def _shared(
    question: Question, row: Method, where: Where, options: Mapping[str, Any], passes: dict[Any, dict[Site, Seen]]
) -> dict[Site, Seen]:
    """What the row's pass sees; a pass that was made already, with the same options, is not made again."""
    see = _see(row, options)
    made = (row.see, repr(sorted(see.keywords.items(), key=str)))
    if made not in passes:
        passes[made] = see(question, where)
    return passes[made]


def explain_inputs(question: Question, explain: Any = None, layer: Any = None, *, lenient: bool = False) -> None:
    """Puts what is explained into the question. lenient: a layer method may do without inputs that have gradients."""
    sharing = question.sharing
    if sharing is not None and sharing.explained is None:
        sharing.explained = explained.find(question, explain, layer, lenient=lenient)
    found = explained.find(question, explain, layer, lenient=lenient) if sharing is None else sharing.explained
    question.slots = tuple(slot for slot, _ in found)
    question.values = tuple(value for _, value in found)


def at_one_layer(
    question: Question, row: Method, site: Site, baselines: Any, options: Mapping[str, Any]
) -> tuple[Tensor, Any, Tensor | None]:
    """Values, positions and delta of a layer method at one site."""
    _refuse_noise(question)
    explain_inputs(question, lenient=not row.baselines)
    if row.baselines or baselines is not None:
        question.baselines = explained.baselines_for(question, baselines, at_layer=False)
    found = _see(row, options)(question, [site.path], kinds=(site.kind,))
    seen = _choose(found, site, question.unplaced)
    return _finish(row, seen, options), seen.positions, seen.delta


def _choose(found: Mapping[Site, Seen], site: Site, unplaced: Mapping[Site, str]) -> Seen:
    for place, reason in unplaced.items():
        if place.leaf == site.leaf or not found:
            raise ValueError(reason)
    calls = sorted({s.call or 0 for s in found})
    if not calls:
        raise LookupError(f"the target does not depend on {site}, or it did not run for these inputs")
    if site.call is None and len(calls) > 1:
        names = ", ".join(key(site.path, call) for call in calls[:8])
        raise LookupError(f"{site.path!r} ran {len(calls)} times; name one: {names}")
    here = {s: seen for s, seen in found.items() if site.call in (None, s.call)}
    if not here:
        raise LookupError(missed(site, len(calls)))
    fits = [seen for s, seen in here.items() if s.leaf == site.leaf or (site.kind == "input" and not site.leaf)]
    if len(fits) != 1:  # a nested value without a leaf is refused, also where the target depends on one leaf only
        there = ", ".join(map(str, here))
        raise LookupError(f"{site} is not one tensor that the target depends on; there are {there}")
    return fits[0]


def _see(row: Method, options: Mapping[str, Any]) -> partial[dict[Site, Seen]]:
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


def kept_baselines(question: Question, row: Method) -> Any:
    """The baselines as the record keeps them, nested like the values."""
    return explained.nest(question, question.baselines) if question.baselines and row.baselines else None
