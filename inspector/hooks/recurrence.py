"""One call of an LSTM, GRU or cell, read into one form: time first, states with a layer axis, whatever it was given."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

Weights = dict[str, Tensor]  # weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, as far as the module has them


class Recurrence(NamedTuple):
    """steps: (time, batch, features). first, last: the hidden (and an LSTM's cell) states before and after it, each
    (layers x directions, batch, hidden). hidden: the last layer's at all steps, (time, batch, directions x hidden)."""

    steps: Tensor
    first: tuple[Tensor, ...]
    hidden: Tensor
    last: tuple[Tensor, ...]
    weights: list[Weights]
    directions: int
    lengths: Tensor | None  # (batch,), of packed sequences
    packed: PackedSequence | None
    batched: bool

    @property
    def beyond(self) -> Tensor | None:
        """(time, batch, 1): True at the steps beyond a sequence's end."""
        if self.lengths is None:
            return None
        return (torch.arange(len(self.steps), device=self.steps.device)[:, None] >= self.lengths)[..., None]

    def reverse(self, values: Tensor) -> Tensor:
        """Each sequence back to front within its own length; padding stays behind it."""
        if self.lengths is None:
            return values.flip(0)
        step = torch.arange(len(values), device=values.device)[:, None]
        source = torch.where(step < self.lengths, self.lengths - 1 - step, step)
        return values.gather(0, source[..., None].expand_as(values))

    def end(self, values: Tensor) -> Tensor:
        """(batch, ...): the values at each sequence's last step."""
        if self.lengths is None:
            return values[-1]
        return values[self.lengths - 1, torch.arange(values.shape[1], device=values.device)]


def read(module: nn.Module, inputs: tuple[Any, Any], output: Any) -> Recurrence:
    """What a call was given (args, kwargs) and gave, from an nn.LSTM, nn.GRU, nn.LSTMCell or nn.GRUCell."""
    args, kwargs = inputs
    given = args[0] if args else kwargs["input"]
    states = args[1] if len(args) > 1 else kwargs.get("hx")
    cell, packed = isinstance(module, nn.RNNCellBase), given if isinstance(given, PackedSequence) else None
    batched = packed is not None or given.dim() == (2 if cell else 3)
    made, last = (_tuple(output)[0], output) if cell else output
    ended = _with_layers(last, cell, batched)
    return Recurrence(
        steps=_time_first(module, given, batched),
        first=tuple(map(torch.zeros_like, ended)) if states is None else _with_layers(states, cell, batched),
        hidden=_time_first(module, made, batched),
        last=ended,
        weights=_weights(module),
        directions=2 if getattr(module, "bidirectional", False) else 1,
        lengths=None if packed is None else pad_packed_sequence(packed)[1].to(packed.data.device),
        packed=packed,
        batched=batched,
    )


def _time_first(module: nn.Module, value: Any, batched: bool) -> Tensor:
    """(time, batch, features), the batch in the caller's order."""
    if isinstance(value, PackedSequence):
        return _wide(pad_packed_sequence(value)[0])
    if isinstance(module, nn.RNNCellBase):
        value = value[None]
    if not batched:
        value = value.unsqueeze(1)
    elif getattr(module, "batch_first", False):
        value = value.transpose(0, 1)
    return _wide(value)


def _with_layers(states: Any, cell: bool, batched: bool) -> tuple[Tensor, ...]:
    """Each (layers x directions, batch, hidden)."""
    layered = [state[None] if cell else state for state in _tuple(states)]
    return tuple(_wide(state if batched else state.unsqueeze(1)) for state in layered)


def _weights(module: nn.Module) -> list[Weights]:
    """Per layer and direction, those of the call itself: parametrized ones are not computed anew."""
    if isinstance(module, nn.RNNBase):
        used = iter(module._flat_weights)
        return [{name.split("_l")[0]: _wide(next(used)) for name in names} for names in module._all_weights]
    return [{name: _wide(value) for name in _NAMES if (value := getattr(module, name, None)) is not None}]


_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _wide(tensor: Any) -> Tensor:
    """In float32 or wider, off the graph."""
    wide: Tensor = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return wide
