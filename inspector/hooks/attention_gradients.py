"""Attention weights with the gradient of a score with respect to them, from one pass: what gradient x attention
(Chefer et al. 2021, https://arxiv.org/abs/2103.15679) is made of. Fused modules run unfused for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inspector.hooks.edit import edit


class Attended(NamedTuple):
    """Both (batch, heads, target, source), without the batch axis for an unbatched input, and detached."""

    weights: Tensor
    gradient: Tensor


def attention_gradients(model: nn.Module, paths: Iterable[str], score: Callable[[], Tensor]) -> dict[str, Attended]:
    """path -> attention weights of that module's call and the gradient of ``score().sum()`` with respect to them.

    paths: as in ``edit``, such as "encoder.layers.0.self_attn" (or "attn@1", "block:attention[1]"). score: runs the model
    and answers with what to explain; put the model in eval mode before, since dropout falls on the weights.
    A gradient that does not arrive is 0. Raises LookupError where a module computes no attention, or is called twice.

    >>> mha, x = nn.MultiheadAttention(4, 2), torch.ones(3, 1, 4)
    >>> attention_gradients(mha, [""], lambda: mha(x, x, x)[0])[""].gradient.shape
    torch.Size([1, 2, 3, 3])
    """
    kept: dict[str, Tensor] = {}

    def keeper(path: str) -> Callable[[Tensor], Tensor]:
        def keep(weights: Tensor) -> Tensor:
            if path in kept:
                raise LookupError(f"{path!r} computes attention more than once; name one, such as '{path}@0'")
            kept[path] = weights if weights.requires_grad else weights.detach().requires_grad_()
            return kept[path]

        return keep

    changes = {path if ":attention" in path else f"{path}:attention": keeper(path) for path in paths}
    with torch.enable_grad(), edit(model, changes):  # type: ignore[arg-type]  # a mapping's keys are invariant
        total = score().sum()
    if len(kept) < len(changes):
        raise LookupError(f"the score did not run {', '.join(map(repr, set(changes) - set(kept)))}")
    gradients = torch.autograd.grad(total, list(kept.values()), materialize_grads=True, allow_unused=True)
    return {path: Attended(kept[path].detach(), g) for path, g in zip(kept, gradients, strict=True)}
