"""Fused functions written out as what they are made of, so that a rule can be given for each part.

Each has the signature of the function that it stands for, and answers NotImplemented for the variants it leaves alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def div(a: Any, b: Any, **options: Any) -> Any:
    if options or not isinstance(b, Tensor) or not b.is_floating_point():
        return NotImplemented
    return torch.reciprocal(b) * a


def rdiv(b: Tensor, a: Any) -> Any:
    return torch.reciprocal(b) * a


def layer_norm(x: Tensor, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    scaled = _standardized(x, axes, eps)
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


def group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    grouped = x.reshape(x.shape[0], groups, -1)
    scaled = _standardized(grouped, (-1,), eps).reshape(x.shape)
    shape = (1, -1, *[1] * (x.dim() - 2))
    scaled = scaled if weight is None else scaled * weight.reshape(shape)
    return scaled if bias is None else scaled + bias.reshape(shape)


def rms_norm(x: Tensor, shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * torch.rsqrt((x * x).mean(axes, keepdim=True) + eps)
    return scaled if weight is None else scaled * weight


def _standardized(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)


def maximum_along(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """x.max(dim) and x.amax(dim) as a pooling over the axis."""
    if not isinstance(dim, int) or not x.is_floating_point():
        return NotImplemented
    moved = x.movedim(dim, -1)
    top = F.max_pool1d(moved.reshape(-1, 1, moved.shape[-1]), moved.shape[-1]).reshape(moved.shape[:-1])
    return top.unsqueeze(dim) if keepdim else top


def max_along(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    top = maximum_along(x, dim, keepdim)
    if top is NotImplemented:
        return top
    return torch.return_types.max((top, x.detach().argmax(dim, keepdim)))


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p or enable_gqa:
        return NotImplemented
    scores = torch.matmul(q, k.transpose(-2, -1)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        masked = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        scores = masked
    return torch.matmul(scores.softmax(-1), v)


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, heads: int, in_weight: Any, in_bias: Any, bias_k: Any,
    bias_v: Any, add_zero_attn: bool, dropout_p: float, out_weight: Tensor, out_bias: Any, training: bool = True,
    key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None, use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None, k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None,
    static_v: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip  # the signature is torch's
    if bias_k is not None or add_zero_attn or static_k is not None or static_v is not None or query.dim() != 3:
        return NotImplemented
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    weights = separate if use_separate_proj_weight else in_weight.chunk(3)
    biases = (None, None, None) if in_bias is None else in_bias.chunk(3)
    q, k, v = (_split(F.linear(t, w, b), heads) for t, w, b in zip((query, key, value), weights, biases, strict=True))
    scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    for mask in (_spread(attn_mask, q, heads), None if key_padding_mask is None else key_padding_mask[:, None, None]):
        if mask is not None:
            scores = scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    attention = scores.softmax(-1)
    mixed = torch.matmul(attention, v).permute(2, 0, 1, 3).flatten(2)
    weights_out = attention.mean(1) if average_attn_weights else attention
    return F.linear(mixed, out_weight, out_bias), weights_out if need_weights else None


def _split(x: Tensor, heads: int) -> Tensor:
    """(time, batch, heads * d) -> (batch, heads, time, d)"""
    return x.reshape(*x.shape[:2], heads, -1).permute(1, 2, 0, 3)


def _spread(mask: Tensor | None, q: Tensor, heads: int) -> Tensor | None:
    if mask is None or mask.dim() == 2:
        return mask
    return mask.reshape(-1, heads, *mask.shape[1:])


def lstm(x: Tensor, state: Any, weights: Any, biases: Any, *options: Any) -> Any:
    if isinstance(weights, Tensor) or (len(weights) and weights[0].shape[0] != 4 * state[0].shape[-1]):
        return NotImplemented  # packed sequences and projections

    def cell(gates: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Any) -> tuple[Tensor, ...]:
        return _lstm_step(gates + F.linear(h, weight, bias), c)

    out, (h, c) = _recurrent(x, state, weights, biases, options, cell)
    return out, h, c


def _lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(x: Tensor, state: Any, weights: Any, biases: Any, *options: Any) -> Any:
    if isinstance(weights, Tensor):
        return NotImplemented
    out, (h,) = _recurrent(x, (state,), weights, biases, options, _gru_step)
    return out, h


def _gru_step(gates: Tensor, h: Tensor, weight: Tensor, bias: Any) -> tuple[Tensor]:
    (r, z, n), (hr, hz, hn) = gates.chunk(3, -1), F.linear(h, weight, bias).chunk(3, -1)
    new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
    return (new + torch.sigmoid(z + hz) * (h - new),)


def _elman(function: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def rnn(x: Tensor, state: Any, weights: Any, biases: Any, *options: Any) -> Any:
        if isinstance(weights, Tensor):
            return NotImplemented
        step = lambda gates, h, weight, bias: (function(gates + F.linear(h, weight, bias)),)  # noqa: E731
        out, (h,) = _recurrent(x, (state,), weights, biases, options, step)
        return out, h

    return rnn


def _recurrent(x: Tensor, state: Any, weights: Any, biases: bool, options: Any, step: Callable[..., Any]) -> Any:
    """Every layer and direction, step by step. options: layers, dropout, training, bidirectional, batch_first."""
    layers, _, _, both, batch_first = options
    x = x.transpose(0, 1) if batch_first else x
    ways, per, last = 1 + both, 4 if biases else 2, []
    for layer in range(layers):
        outputs = []
        for way in range(ways):
            i = layer * ways + way
            w_in, w_state, *bias = weights[i * per : (i + 1) * per]
            b_in, b_state = bias or (None, None)
            gates = F.linear(x.flip(0) if way else x, w_in, b_in)
            states, seen = tuple(s[i] for s in state), []
            for gate in gates.unbind(0):
                states = step(gate, *states, w_state, b_state)
                seen.append(states[0])
            out = torch.stack(seen)
            outputs.append(out.flip(0) if way else out)
            last.append(states)
        x = torch.cat(outputs, -1)
    return (x.transpose(0, 1) if batch_first else x), tuple(torch.stack(s) for s in zip(*last, strict=True))


def lstm_cell(x: Tensor, state: Any, w_in: Tensor, w_state: Tensor, b_in: Any = None, b_state: Any = None) -> Any:
    return _lstm_step(F.linear(x, w_in, b_in) + F.linear(state[0], w_state, b_state), state[1])


def gru_cell(x: Tensor, h: Tensor, w_in: Tensor, w_state: Tensor, b_in: Any = None, b_state: Any = None) -> Any:
    return _gru_step(F.linear(x, w_in, b_in), h, w_state, b_state)[0]


COMPOSITES: dict[str, Callable[..., Any]] = {
    "div": div,
    "rdiv": rdiv,
    "rtruediv": rdiv,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "rms_norm": rms_norm,
    "max": max_along,
    "amax": maximum_along,
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention_forward,
    "lstm": lstm,
    "gru": gru,
    "lstm_cell": lstm_cell,
    "rnn_tanh": _elman(torch.tanh),
    "rnn_relu": _elman(torch.relu),
    "gru_cell": gru_cell,
}
