"""Fused functions written out as what they are made of, so that a rule can be given for each part.

Each has the signature of the function that it stands for, and answers NotImplemented for the variants it leaves alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


def lstm(x: Tensor, *rest: Any) -> Any:
    run = _unrolled(x, rest)
    if run.weights[0].shape[0] != 4 * run.state[0].shape[-1]:
        return NotImplemented  # projections

    def cell(gates: Tensor, h: Tensor, c: Tensor, weight: Tensor, bias: Any) -> tuple[Tensor, ...]:
        return _lstm_step(gates + F.linear(h, weight, bias), c)

    out, (h, c) = _recurrent(run, cell)
    return out, h, c


def _lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(x: Tensor, *rest: Any) -> Any:
    out, (h,) = _recurrent(_unrolled(x, rest), _gru_step)
    return out, h


def _gru_step(gates: Tensor, h: Tensor, weight: Tensor, bias: Any) -> tuple[Tensor]:
    (r, z, n), (hr, hz, hn) = gates.chunk(3, -1), F.linear(h, weight, bias).chunk(3, -1)
    new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
    return (new + torch.sigmoid(z + hz) * (h - new),)


def _elman(function: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def rnn(x: Tensor, *rest: Any) -> Any:
        step = lambda gates, h, weight, bias: (function(gates + F.linear(h, weight, bias)),)  # noqa: E731
        out, (h,) = _recurrent(_unrolled(x, rest), step)
        return out, h

    return rnn


class _Unrolled(NamedTuple):
    """A recurrent call: x (time, batch, features), or packed with how many samples run at each step."""

    x: Tensor
    counts: list[int] | None
    state: tuple[Tensor, ...]
    weights: Any
    per: int
    layers: int
    ways: int
    batch_first: bool


def _unrolled(x: Tensor, rest: tuple[Any, ...]) -> _Unrolled:
    """torch's arguments: (x, state, weights, biases, layers, dropout, training, both ways, batch first), or, packed,
    (x, counts, state, weights, biases, layers, dropout, training, both ways)."""
    packed = len(rest) == 8 and isinstance(rest[3], bool)
    counts = rest[0].tolist() if packed else None
    state, weights, biases, layers, _, _, both, *last = rest[packed:]
    batch_first = bool(last and last[0])
    states = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    x = x.transpose(0, 1) if batch_first else x
    return _Unrolled(x, counts, states, weights, 4 if biases else 2, layers, 1 + both, batch_first)


def _recurrent(run: _Unrolled, step: Callable[..., Any]) -> Any:
    """Every layer and direction, step by step: the outputs, and the last states."""
    x, last = run.x, []
    for layer in range(run.layers):
        outputs = []
        for way in range(run.ways):
            i = layer * run.ways + way
            out, states = _one_way(
                run, x, run.weights[i * run.per : (i + 1) * run.per], [s[i] for s in run.state], way, step
            )
            outputs.append(out)
            last.append(states)
        x = torch.cat(outputs, -1)
    return (x.transpose(0, 1) if run.batch_first else x), tuple(torch.stack(s) for s in zip(*last, strict=True))


def _one_way(run: _Unrolled, x: Tensor, weights: Any, states: Any, way: int, step: Callable[..., Any]) -> Any:
    w_in, w_state, *bias = weights
    b_in, b_state = bias or (None, None)
    gates = F.linear(x, w_in, b_in)
    each = list(gates.unbind(0) if run.counts is None else torch.split(gates, run.counts))
    seen = []
    for gate in reversed(each) if way else each:
        n = len(gate)  # of packed sequences, the samples that are this long
        new = step(gate, *(s[:n] for s in states), w_state, b_state)
        states = [torch.cat([a, b[n:]]) if n < len(b) else a for a, b in zip(new, states, strict=True)]
        seen.append(new[0])
    seen = seen[::-1] if way else seen
    return torch.stack(seen) if run.counts is None else torch.cat(seen), states


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
