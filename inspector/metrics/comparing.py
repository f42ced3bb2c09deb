"""Compare: several methods and the controls on the same samples, with evidence of which can be believed and how far."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution import METHODS
from inspector.attribution.door import check_layer, common_options, row_of
from inspector.attribution.untouched import untouched
from inspector.counting import peak_memory
from inspector.metrics.agreement import agreement
from inspector.metrics.caveats import caveats
from inspector.metrics.controls import controls
from inspector.metrics.explaining import Explain, explainer
from inspector.metrics.layers import last_with_positions
from inspector.metrics.scoring import DEFAULT, labels, score
from inspector.metrics.sharing import explained_together, together
from inspector.metrics.surface import Surface, surface
from inspector.metrics.table import Metric, chosen
from inspector.metrics.truth import check_axes, check_masks, counts_channels
from inspector.provenance import provenance
from inspector.records import Attribution, Comparison, Cost, Samples, as_samples
from inspector.tensors import shape_text, walk

METHODS_BY_DEFAULT = ("saliency", "input_x_gradient", "integrated_gradients", "grad_cam")
Progress = bool | None | Callable[[int, int, str], None]


def compare(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = None,
    methods: Any = METHODS_BY_DEFAULT,
    metrics: Any = DEFAULT,
    layer: Any = None,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> Comparison:
    """Explain the same samples by several methods and judge each, beside controls that explain nothing.

    inputs: Samples, or what the model takes. methods: names or functions, or a mapping of labels to these or to
    ``dict(method="integrated_gradients", baselines=...)``. metrics: as in ``score``. layer: for methods that need one;
    None is the last module with spatial or time axes, named in ``settings``; where there is none, the methods by default
    leave Grad-CAM out. progress: True, False, None (a bar where it
    lasts and somebody is watching), or a function of (done, total, label). options go to every method.
    """
    samples = as_samples(inputs, target)
    if len(samples) < 2:
        raise ValueError(
            "compare needs two samples or more, to tell differences from luck; for one, use attribute and score"
        )
    asked, rows = wanted(_that_apply(model, samples, methods, layer)), chosen(metrics)
    _check_evidence(samples, rows, {label: options | own for label, own in asked.items()})
    given_layer, layer = layer, _layer_for(model, samples, asked, layer)
    asked = {label: {"layer": layer} | own if _needs_layer(own["method"]) else own for label, own in asked.items()}
    for own in asked.values():
        _check_method(model, options | own)
    explain = {label: explainer(len(samples), **options | own) for label, own in asked.items()}
    with untouched(model, seed=seed), _steps(progress, len(asked) + (len(asked) + 3) * len(rows)) as tick:
        groups = [{label: asked[label] for label in names} for names in together(asked, options)]
        made, said = _explained(model, samples, target, explain, groups, tick)
        yardsticks = controls(_any_surface(made), seed)
        made |= {free(name, made): ask(model, samples, target) for name, ask in yardsticks.items()}
        agree = agreement(made)
        names = [label for label in made if label not in explain]
        explain |= dict(zip(names, yardsticks.values(), strict=True))
        scores = score(model, made, rows, seed=seed, explain=explain, tick=tick)
        warned = [*_unused(given_layer, asked), *said, *caveats(model, scores, made, names, rows)]
    settings = {
        "layer": None if layer is None else str(layer),
        "seed": seed,
        "samples": len(samples),
        "metrics": {name: {"baseline": row.baseline} for name, row in rows.items()},
        "methods": {label: {k: _said(v) for k, v in own.items()} for label, own in asked.items()},
        "model": provenance(model, seed=seed),
    }
    cost = {label: a.cost if label in asked else Cost() for label, a in made.items()}
    return Comparison(made, scores, agree, cost, tuple(names), tuple(warned), settings)


def wanted(methods: Any) -> dict[str, dict[str, Any]]:
    """Label -> options of ``attribute``, among them ``method``. Raises KeyError for a name that METHODS lacks."""
    if isinstance(methods, Mapping):
        found = {label: _entry(label, entry) for label, entry in methods.items()}
    else:
        given = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
        found = dict(zip(labels([(_name(method), None) for method in given]), ({"method": m} for m in given), strict=True))
    if not found:
        raise ValueError(f"no method was asked for; there are {', '.join(METHODS)}")
    for own in found.values():
        _ = METHODS[own["method"]] if isinstance(own["method"], str) else None
    return found


def _that_apply(model: nn.Module, samples: Samples, methods: Any, layer: Any) -> Any:
    """The methods by default need no thought: Grad-CAM is only among them where some layer has positions."""
    if methods is not METHODS_BY_DEFAULT or layer is not None:
        return methods
    try:
        last_with_positions(model, samples)
    except LookupError:
        applies = False
    else:
        applies = not counts_channels(samples)  # which no layer shares with the input
    return methods if applies else tuple(name for name in methods if not _needs_layer(name))


def _any_surface(made: Mapping[str, Attribution]) -> Surface:
    """Where the maps lie on the inputs; raises what the last of them raises where none does."""
    for attribution in list(made.values())[:-1]:
        with suppress(ValueError):
            return surface(attribution)
    return surface(list(made.values())[-1])


def free(name: str, taken: Mapping[str, Any]) -> str:
    """A label for a control that no method of the user's has."""
    return name if name not in taken else free(f"{name}_control", taken)


