"""The gates of LSTM and GRU, in parallel over time: each is a function of the input and of the hidden state one step
earlier, and the last layer's hidden states are its output. Inner layers hide theirs and are stepped through once more.
What comes out is checked against what the module gave, and refused where it differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from inspector.hooks.attention_weights import autocast_to, without_autocast
from inspector.hooks.recurrence import Recurrence, Weights, read
from inspector.tensors import walk

Gates = dict[str, Tensor]
_GATED = (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
_TF32 = 5e-3  # on a GPU, cuDNN rounds the factors of its products to ten bits unless told otherwise


@torch.no_grad()
def gates_of(module: nn.Module, inputs: tuple[Any, Any], output: Any, random_state: Tensor | None = None) -> Gates:
    """The gates of one call of nn.LSTM ("input", "forget", "cell", "output", and "state", the cell's state after the
    step) or of nn.GRU ("reset", "update", "new"), each (layers x directions, batch, time, hidden) in the order of h_n.

    So whatever ``batch_first`` is; without the batch axis for an unbatched input. LSTMCell and GRUCell are one layer and
    one step. Of a packed input, the batch is in the caller's order, and the steps beyond a sequence's end are NaN.
    Computed in float32 or wider also where the module rounds to half precision (autocast), and exact within its rounding.
    random_state: from before the call (``random_state_of``), to repeat the dropout between layers.
    Raises LookupError with the reason where there are none.
    """
    if getattr(module.forward, "__func__", None) not in [kind.forward for kind in _GATED]:
        raise LookupError(_why_none(module))
    kept = next(tensor for _, tensor in walk(output))
    with without_autocast(kept):
        call = read(module, inputs, output)
        layers, worst = _layers(call, _dropouts(module, call, kept, random_state))
    _check(worst, kept)
    gates = {name: torch.stack([layer[name] for layer in layers]).to(kept.dtype) for name in layers[0]}
    return {name: gate.transpose(1, 2) if call.batched else gate.squeeze(2) for name, gate in gates.items()}


def random_state_of(module: nn.Module) -> Tensor | None:
    """The random state that ``gates_of`` needs from before a call; None where the module draws nothing on the CPU."""
    draws = isinstance(module, nn.RNNBase) and _drops(module)
    return torch.get_rng_state() if draws and next(module.parameters()).is_cpu else None


def _drops(module: nn.Module) -> bool:
    return module.training and getattr(module, "dropout", 0) > 0 and getattr(module, "num_layers", 1) > 1


def _why_none(module: nn.Module) -> str:
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return "an Elman RNN has no gates: its state is its output"
    if isinstance(module, _GATED):
        return f"{type(module).__name__} has a forward of its own, so that its gates cannot be known"
    return "it has no gates: only nn.LSTM, nn.GRU and their cells have"


def _layers(call: Recurrence, dropouts: Iterator[Tensor | None]) -> tuple[list[Gates], Tensor]:
    """The gates of every layer and direction, and how far they are from explaining what the module gave."""
    layers: list[Gates] = []
    worst: list[Tensor] = []
    count, below = len(call.weights) // call.directions, call.steps
    for layer in range(count):
        known = call.hidden.chunk(call.directions, -1) if layer == count - 1 else [None] * call.directions
        outputs = []
        for direction in range(call.directions):
            gates, hidden, off = _direction(call, layer * call.directions + direction, below, known[direction])
            layers.append(gates)
            worst.append(off)
            outputs.append(hidden)
        below = torch.cat(outputs, -1)
        if layer < count - 1 and (noise := next(dropouts)) is not None:
            below = below * noise
    return layers, torch.stack(worst).max()


def _direction(call: Recurrence, index: int, below: Tensor, known: Tensor | None) -> tuple[Gates, Tensor, Tensor]:
    """One layer in one direction: its gates, its hidden states, and its largest deviation."""
    turn = call.reverse if index % call.directions else _as_it_is
    weights, first = call.weights[index], [state[index] for state in call.first]
    projected = F.linear(turn(below), weights["weight_ih"], weights.get("bias_ih"))
    if known is None:
        gates, hidden = _stepwise(projected, first, weights)
        off = torch.zeros((), device=hidden.device)
    else:
        hidden = turn(known)
        gates, made = _gates(projected, torch.cat((first[0][None], hidden[:-1])), first, weights)
        off = _deviation(made, hidden, call.beyond)
    ends = [call.end(hidden), *([call.end(gates["state"])] if "state" in gates else [])]
    off = torch.stack([off, *(_deviation(end, state[index]) for end, state in zip(ends, call.last, strict=True))]).max()
    return {name: _beyond_nan(turn(gate), call) for name, gate in gates.items()}, turn(hidden), off


def _as_it_is(values: Tensor) -> Tensor:
    return values


def _stepwise(projected: Tensor, first: list[Tensor], weights: Weights) -> tuple[Gates, Tensor]:
    """As ``_gates`` where the hidden states are not known: one step after the other."""
    hidden, steps = [first[0]], []
    for step in projected:
        gates, made = _gates(step[None], hidden[-1][None], first, weights)
        hidden.append(made[0])
        steps.append(gates)
        first = [made[0], *(gates[name][0] for name in gates if name == "state")]
    return {name: torch.cat([step[name] for step in steps]) for name in steps[0]}, torch.stack(hidden[1:])


def _gates(projected: Tensor, before: Tensor, first: list[Tensor], weights: Weights) -> tuple[Gates, Tensor]:
    """Gates and the hidden states that follow from them, given the hidden states ``before`` each step."""
    recurrent = F.linear(before, weights["weight_hh"], weights.get("bias_hh"))
    if len(first) == 1:
        return _gru(projected, recurrent, before)
    entry, forget, cell, out = (projected + recurrent).chunk(4, -1)
    entry, forget, cell, out = entry.sigmoid(), forget.sigmoid(), cell.tanh(), out.sigmoid()
    state = _accumulate(forget, entry * cell, first[1])
    hidden = out * state.tanh()
    if "weight_hr" in weights:
        hidden = F.linear(hidden, weights["weight_hr"])
    return {"input": entry, "forget": forget, "cell": cell, "output": out, "state": state}, hidden


def _gru(projected: Tensor, recurrent: Tensor, before: Tensor) -> tuple[Gates, Tensor]:
    (reset, update, new), (reset_h, update_h, new_h) = projected.chunk(3, -1), recurrent.chunk(3, -1)
    reset, update = (reset + reset_h).sigmoid(), (update + update_h).sigmoid()
    new = (new + reset * new_h).tanh()
    return {"reset": reset, "update": update, "new": new}, new + update * (before - new)


def _accumulate(forget: Tensor, added: Tensor, state: Tensor) -> Tensor:
    """state[t] = forget[t] * state[t - 1] + added[t]: the only thing that needs one step after the other."""
    states = []
    for kept, new in zip(forget, added, strict=True):
        state = torch.addcmul(new, kept, state)
        states.append(state)
    return torch.stack(states)


def _beyond_nan(values: Tensor, call: Recurrence) -> Tensor:
    return values if call.beyond is None else values.masked_fill(call.beyond, float("nan"))


def _dropouts(module: nn.Module, call: Recurrence, kept: Tensor, state: Tensor | None) -> Iterator[Tensor | None]:
    """What each inner layer's output was multiplied with: drawn again, from the random state before the call."""
    if not _drops(module):
        while True:
            yield None
    if state is None:
        raise LookupError("dropout between its layers draws random numbers that cannot be drawn again; use eval mode")
    generator = torch.Generator()
    generator.set_state(state)
    keeping = 1 - float(module.dropout)  # type: ignore[arg-type]  # it has one, or it would not drop
    width = call.directions * call.first[0].shape[-1]
    shape = (*call.steps.shape[:2], width) if call.packed is None else (len(call.packed.data), width)
    while True:
        noise = torch.empty(shape, dtype=kept.dtype).bernoulli_(keeping, generator=generator).div_(keeping or 1.0)
        yield noise if call.packed is None else pad_packed_sequence(PackedSequence(noise, *call.packed[1:]))[0]


def _deviation(made: Tensor, given: Tensor, ignored: Tensor | None = None) -> Tensor:
    """The largest difference, relative where values are large; the same NaN or Inf on both sides is no difference."""
    off = torch.where(_same(made, given), 0.0, (made - given).abs() / (1 + given.abs()))
    off = off if ignored is None else off.masked_fill(ignored, 0.0)
    return off.max() if off.numel() else off.new_zeros(())


def _same(made: Tensor, given: Tensor) -> Tensor:
    return (made == given) | (made.isnan() & given.isnan())


def _check(worst: Tensor, kept: Tensor) -> None:
    if worst.is_meta:
        return
    limit = max(_TOLERANCE.get(dtype, 1e-4) for dtype in (kept.dtype, autocast_to(kept) or kept.dtype))
    if kept.is_cuda and torch.backends.cudnn.allow_tf32:
        limit = max(limit, _TF32)
    if not float(worst) <= limit:
        raise LookupError(
            f"its output is {float(worst):.2g} away from what its gates would give (at most {limit:.0e} is rounding): "
            "another hook or an edit changed its output, its weights changed, or its dropout cannot be repeated"
        )
