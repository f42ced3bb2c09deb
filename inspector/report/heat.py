"""What the page needs to draw attributions itself: maps, inputs and names of as many samples as fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inspector.records import Attribution, Comparison
from inspector.report.markup import Html, join
from inspector.report.packing import Packed, viewer
from inspector.words.facts import Piece, pieces, target_of, tokens_of, true_of, valid_of

BUDGET = 3_000_000  # numbers of one viewer, two bytes each before they are deflated


def heat_viewer(attributions: Mapping[str, Attribution], controls: tuple[str, ...] = ()) -> Html:
    """Sample by sample and method by method, with colours, clipping and scale chosen in the page; nothing without maps."""
    maps = {label: piece for label, a in attributions.items() if (piece := _only(a)) is not None and len(a.samples)}
    if not maps:
        return join([])
    first = attributions[next(iter(maps))]
    shown = _fitting(list(maps.values()), len(first.samples))
    packed = Packed()
    data = {
        "labels": list(maps),
        "controls": [label for label in maps if label in controls],
        "maps": [[packed.add(piece.heat[i]) for i in range(shown)] for piece in maps.values() if piece.heat is not None],
        "samples": [_sample(first, i) for i in range(shown)],
        "inputs": [_input(piece, i, packed) for piece in list(maps.values())[:1] for i in range(shown)],
        "features": [str(name) for name in first.samples.names.get("features", ())],
        "view": next(iter(maps.values())).view,
        "total": len(first.samples),
    }
    tokens = data["view"] == "tokens"
    length = next(iter(maps.values())).heat
    data["tokens"] = [_tokens(first, i, length) for i in range(shown)] if tokens else []
    return viewer("heat", data, packed, "Maps, sample by sample")


def comparison_viewer(record: Comparison) -> Html:
    return heat_viewer(record.attributions, record.controls)


def attribution_viewer(record: Attribution) -> Html:
    return heat_viewer({record.method or "attribution": record})


def _only(attribution: Attribution) -> Piece | None:
    """The explained tensor, where there is one and it has positions."""
    found = [piece for piece in pieces(attribution) if piece.heat is not None and piece.view != "other"]
    return found[0] if len(found) == 1 else None


def _fitting(maps: list[Piece], samples: int) -> int:
    each = _numbers(maps[0].input) + sum(piece.heat[0].numel() for piece in maps if piece.heat is not None)
    return min(samples, max(1, BUDGET // max(each, 1)))


def _numbers(given: Tensor | None) -> int:
    return 0 if given is None else given[0].numel()


def _sample(attribution: Attribution, index: int) -> dict[str, str]:
    return {"target": target_of(attribution, index), "true": true_of(attribution.samples, index)}


def _tokens(attribution: Attribution, index: int, heat: Tensor | None) -> list[list[Any]]:
    """Each token with whether it counts: [word, valid]."""
    length = 0 if heat is None else heat.shape[1]
    words, valid = tokens_of(attribution.samples, index, length), valid_of(attribution.samples, index, length)
    return [[word, bool(ok)] for word, ok in zip(words, valid.tolist(), strict=True)]


def _input(piece: Piece, index: int, packed: Packed) -> dict[str, Any] | None:
    """The sample as it is drawn: an image (height, width) or (3, height, width), a series (features, time), a row."""
    if piece.input is None or piece.view == "tokens" or not piece.input.is_floating_point():
        return None
    sample = piece.input[index].detach()
    if piece.view == "image" and sample.dim() == 3 and sample.shape[0] != 3:
        sample = sample.mean(0)
    if piece.view == "sequence":
        sample = sample.transpose(0, 1)
    return packed.add(sample)