def _entry(label: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        return {"method": label} | dict(entry)
    return {"method": entry}


def _name(method: Any) -> str:
    return method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)


def _said(value: Any) -> str:
    """An option as text: the settings say what was asked, the attributions hold what was used."""
    return f"tensor {shape_text(value)}" if isinstance(value, Tensor) else _name(value) if callable(value) else str(value)


def _needs_layer(method: Any) -> bool:
    return isinstance(method, str) and (METHODS[method].explains == "layer" or METHODS[method].helped)


def _layer_for(model: nn.Module, samples: Samples, asked: Mapping[str, dict[str, Any]], layer: Any) -> Any:
    """The layer for methods that need one and were given none of their own."""
    needed = any(_needs_layer(own["method"]) and own.get("layer") is None for own in asked.values())
    if not needed:
        return None
    return last_with_positions(model, samples) if layer is None else layer


def _unused(layer: Any, asked: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    if layer is not None and not any(_needs_layer(own["method"]) for own in asked.values()):
        how = "give it to a method as dict(method=..., layer=...)"
        yield f"layer={str(layer)!r} was not used, because no method here needs one; {how}"


def _check_method(model: nn.Module, asked: Mapping[str, Any]) -> None:
    """Raises what ``attribute`` would raise of an option or a layer that there is not, before any method has run."""
    name, row = row_of(asked["method"])
    common_options(row, name, {k: v for k, v in asked.items() if k not in ("method", "layer", "baselines", "explain")})
    check_layer(row, name, asked.get("layer"), model)


def _check_evidence(samples: Samples, rows: Mapping[str, Metric], asked: Mapping[str, Mapping[str, Any]]) -> None:
    missing = [name for name, row in rows.items() if row.needs == "evidence" and samples.evidence is None]
    if missing:
        need = f"{', '.join(missing)} need{'s' * (len(missing) == 1)} to know the truth"
        raise ValueError(f"{need}; give Samples(inputs, evidence=mask), True where the evidence lies")
    check_masks(samples)
    for label, own in asked.items():
        _fits_evidence(label, own, samples)


def _fits_evidence(label: str, own: Mapping[str, Any], samples: Samples) -> None:
    """Raises ValueError where a map of these options is sure to have other positions than the evidence."""
    row = METHODS[own["method"]] if isinstance(own["method"], str) else None
    at_layer = _needs_layer(own["method"]) or own.get("layer") is not None
    if at_layer and not (row is not None and row.helped):
        if channels := counts_channels(samples):
            raise ValueError(
                f"{channels} counts the channels of the input, which {label}'s map of a layer does not have; give one value "
                f"per position, such as evidence.any(1) of images, or leave {label} out"
            )
    elif own.get("axes") is not None:
        check_axes(samples, own["axes"])


def _explained(
    model: nn.Module,
    samples: Samples,
    target: Any,
    explain: Mapping[str, Explain],
    groups: list[dict[str, dict[str, Any]]],
    tick: Callable[[str], None],
) -> tuple[dict[str, Attribution], list[str]]:
    """The attributions with their cost, memory too, and what their methods warned of."""
    made: dict[str, Attribution] = {}
    said: list[str] = []
    device = next((t.device for _, t in walk(samples.inputs)), torch.device("cpu"))
    for group in groups:
        for label in group:
            tick(label)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with peak_memory(device) as peak:
                    found = explained_together(model, samples, target, group, explain)
            except Exception as error:
                names = " or ".join(map(repr, group))
                error.add_note(f"while {names} was explaining for the comparison; leave it out of methods=... or correct it")
                raise
        made |= {label: replace(a, cost=a.cost._replace(peak_bytes=peak[0])) for label, a in found.items()}
        said += [_labelled(" and ".join(group), str(warning.message)) for warning in caught]
    return {label: made[label] for label in explain}, list(dict.fromkeys(said))


def _labelled(label: str, message: str) -> str:
    return message if message.startswith(f"{label} ") else f"{label}: {message}"


@contextmanager
def _steps(progress: Progress, total: int) -> Iterator[Callable[[str], None]]:
    """A function to call before each step with its label."""
    if callable(progress):
        done = iter(range(total + 1))
        yield lambda label: progress(next(done), total, label)
        progress(total, total, "done")
        return
    from tqdm import tqdm

    hidden = None if progress is None else not progress
    with tqdm(total=total, disable=hidden, delay=0 if progress else 2, leave=False) as bar:

        def tick(label: str) -> None:
            bar.set_description(label, refresh=False)
            bar.update()

        yield tick
