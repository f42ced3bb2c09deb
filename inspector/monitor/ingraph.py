"""Outputs of a compiled model: hooks that the compiler takes into its graph, and that end in a write to one buffer.

They are on from before the first compiled run to the end (a hook added later never fires), and add up in the buffer,
which is emptied at each step. Python state would break the graph, so every row is laid out beforehand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inspector.monitor.arrival import Array, Arrival
from inspector.monitor.measure import Measure
from inspector.monitor.table import Entry

_LEAVES = 4  # rows for each module: its output if that is a tensor, or the first tensors of a tuple
_EMPTY = (0.0, 0.0, 0.0, float("inf"), float("-inf"))  # n, sum, sum of squares, smallest, largest


def is_compiled(model: nn.Module) -> bool:
    """Is the model, or a part of it, wrapped by torch.compile?"""
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())


@contextmanager
def hook_guards() -> Iterator[None]:
    """What is compiled inside is bound to the hooks of its own model: otherwise another instance of the same class, with
    or without hooks, would run this one's code."""
    from torch._dynamo import config

    before = config.skip_nnmodule_hook_guards
    config.skip_nnmodule_hook_guards = False
    try:
        yield
    finally:
        config.skip_nnmodule_hook_guards = before


class InGraph:
    """The buffer and the hooks that write into it."""

    def __init__(self, chosen: Mapping[str, nn.Module], measure: Measure) -> None:
        self.chosen, self.measure = dict(chosen), measure
        device = next((p.device for m in chosen.values() for p in m.parameters()), torch.device("cpu"))
        self.empty = torch.tensor(_EMPTY, device=device).expand(len(chosen) * _LEAVES, len(_EMPTY)).contiguous()
        self.buffer = self.empty.clone()
        self.checked = False

    def hooks(self) -> dict[str, Callable[[nn.Module, Any, Any], None]]:
        return {path: _hook(self.buffer, i * _LEAVES) for i, path in enumerate(self.chosen)}

    def begin_step(self) -> None:
        self.buffer.copy_(self.empty)

    def flush(self) -> GraphTicket:
        return GraphTicket(self, Arrival(self.buffer))

    def entries(self, n: Array) -> list[Entry]:
        """The rows that something was written to."""
        if not self.checked and not n.any():
            warnings.warn(_TOO_LATE, RuntimeWarning, stacklevel=2)
        self.checked = True
        paths = list(self.chosen)
        found = []
        for slot in np.flatnonzero(n).tolist():
            leaf = slot % _LEAVES
            name = paths[slot // _LEAVES] + (f"[{leaf - 1}]" if leaf else "")
            found.append((self.measure.row("output", name), slot, int(n[slot]), False))
        return found


_TOO_LATE = (
    "the model was compiled before the monitor was attached, so its hooks never fire and outputs are not measured; start "
    "the monitor before the first compiled run, or call torch.compiler.reset() after starting it"
)


class GraphTicket:
    """What the buffer held at the end of a step; reads like any other ticket."""

    samples, sampled, extras = None, (), ()

    def __init__(self, graph: InGraph, arrival: Arrival) -> None:
        self.graph, self.arrival = graph, arrival
        self.numbers = self
        self._entries: list[Entry] | None = None

    @property
    def ready(self) -> bool:
        return self.arrival.ready

    @property
    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = self.graph.entries(self.arrival.numpy()[:, 0])
        return self._entries

    def numpy(self) -> Array:
        """Columns as in a table: sum, sum of squares, smallest, largest, shift."""
        numbers = self.arrival.numpy()[:, (1, 2, 3, 4, 0)]
        numbers[numbers[:, 4] == 0, :4] = 0.0  # rows that nothing was written to are not infinite
        return numbers


def _hook(buffer: Tensor, first: int) -> Callable[[nn.Module, Any, Any], None]:
    def after(module: nn.Module, args: Any, output: Any) -> None:
        if not torch.is_grad_enabled():
            return
        if isinstance(output, Tensor):
            _add(buffer, first, output)
        elif isinstance(output, (tuple, list)):
            for i, part in enumerate(output[: _LEAVES - 1]):
                if isinstance(part, Tensor):
                    _add(buffer, first + 1 + i, part)

    return after


def _add(buffer: Tensor, row: int, value: Tensor) -> None:
    if not value.is_floating_point() or value.numel() == 0:
        return
    x = value.detach().float()
    low, high = torch.aminmax(x)
    old = buffer[row]
    n = torch.full_like(low, x.numel())
    new = [old[0] + n, old[1] + x.sum(), old[2] + (x * x).sum(), torch.minimum(old[3], low), torch.maximum(old[4], high)]
    buffer[row].copy_(torch.stack(new))
