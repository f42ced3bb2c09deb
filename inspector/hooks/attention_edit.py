"""Replace attention weights while a call runs: the attention is computed unfused, from the weights that the edit gives.

A fused module (nn.MultiheadAttention) leaves its fast path as soon as a torch function mode is active, and then calls
the functions that are intercepted here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.hooks.attention_weights import functional_arguments, functional_weights, sdpa_weights, shared_heads
from inspector.hooks.function_modes import Placed
from inspector.tensors import Leaf, format_leaf, walk

_NESTED = (
    "runs on nested tensors and cannot be edited there; give padded tensors and a mask (nn.TransformerEncoder makes nested "
    "ones in eval mode without gradients: make it with enable_nested_tensor=False)"
)
Changes = Sequence[tuple[Leaf, Callable[[Tensor], Tensor]]]


class _Local(threading.local):
    def __init__(self) -> None:
        self.running: list[AttentionEdit] = []
        self.edited: Tensor | None = None


_local = _Local()


def edited() -> Tensor | None:
    """The weights that an edit in this thread put in place since ``forget_edited``: what captures record."""
    return _local.edited


def forget_edited() -> None:
    _local.edited = None


class AttentionEdit(Placed):
    """The edits of one call. changes: which of the call's attentions, () for the only one or (index,), and the function
    of its weights. ``begin`` before the call, ``end`` after it, ``take_out`` where it was interrupted."""

    def __init__(self, name: str, module: nn.Module, changes: Changes) -> None:
        super().__init__()
        self.name, self.module, self.changes = name, module, changes
        self.count = 0

    def begin(self, inputs: Any) -> None:
        """Raises RuntimeError where weights cannot be edited."""
        if any(tensor.is_nested for _, tensor in walk(inputs)):
            raise RuntimeError(f"{self.name} {_NESTED}")
        if any(edit.module is self.module for edit in _local.running):
            raise RuntimeError(f"{self.name} is edited by a block outside this one; give both changes to one edit")
        _local.running.append(self)
        self.put_lowest()  # a capture then sees the call first, and asks afterwards what was put there

    def end(self, *, raised: bool) -> None:
        """Raises LookupError where the call's attention is not what the changes name."""
        self.take_out()
        if raised:
            return
        there = ", ".join(f"{self.name}[{i}]" for i in range(self.count))
        if not self.count:
            raise LookupError(
                f"{self.name} cannot be edited: the call used no nn.MultiheadAttention and no scaled_dot_product_attention"
            )
        for leaf, _ in self.changes:
            if leaf == () and self.count > 1:
                raise LookupError(
                    f"{self.name} is several: the call computes attention {self.count} times; name one: {there}"
                )
            if leaf not in ((), *((i,) for i in range(self.count))):
                raise LookupError(f"{self.name}{format_leaf(leaf)} is not there: the call has {there}")

    def take_out(self) -> Any:
        if self not in _local.running:  # ended, or of another thread, whose modes are its own
            return None
        _local.running.remove(self)
        return super().take_out()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _ATTEND or _local.running[-1] is not self:  # an inner call that is edited too has its own
            return func(*args, **kwargs)
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise RuntimeError(f"{self.name} runs inside vmap or another torch.func transform and cannot be edited there")
        return _ATTEND[func](self._changed, *args, **kwargs)

    def _changed(self, weights: Tensor) -> Tensor:
        leaf = (self.count,)
        self.count += 1
        for wanted, change in self.changes:
            if wanted in ((), leaf):
                weights = change(weights)
        _local.edited = weights.detach()
        return weights


Change = Callable[[Tensor], Tensor]


def _scaled_dot_product(change: Change, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if query.is_nested:
        raise RuntimeError(f"this attention {_NESTED}")
    weights = change(sdpa_weights(query, key, value, *args, **kwargs))
    value = shared_heads(query, value) if kwargs.get("enable_gqa") else value
    dropped = F.dropout(weights, args[1] if len(args) > 1 else kwargs.get("dropout_p", 0.0))
    return dropped @ value


def _multi_head(change: Change, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    given = functional_arguments(args, kwargs)
    weights = change(functional_weights(*args, **kwargs))
    weights = F.dropout(weights, given["dropout_p"], given["training"])
    heads = _values(given)  # (batch, heads, source, width)
    mixed = (weights @ heads).transpose(1, 2).flatten(2)  # (batch, target, heads * width)
    mixed = mixed.transpose(0, 1) if given["query"].dim() == 3 else mixed[0]
    output = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
    if not given["need_weights"]:
        return output, None
    return output, weights.mean(-3) if given["average_attn_weights"] else weights


def _values(given: dict[str, Any]) -> Tensor:
    """What the heads mix: (batch, heads, source, width), added sources included."""
    if given["static_v"] is not None:
        raise RuntimeError("attention with static_v cannot be edited; give the values as value=")
    value = given["value"] if given["value"].dim() == 3 else given["value"].unsqueeze(1)
    separate, bias = given["use_separate_proj_weight"], given["in_proj_bias"]
    weight = given["v_proj_weight"] if separate else given["in_proj_weight"].chunk(3)[2]
    values = F.linear(value, weight, None if bias is None else bias.chunk(3)[2])
    if given["bias_v"] is not None:
        values = torch.cat([values, given["bias_v"].expand(1, *values.shape[1:])])
    if given["add_zero_attn"]:
        values = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
    return values.view(*values.shape[:2], given["num_heads"], -1).permute(1, 2, 0, 3)


_ATTEND: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: _scaled_dot_product,
    F.multi_head_attention_forward: _multi_head,
}
