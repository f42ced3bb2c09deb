"""Attention weights before dropout, as their definition gives them: of a stock nn.MultiheadAttention by asking a twin of
it, of a call of ``scaled_dot_product_attention`` or ``multi_head_attention_forward`` from its arguments."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

_MHA = nn.MultiheadAttention
_GIVEN = tuple(inspect.signature(_MHA.forward).parameters)[1:]
_WEIGHTS = {"need_weights": True, "average_attn_weights": False}


def is_stock(module: nn.Module) -> bool:
    """Whether the module computes what nn.MultiheadAttention computes, from parameters that may be read again:
    those of a parametrization (spectral norm) change by being read in training."""
    if getattr(module.forward, "__func__", None) is not _MHA.forward:
        return False
    return not (module.training and any(parametrize.is_parametrized(part) for part in module.modules()))


@torch.no_grad()
def mha_weights(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor:
    """(batch, heads, target, source) of a stock nn.MultiheadAttention; without the batch axis for an unbatched input.

    What PyTorch itself gives with need_weights=True in eval mode: the sources that ``add_bias_kv`` and ``add_zero_attn``
    add come last, and padded queries that ran as a nested tensor have the weights 0. A query that may look nowhere has NaN,
    or 0 where the call itself went on with 0 (its output is no NaN there).
    """
    twin: nn.Module = object.__new__(type(module))  # the module's parameters in a mode of its own
    twin.__dict__.update(module.__dict__ | {"training": False})
    given = dict(zip(_GIVEN, args, strict=False)) | kwargs | _WEIGHTS
    weights: Any = _MHA.forward(twin, **given)[1]  # type: ignore[arg-type]  # the twin is one
    if weights.is_meta or not weights.isnan().any():
        return weights  # type: ignore[no-any-return]  # asked for, so not None
    lost = output[0].isnan().any(-1)  # (batch, target), or (target, batch)
    lost = lost.T if lost.dim() == 2 and not module.batch_first else lost
    return weights.masked_fill(weights.isnan() & ~lost[..., None, :, None], 0)  # type: ignore[no-any-return]  # as above


def functional_weights(*args: Any, **kwargs: Any) -> Tensor:
    """The same of one call of F.multi_head_attention_forward, on its graph."""
    weights: Any = F.multi_head_attention_forward(**functional_arguments(args, kwargs) | _WEIGHTS | {"training": False})[1]
    return weights  # type: ignore[no-any-return]  # asked for, so not None


def functional_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What F.multi_head_attention_forward was called with, by name, with its defaults."""
    bound = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def sdpa_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """(..., heads, target, source) of one call of F.scaled_dot_product_attention, on its graph; computed in float32 or
    wider and given in the query's type. A query that may look nowhere has the weights 0, as in PyTorch; so has padding
    where nested tensors came in."""
    if query.is_nested:
        each = zip(query.unbind(), key.unbind(), value.unbind(), strict=True)
        return _padded([sdpa_weights(*tensors, None, 0.0, is_causal, scale, enable_gqa) for tensors in each])
    wide = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    key = shared_heads(query, key) if enable_gqa else key
    with without_autocast(query):
        scores = _masked((query.to(wide) * scale) @ key.to(wide).mT, attn_mask, is_causal)
        nowhere = scores.isneginf().all(-1, keepdim=True)
        return scores.masked_fill(nowhere, 0).softmax(-1).masked_fill(nowhere, 0).to(query.dtype)


def shared_heads(query: Tensor, keys: Tensor) -> Tensor:
    """Keys or values, each repeated for the group of query heads that shares it."""
    return keys.repeat_interleave(query.shape[-3] // keys.shape[-3], -3)


def _padded(weights: list[Tensor]) -> Tensor:
    """One tensor of weights of different sizes (heads, target, source)."""
    target, source = (max(each.shape[axis] for each in weights) for axis in (-2, -1))
    return torch.stack([F.pad(each, (0, source - each.shape[-1], 0, target - each.shape[-2])) for each in weights])


def _masked(scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    if _is_causal_bias(mask):
        mask = mask._materialize(scores.device)  # type: ignore[union-attr]  # torch hides what isinstance has shown
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores
    return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask


def _is_causal_bias(mask: Any) -> bool:
    """Asked by name, because importing the class loads the whole compiler."""
    kind = type(mask)
    return kind.__name__ == "CausalBias" and kind.__module__ == "torch.nn.attention.bias"


def autocast_to(tensor: Tensor) -> torch.dtype | None:
    """The type that autocast computes in on the tensor's device now, None where it is off."""
    device = tensor.device.type
    on = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    return nullcontext() if autocast_to(tensor) is None else torch.autocast(tensor.device.type, enabled=False)
