"""Attention weights before dropout: of nn.MultiheadAttention by asking a twin of it, of anybody else by watching calls.

The watch is a torch function mode, because it alone sees every way in which user code can hold
``scaled_dot_product_attention`` (imported by name, kept in an attribute), and only in this thread.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

Found = list[Tensor | Exception]
Outer = tuple[int | None, Found | None]

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
def mha_weights(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """(batch, heads, target, source) of a stock nn.MultiheadAttention; without the batch axis for an unbatched input.

    What PyTorch itself gives with need_weights=True in eval mode: the sources that ``add_bias_kv`` and ``add_zero_attn``
    add come last, and padded queries that ran as a nested tensor have the weights 0.
    """
    twin = copy.copy(module)  # the module's parameters in a mode of its own
    twin.training = False
    given = dict(zip(_GIVEN, args, strict=False)) | kwargs | _WEIGHTS
    return _MHA.forward(twin, **given)[1]  # type: ignore[arg-type,return-value]  # the twin is one, and gives weights


@torch.no_grad()
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
    """(..., heads, target, source) of one call of F.scaled_dot_product_attention, computed in float32 or wider and given
    in the query's type. A query that may look nowhere has the weights 0, as in PyTorch."""
    wide = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    with without_autocast(query):
        scores = (query.to(wide) * scale) @ key.to(wide).mT
        scores = _masked(scores, attn_mask, is_causal)
        nowhere = scores.isneginf().all(-1, keepdim=True)
        return scores.softmax(-1).masked_fill(nowhere, 0).to(query.dtype)


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


class Watch(TorchFunctionMode):
    """Notes the weights of every scaled_dot_product_attention while a watched call runs; an inner call that is asked on
    its own takes over for its time. It answers with what the function answers."""

    def __init__(self) -> None:
        super().__init__()
        self.place: int | None = None  # in the stack of function modes; None: not there
        self.found: Found | None = None  # None: nobody is asking

    def begin(self, wanted: bool) -> Outer:
        """Start a call, whose weights gather in ``found``; what it answers belongs to the call around it."""
        outer = self.place, self.found
        self.found = [] if wanted else None
        if wanted and self.place is None:
            self._move(torch._C._len_torch_function_stack())
        elif not wanted:
            self._move(None)
        return outer

    def end(self, outer: Outer) -> None:
        """Go on with the call around it."""
        place, self.found = outer
        self._move(place)

    def close(self) -> None:
        """Also where an interrupt ended calls without their end."""
        self._move(None)

    def _move(self, place: int | None) -> None:
        """A mode that the user's code entered in between may lie above, and must find itself on top when it leaves."""
        if place == self.place:
            return
        modes = [torch._C._pop_torch_function_stack() for _ in range(torch._C._len_torch_function_stack())][::-1]
        modes = [mode for mode in modes if mode is not self]
        if place is not None:
            modes.insert(place, self)
        for mode in modes:
            torch._C._push_on_torch_function_stack(mode)
        self.place = place

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.found is not None and func in _SEEN:
            try:
                self.found.append(_SEEN[func](*args, **kwargs))
            except Exception as error:  # the model's own call has succeeded and goes on
                self.found.append(error)
        return result


@torch.no_grad()
def _functional_weights(*args: Any, **kwargs: Any) -> Tensor:
    given = inspect.signature(F.multi_head_attention_forward).bind(*args, **kwargs).arguments
    weights: Any = F.multi_head_attention_forward(**given | _WEIGHTS | {"training": False})[1]
    return weights  # type: ignore[no-any-return]  # asked for, so not None


_SEEN = {F.scaled_dot_product_attention: sdpa_weights, F.multi_head_attention_forward: _functional_weights}
