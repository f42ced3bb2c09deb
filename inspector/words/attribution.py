"""What an attribution says: how concentrated it is, what is strongest, and every reason not to believe it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from inspector.records import Attribution
from inspector.tensors import shape_text
from inspector.words.facts import Piece, baseline_of, pieces, target_of, tokens_of
from inspector.words.say import Say

MANY = 10  # positions from which it means something that few of them carry most
GOOD = 0.05  # error of the sum, as a share of the largest sum, up to which it is called good


def tell(a: Attribution, say: Say) -> list[str]:
    """Paragraphs: what was done, what came out for each explained input, and what to doubt."""
    if not len(a.samples):
        return [_what(a, say)]
    parts = pieces(a)
    told = [" ".join(_piece(a, piece, say)) for piece in parts]
    return [_what(a, say), *told, " ".join([*_sums(a, say), say("attribution.doubt")])]


def _what(a: Attribution, say: Say) -> str:
    named = {"method": a.method or say("attribution.name")}
    named["layer"] = say("attribution.at_layer", layer=a.layer) if a.layer is not None else ""
    if not len(a.samples):
        return say("attribution.nothing", **named)
    base = _baseline(a, say)
    baseline = say("attribution.baseline", baseline=base) if base else ""
    return say.of(len(a.samples), "attribution.what", target=_target(a, say), baseline=baseline, **named)


def _target(a: Attribution, say: Say) -> str:
    if a.target is None:
        return say("attribution.no_target")
    if callable(a.target) and not isinstance(a.target, Tensor):
        return _function(a.target, say)
    target = target_of(a)
    return say("attribution.target", target=target) if target else say("attribution.varying_target")


def _baseline(a: Attribution, say: Say) -> str:
    """In words what the explanation is measured against; "" where nothing was given."""
    given = a.baselines
    if callable(given) and not isinstance(given, Tensor):
        return _function(given, say)
    if isinstance(given, Tensor) and given.numel() and bool((given != given.reshape(-1)[0]).any()):
        return say("attribution.tensor", shape=shape_text(given))
    return baseline_of(a)


def _function(given: Any, say: Say) -> str:
    return say("attribution.function", name=getattr(given, "__qualname__", type(given).__name__))


def _piece(a: Attribution, piece: Piece, say: Say) -> Iterator[str]:
    part = say("attribution.part", name=piece.name) if piece.name else ""
    broken = int((~torch.isfinite(piece.values)).sum())
    if broken:
        yield say.of(broken, "attribution.broken")
    if piece.heat is None:
        yield say("attribution.no_positions", part=part, shape="×".join(map(str, piece.values.shape)))
        return
    heat = piece.heat.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0).flatten(1)
    lost = ~torch.isfinite(piece.heat.detach().cpu().flatten(1)).any(dim=1)  # nothing is known of these, not even zero
    silent = int(((heat == 0).all(dim=1) & ~lost).sum())
    if silent:
        every = silent == len(heat)
        yield say("attribution.all_zero") if every else say.of(silent, "attribution.zero", all=f"{len(heat):,}")
    if silent + int(lost.sum()) < len(heat):
        yield from _spread(heat, part, say)
        yield from _signs(heat, say)
        yield from _strongest(a, piece, heat, say)
        yield from _evidence(a.samples.evidence_at(piece.leaf), heat, say)
    yield from _coarse(piece, say)


def _spread(heat: Tensor, part: str, say: Say) -> Iterator[str]:
    size = heat.abs()
    size = size[size.sum(dim=1) > 0]
    positions = size.shape[1]
    if positions < MANY:
        return
    top = max(1, round(positions / 10))
    held = (size.topk(top, dim=1).values.sum(dim=1) / size.sum(dim=1)).mean().item()
    even = say.percent(top / positions)
    yield say(
        "attribution.spread", part=part, top=f"{top:,}", positions=f"{positions:,}", share=say.percent(held), even=even
    )


def _signs(heat: Tensor, say: Say) -> Iterator[str]:
    if (heat >= 0).all():
        yield say("attribution.unsigned")
    else:
        positive = heat.clamp(min=0).sum().item() / heat.abs().sum().item()
        yield say("attribution.signs", positive=say.percent(positive), negative=say.percent(1 - positive))


def _strongest(a: Attribution, piece: Piece, heat: Tensor, say: Say) -> Iterator[str]:
    names = _names(a, piece, heat.shape[1])
    if names:
        mean = heat.mean(dim=0)
        order = mean.abs().argsort(descending=True)[:3].tolist()
        yield say.of(
            len(a.samples), "attribution.strongest", items=say.listing(f"{names[i]} ({mean[i].item():+.3g})" for i in order)
        )


def _names(a: Attribution, piece: Piece, length: int) -> list[str]:
    if piece.view == "tokens":
        return [repr(word) for word in tokens_of(a.samples, 0, length)] if len(a.samples) == 1 else []
    return list(piece.positions)


def _evidence(mask: Tensor | None, heat: Tensor, say: Say) -> Iterator[str]:
    if mask is None or mask.flatten(1).shape != heat.shape:
        return
    true = mask.detach().cpu().flatten(1)
    size = heat.abs()
    kept = (size.sum(dim=1) > 0) & true.any(dim=1)
    if not kept.any():
        return
    share = ((size * true).sum(dim=1)[kept] / size.sum(dim=1)[kept]).mean().item()
    area = true[kept].double().mean().item()
    ratio = say("attribution.evidence_ratio", ratio=f"{share / area:.1f}")
    yield say("attribution.evidence", share=say.percent(share), area=say.percent(area), ratio=ratio)


def _coarse(piece: Piece, say: Say) -> Iterator[str]:
    if piece.view != "image" or piece.heat is None or piece.input is None or piece.input.dim() != 4:
        return
    size, full = piece.heat.shape[1:], piece.input.shape[2:]
    if size != full:
        yield say("attribution.coarse", size="×".join(map(str, size)), full="×".join(map(str, full)))


def _sums(a: Attribution, say: Say) -> Iterator[str]:
    if a.delta is None:
        yield say("attribution.no_delta")
        return
    off = a.delta.detach().cpu().double().reshape(-1).abs()
    if not len(off):
        return
    sums = [p.values.detach().cpu().double().flatten(1).sum(dim=1) for p in pieces(a) if p.values.dim() > 1]
    largest = sum(sums).abs().max().item() if sums and all(len(s) == len(off) for s in sums) else 0.0  # type: ignore[union-attr]  # not empty
    worst = int(off.nan_to_num(float("inf")).argmax())
    value = off[worst].item()
    share = value / largest if largest else float("nan")
    key = "attribution.delta_good" if share <= GOOD or value == 0 else "attribution.delta_bad"
    yield say(key, worst=say.figure(value), index=worst, share=say.percent(share))
