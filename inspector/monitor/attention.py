"""How sharp attention is and how large its logits are, from a few queries, computed again from what went in.

Fused attention hands out neither. Only steps that are sampled are looked at; the model's own call is left as it is.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.hooks.attention_weights import is_stock, shared_heads, without_autocast
from inspector.hooks.frame import Frame
from inspector.hooks.watch import Outer, Watch

_SEQUENCES, _QUERIES = 2, 32  # of a batch, of a sequence
_LOOKS = 5  # without attention, after which a module is taken for one that has none


class Attention(Watch):
    """``begin_call`` and ``end_call`` around a call of a module; what it attended with comes as (2,): mean entropy as a
    share of the largest possible, and the largest magnitude of the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.without: Counter[str] = Counter()  # modules of one's own -> looks at them that saw no attention

    def begin_call(self, frame: Frame) -> Outer | None:
        """None where there is nothing to end."""
        stock = is_stock(frame.module)
        leaf = type(frame.module).__module__.startswith("torch.nn.modules.")
        wanted = not leaf and not stock and self.without[frame.path] < _LOOKS
        return self.begin(wanted) if wanted or stock or self.on else None

    def end_call(self, frame: Frame, outer: Outer) -> list[Tensor]:
        if frame.raised is None:
            self.without[frame.path] = 0 if self.found else self.without[frame.path] + 1
        found = [one for one in self.found or [] if isinstance(one, Tensor)]
        self.end(outer)
        if frame.raised is None and is_stock(frame.module):
            try:
                found.append(_of_stock(frame.module, *frame.args, **frame.kwargs))
            except Exception:  # an unusual call, of which nothing is said
                return found
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is not None and func is F.scaled_dot_product_attention:
            try:
                self.found.append(_of_scaled(*args, **(kwargs or {})))
            except Exception as error:
                self.found.append(error)
        return result


@torch.no_grad()
def _of_scaled(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """query (batch, ..., heads, target, size), key likewise with the sources; the mask as PyTorch takes it."""
    rows = _some(query.shape[-2], query.device)
    few, keys = query[:_SEQUENCES, ..., rows, :].float(), key[:_SEQUENCES].float()
    keys = shared_heads(query, keys) if enable_gqa else keys
    with without_autocast(query):
        scores = few @ keys.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    seen = torch.ones_like(scores, dtype=torch.bool)
    if is_causal:
        seen &= torch.arange(key.shape[-2], device=rows.device) <= rows[:, None]
    if attn_mask is not None:
        mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])[:_SEQUENCES, ..., rows, :]
        scores, seen = (scores, seen & mask) if mask.dtype is torch.bool else (scores + mask, seen & ~mask.isneginf())
    return _told(scores, seen)


@torch.no_grad()
def _of_stock(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Tensor:
    """Of a call of nn.MultiheadAttention with these arguments."""
    query, key = (_batch_first(module, t) for t in (query, key))
    batch, target, source, heads = *query.shape[:2], key.shape[1], module.num_heads
    if module._qkv_same_embed_dim:
        of_query, of_key, _ = module.in_proj_weight.chunk(3)
    else:
        of_query, of_key = module.q_proj_weight, module.k_proj_weight
    biases = (None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[:2]
    few = min(batch, _SEQUENCES)
    queries, keys = (
        torch.unflatten(F.linear(t[:few], weight, bias), -1, (heads, -1)).transpose(1, 2)
        for t, weight, bias in ((query, of_query, biases[0]), (key, of_key, biases[1]))
    )
    mask = torch.zeros(few, 1, target, source, device=query.device)
    if attn_mask is not None:
        given = attn_mask if attn_mask.dim() == 2 else torch.unflatten(attn_mask, 0, (batch, heads))[:few]
        mask = mask + _added(given)
    if key_padding_mask is not None:
        mask = mask + _added(key_padding_mask.reshape(batch, 1, 1, source)[:few])
    return _of_scaled(queries, keys, keys, mask)


def _batch_first(module: nn.MultiheadAttention, tensor: Tensor) -> Tensor:
    if tensor.dim() == 2:
        return tensor[None]
    return tensor if module.batch_first else tensor.transpose(0, 1)


def _added(mask: Tensor) -> Tensor:
    """nn.MultiheadAttention's mask as numbers to add: its True means that nobody may look there."""
    if mask.dtype is not torch.bool:
        return mask.float()
    return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, float("-inf"))


def _some(count: int, device: torch.device) -> Tensor:
    step = max(count // _QUERIES, 1)
    return torch.arange(0, min(count, step * _QUERIES), step, device=device)


def _told(scores: Tensor, seen: Tensor) -> Tensor:
    """(2,) from scores (..., target, source) and which of them are looked at."""
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num()
    entropy = torch.special.entr(weights).sum(-1)
    most = seen.sum(-1).clamp(min=2).log()
    several = seen.sum(-1) > 1  # a query that may look at one place only says nothing
    share = (entropy / most * several).sum() / several.sum().clamp(min=1)
    return torch.stack([share, (scores.abs() * seen).nan_to_num(neginf=0.0).max()])
