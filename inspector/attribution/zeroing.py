"""Value zeroing: how much each token's representation changes when another one's value is taken out of the attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inspector.attribution.attend import FUSED, Values, asked
from inspector.attribution.bent import Bending, Called
from inspector.attribution.places import at
from inspector.attribution.question import Question
from inspector.hooks import tap
from inspector.tensors import shape_text


def value_zeroing(question: Question, *, query: int | None = None) -> Values:
    """1 - cosine between a token's representation at ``layer`` with and without another token's value vector in the
    attention inside that layer (Mohebbi et al. 2023). layer: a block that attends, such as a TransformerEncoderLayer, or a
    softmax of attention weights: then the representation is what they mix."""
    with torch.no_grad():
        question.weighed(question.values)
        whole, keys = _block(question, 1, None)
        rows = []
        for start, count in question.parts(keys):
            without, _ = _block(question, count, torch.arange(start, start + count))
            rows.append(1 - F.cosine_similarity(without.reshape(count, *whole.shape), whole[None], dim=-1))
    changed = torch.cat(rows).movedim(0, -1)  # (batch, tokens that look, tokens taken out)
    return (asked(question, changed, query),)


def _block(question: Question, copies: int, zeroed: Tensor | None) -> tuple[Tensor, int]:
    """The block's output (copies * batch, tokens, features), and how many tokens are looked at in it."""
    site = question.layer
    assert site is not None  # asked for at the door
    inside, weights, keys, seen = [False], set[int](), [0], dict[Any, Any]()

    def step(event: Any) -> None:
        inside[0] = event.site.kind == "input"
        if not inside[0]:
            seen[event.site.path, event.site.call, "output"] = event

    def bend(call: Called) -> Any:
        args = call.args
        if id(args[0]) in weights:
            keys[0] = args[1].shape[-2]
            args = args if zeroed is None else (args[0], _without(args[1], zeroed), *args[2:])
        found = call.func(*args, **call.kwargs)
        if call.name == "softmax" and inside[0]:
            weights.add(id(found))
            kept.append(found)
        elif id(args[0]) in weights:
            mixed[id(args[0])] = found
        return found

    mixed: dict[int, Tensor] = {}  # weights -> what they mix
    kept: list[Tensor] = []  # so that no id is used twice
    values = [v.repeat(copies, *[1] * (v.dim() - 1)) for v in question.values]
    inputs_and_outputs = tap(question.model, lambda name, _: name == site.path, step, what=("input", "output"))
    with inputs_and_outputs, Bending(bend, ("softmax", "matmul", "bmm"), FUSED):
        question.answer(tuple(values), question.rows(values[0]))
    _, value, _ = at(seen, site)
    value, name = mixed.get(id(value), value), str(site) or "the whole model"
    if not keys[0]:
        raise ValueError(f"nothing attends inside {name}; name a block that does, such as a TransformerEncoderLayer")
    if value.dim() != 3 or len(value) != len(values[0]):
        raise ValueError(f"{name} is {shape_text(value)}, not (batch, tokens, features); name a block that is")
    return value, keys[0]


def _without(values: Tensor, zeroed: Tensor) -> Tensor:
    """Each copy of the batch with one token's value set to zero."""
    keep = torch.ones(len(zeroed), values.shape[-2], dtype=values.dtype, device=values.device)
    keep[torch.arange(len(zeroed)), zeroed] = 0
    shaped = values.reshape(len(zeroed), -1, *values.shape[1:])
    return (shaped * keep.reshape(len(zeroed), *[1] * (shaped.dim() - 3), -1, 1)).reshape(values.shape)
