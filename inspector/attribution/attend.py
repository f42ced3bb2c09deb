"""Attention as an explanation, of any model that attends: stock multi-head attention, scaled_dot_product_attention, or a
softmax of its own. The weights are seen where the softmax is computed, so the model need not hand them out.

Each answer is (batch, tokens): how much each token that is looked at counts. query: the token that looks, such as 0 for
a class token; by default all that are not padding, on average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inspector.attribution.bent import Bending, Called
from inspector.attribution.composites import multi_head_attention_forward, scaled_dot_product_attention
from inspector.attribution.question import Question

Values = tuple[Tensor, ...]
FUSED: dict[str, Callable[..., Any]] = {
    "multi_head_attention_forward": multi_head_attention_forward,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}


def attention(question: Question, *, which: int = -1, query: int | None = None) -> Values:
    """The weights themselves, averaged over heads. which: of several attention layers in the order they run."""
    weights, _ = _seen(question, gradient=False)
    if not -len(weights) <= which < len(weights):
        raise ValueError(f"which={which} is out of range: the model attends {len(weights)} times")
    return (asked(question, weights[which].mean(1), query),)


def attention_rollout(question: Question, *, query: int | None = None) -> Values:
    """The weights of all layers multiplied, each mixed half and half with the residual (Abnar and Zuidema 2020)."""
    weights, _ = _seen(question, gradient=False)
    flow = _eye(weights)
    for layer in weights:
        flow = (0.5 * layer.mean(1) + 0.5 * _eye(weights)) @ flow
    return (asked(question, flow, query),)


def grad_x_attention(question: Question, *, query: int | None = None) -> Values:
    """Relevance passed through the layers by the positive part of weights times their gradient (Chefer et al. 2021)."""
    weights, gradients = _seen(question, gradient=True)
    flow = _eye(weights)
    for layer, gradient in zip(weights, gradients, strict=True):
        flow = flow + (layer * gradient).clamp(min=0).mean(1) @ flow
    return (asked(question, flow - _eye(weights), query),)


def _seen(question: Question, *, gradient: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Every attention's weights (batch, heads, queries, keys), and their gradients where asked for."""
    found: list[Tensor] = []

    def note(call: Called) -> Tensor:
        weights = call.func(*call.args, **call.kwargs)
        if weights.dim() >= 3:
            found.append(weights)
        return weights  # type: ignore[no-any-return]  # a softmax of a tensor

    with torch.set_grad_enabled(gradient), Bending(note, ("softmax",), FUSED):
        score = question.score(*question.fresh()) if gradient else _unscored(question)
    if not found:
        raise ValueError("this model computes no attention (no softmax over three or more axes); take integrated_gradients")
    if not gradient:
        return [_by_head(w, question.size) for w in found], []
    grads = torch.autograd.grad(score.sum(), found, allow_unused=True)
    used = [(w, g) for w, g in zip(found, grads, strict=True) if g is not None]
    if not used:
        raise ValueError("the target does not depend on any attention of this model; take integrated_gradients")
    return [_by_head(w.detach(), question.size) for w, _ in used], [_by_head(g, question.size) for _, g in used]


def _unscored(question: Question) -> Tensor:
    question.answer(question.values, question.rows(question.values[0]))
    return torch.zeros(())


def _by_head(weights: Tensor, size: int) -> Tensor:
    if weights.dim() == 3 and weights.shape[0] == size:
        return weights[:, None]
    if weights.shape[0] % size:
        raise ValueError(f"attention weights of {tuple(weights.shape)} have no batch of {size} first")
    return weights.reshape(size, -1, *weights.shape[-2:])


def _eye(weights: list[Tensor]) -> Tensor:
    keys = weights[0].shape[-1]
    for layer in weights:
        if layer.shape[-2:] != (keys, keys):
            raise ValueError(
                f"the layers attend over different tokens ({keys} and {layer.shape[-2]} by {layer.shape[-1]}), so their "
                "weights cannot be multiplied; take method='attention' for one of them"
            )
    return torch.eye(keys, dtype=weights[0].dtype, device=weights[0].device).expand(len(weights[0]), keys, keys)


def asked(question: Question, weights: Tensor, query: int | None) -> Tensor:
    """(batch, keys) of (batch, queries, keys)."""
    if query is not None:
        return weights[:, query]
    valid = question.samples.valid
    if valid is None or valid.shape != weights.shape[:2]:
        return weights.mean(1)
    counted = valid.to(weights)[..., None]
    return (weights * counted).sum(1) / counted.sum(1).clamp(min=1)
