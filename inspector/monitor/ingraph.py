"""Outputs of a compiled model and their gradients: hooks that the compiler takes into its graph, and that end in a write
to one buffer.

They are on from before the first compiled run to the end (a hook added later never fires), and add up in the buffer,
which is emptied at each step. Inputs are not looked at; a clock in the buffer tells in which order modules ended, and
which was the first whose output was not finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from inspector.monitor.arrival import Array, Arrival
from inspector.monitor.measure import Measure
from inspector.monitor.table import Entry
from inspector.monitor.traced import BAD, EMPTY, FIRST, INF, LEAF, LEAF_OF, LEAVES, MISSED, Buffer, N, traced_hook
from inspector.tensors import format_leaf


def is_compiled(model: nn.Module) -> bool:
    """Is the model, or a part of it, wrapped by torch.compile?"""
    return any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())


def _backward_may_write() -> bool:
    """Until torch kept what a backward writes to apart from what a forward saved, the second of two backwards that wait
    at once found the buffer changed, and raised in the user's loop."""
    from torch._functorch._aot_autograd.schemas import ViewAndMutationMeta

    return "num_tensors_saved_with_no_vc_check" in ViewAndMutationMeta.__dataclass_fields__


def _wrapped(model: nn.Module) -> list[nn.Module]:
    """The modules whose own hooks torch.compile runs before and after its graph, and would compile one by one."""
    from torch._dynamo import config
    from torch._dynamo.trace_rules import check

    inner = [getattr(module, "_orig_mod", None) for module in model.modules()]
    modules = [module for module in inner if isinstance(module, nn.Module)]
    return [module for module in modules if not config.wrap_top_frame and not check(module.forward)]


class InGraph:
    """The buffers and the hooks that write into them: one for outputs, one for their gradients. They are two because a
    compiled backward writes back the whole of what it changes, as it was when the forward had ended."""

    def __init__(self, model: nn.Module, chosen: Mapping[str, nn.Module], measure: Measure, kinds: Collection[str]) -> None:
        self.chosen, self.measure = dict(chosen), measure
        whole = _wrapped(model)
        self.outside = {path for path, module in chosen.items() if any(module is outer for outer in whole)}
        self.kinds = [kind for kind in ("output", "grad") if kind in kinds]
        if "grad" in self.kinds and not _backward_may_write():
            warnings.warn(_OLD.format(torch.__version__), RuntimeWarning, stacklevel=2)
            self.kinds.remove("grad")
        self.half = len(chosen) * LEAVES  # the rows of outputs; those of gradients follow
        device = next((p.device for m in chosen.values() for p in m.parameters()), torch.device("cpu"))
        self.empty = torch.tensor(EMPTY, device=device).repeat(self.half, 1)
        self.outputs, self.grads = (Buffer(self.empty.clone(), torch.zeros((), device=device)) for _ in range(2))
        self.checked = False
        self.missed: set[str] = set()

    def hooks(self) -> dict[str, Callable[[nn.Module, Any, Any], Any]]:
        outputs = self.outputs if "output" in self.kinds else None
        grads = self.grads if "grad" in self.kinds else None
        hooks = {path: traced_hook(outputs, grads, i * LEAVES) for i, path in enumerate(self.chosen)}
        eager: Callable[..., Any] = torch.compiler.disable
        return {path: eager(hook) if path in self.outside else hook for path, hook in hooks.items()}

    def begin_step(self) -> None:
        self.outputs.rows.copy_(self.empty)
        self.grads.rows.copy_(self.empty)
        self.outputs.clock.zero_()
        self.grads.clock.zero_()

    def flush(self) -> GraphTicket:
        return GraphTicket(self, Arrival(torch.cat([self.outputs.rows, self.grads.rows])))

    def entries(self, numbers: Array) -> list[Entry]:
        """The rows that something was written to, in the order in which it first was."""
        n = numbers[:, N]
        if self.kinds and not self.checked and not n.any():
            warnings.warn(_TOO_LATE, RuntimeWarning, stacklevel=2)
        self.checked = True
        self._tell_missed(numbers[::LEAVES, MISSED])
        written = np.flatnonzero(n)
        order = np.lexsort((numbers[written, FIRST], written >= self.half))
        return [(self._row(slot, numbers), slot, int(n[slot]), False) for slot in written[order].tolist()]

    def _row(self, slot: int, numbers: Array) -> int:
        kind, at = ("output", slot) if slot < self.half else ("grad", slot - self.half)
        return self.measure.row(kind, self._name(at // LEAVES, int(numbers[slot, LEAF])))

    def _name(self, module: int, leaf: int) -> str:
        return list(self.chosen)[module] + format_leaf(LEAF_OF[leaf])

    def _tell_missed(self, leaves: Array) -> None:
        names = {self._name(i % len(self.chosen), int(leaves[i]) - 1) for i in np.flatnonzero(leaves).tolist()}
        if names - self.missed:
            told = ", ".join(sorted(name or "the model" for name in names - self.missed))
            warnings.warn(_NOT_MEASURED.format(told, LEAVES), RuntimeWarning, stacklevel=2)
            self.missed |= names


_TOO_LATE = (
    "the model was compiled before the monitor was attached, so its hooks never fire, and outputs and their gradients are "
    "not measured; start the monitor before the first compiled run, or call torch.compiler.reset() after starting it"
)

_OLD = (
    "gradients of outputs are not measured inside a compiled model with torch {}, which would refuse a second backward; "
    'take torch 2.11 or later, or leave "grad" out of what='
)

_NOT_MEASURED = (
    "these outputs, or their gradients, are not measured while the model is compiled: {}; measured are the first {} tensors "
    "that a module returns in tuples, lists, named tuples and dicts (of other kinds of dict the outputs only)"
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
            self._entries = self.graph.entries(self.arrival.numpy())
        return self._entries

    @property
    def marks(self) -> bytes:
        """Which rows were written to, how many elements they had, which leaf they are, and what was missed."""
        return self.arrival.numpy()[:, (N, LEAF, MISSED)].tobytes()

    def numpy(self) -> Array:
        """Columns as in a table: sum, sum of squares, smallest, largest, and a shift of 0."""
        numbers = self.arrival.numpy()[:, (1, 2, 3, 4, N)]
        numbers[numbers[:, 4] == 0, :4] = 0.0  # rows that nothing was written to are not infinite
        numbers[:, 4] = 0.0
        return numbers

    def births(self) -> dict[int, float]:
        """Rows that are not finite; 0.5 marks the one that was so first, in the order of execution."""
        ticks = self.arrival.numpy()[:, BAD]
        for kind in ("output", "grad"):
            bad = {row: ticks[slot] for row, slot, _, _ in self.entries if ticks[slot] < INF}
            bad = {row: tick for row, tick in bad.items() if self.graph.measure.rows[row][0] == kind}
            if bad:
                first = min(bad, key=lambda row: bad[row])
                return {row: 0.5 * (row == first) for row in bad}
        return {}
