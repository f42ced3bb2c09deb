"""Layer methods that are asked at one layer share their passes: what each makes of them costs next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import nn

from inspector.attribution import METHODS, attribute_layers
from inspector.metrics.explaining import Explain
from inspector.records import Attribution, Samples


def together(asked: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> list[list[str]]:
    """The labels in groups that one call can answer; those with options of their own stand alone."""
    groups: dict[str, list[str]] = {}
    for label, own in asked.items():
        name = own["method"]
        row = METHODS[name] if isinstance(name, str) else None
        shares = row is not None and row.at_layer is not None and own.keys() <= {"method", "layer"} and not options
        place = own.get("layer")
        groups.setdefault(f"at {place}" if shares and place is not None else f"alone {label}", []).append(label)
    return list(groups.values())


def explained_together(
    model: nn.Module,
    samples: Samples,
    target: Any,
    asked: Mapping[str, Mapping[str, Any]],
    explain: Mapping[str, Explain],
) -> dict[str, Attribution]:
    """label -> attribution of one group, by one pass for all where the layer allows. ``cost`` is then that of all."""
    if len(asked) > 1:
        layer, names = next(iter(asked.values()))["layer"], {label: own["method"] for label, own in asked.items()}
        with suppress(LookupError, ValueError):  # such as of a value that nests: asked one by one they say so
            made = attribute_layers(model, samples, target=target, method=tuple(set(names.values())), where=str(layer))
            return {label: made[f"{name}@{layer}"] for label, name in names.items()}
    return {label: explain[label](model, samples, target) for label in asked}
