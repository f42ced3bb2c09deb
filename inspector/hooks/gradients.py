"""Gradients of values as they were when seen: a tensor hook on each leaf, set while the value is in our hands.

Never ``register_full_backward_hook``: with an in-place operation behind the module it crashes, for nested outputs it
never fires, and it changes the user's graph. A tensor hook set inside the forward hook stays with the value of that
moment, also when an in-place operation overwrites it later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inspector.hooks.frame import Frame
from inspector.hooks.recompute import Region, checkpointing, gradients_come_later, repeated
from inspector.hooks.replay import Replays
from inspector.hooks.views import View
from inspector.sites import Kind
from inspector.tensors import Leaf, walk

See = Callable[["Frame", Kind, Leaf, Any], None]
Arrive = Callable[[Tensor | None], None]
Place = tuple[str, int, str, Leaf]  # path, call, kind, leaf

OVERWRITTEN = (
    "view overwritten in place: its own gradient cannot be told from that of the tensor it is a view of; choose the "
    "modules behind it too (where='*')"
)


class Gradients:
    """Tensor hooks for as long as a block is open; afterwards they are removed, and a late backward is not recorded."""

    def __init__(self) -> None:
        self.open = True
        self.arrived = False
        self.why: dict[Place, str] = {}  # why there is no gradient, where only the backward pass could tell
        self._views: list[tuple[View, Arrive]] = []
        self._replays = Replays()  # calls in reentrant regions, each with its leaves that have no graph at first
        self._reentrant = False  # has there been such a region?
        self._handles: list[Any] = []
        self._limit = 1024

    def watch(self, frame: Frame, value: Any, kind: Kind, see: See) -> None:
        """Send the gradient of every tensor in ``value`` to ``see`` whenever a backward pass computes it."""
        wanted = [(leaf, tensor) for leaf, tensor in _leaves(value) if tensor.requires_grad]
        if self._reentrant or not torch.is_grad_enabled():
            missing = {leaf for leaf, tensor in _leaves(value) if _graphless(tensor)}
            if self._wait(checkpointing(), (frame.path, kind), (frame.index, missing)):
                wanted = [(leaf, tensor) for leaf, tensor in wanted if leaf not in missing]
        self._watch(frame, wanted, kind, see)

    def watch_again(self, frame: Frame, value: Any, kind: Kind, see: See) -> None:
        """Reentrant checkpointing has no graph in its first pass: take the gradient in the one that makes the graph (the
        second; where regions nest, the last). A tensor from outside the region has its own graph, and was watched at first.
        """
        region, within = repeated(), checkpointing()
        calls = self._replays.left(region, (frame.path, kind)) if region is not None else None
        call = next(calls, None) if calls is not None else None
        if call is None:  # from before the block, or the region keeps its first graph
            return
        self._wait(within, (frame.path, kind), call)
        if any(r.reentrant for r in within):
            return
        frame.index, missing = call
        found = [(leaf, tensor) for leaf, tensor in _leaves(value) if leaf in missing]
        for leaf, tensor in found:
            if (why := why_no_gradient(tensor)) is not None:
                self.why[frame.path, frame.index, kind, leaf] = why
        self._watch(frame, [(leaf, tensor) for leaf, tensor in found if tensor.requires_grad], kind, see)

    def _wait(self, regions: list[Region], key: tuple[str, Kind], call: tuple[int, set[Leaf]]) -> bool:
        """Note the call in the reentrant regions, if there are any."""
        reentrant = [region for region in regions if region.reentrant]
        self._reentrant = self._reentrant or bool(reentrant)
        self._replays.note(reentrant, key, call, nullcontext)
        return bool(reentrant)

    def _watch(self, frame: Frame, wanted: list[tuple[Leaf, Tensor]], kind: Kind, see: See) -> None:
        if self._views:
            self._follow()
        for leaf, tensor in wanted:
            emit = partial(see, frame, kind, leaf)
            if tensor._is_view():
                alone = kind == "grad" and len(wanted) == 1 and id(tensor._base) not in frame.given
                self._hook_view(tensor, (frame.path, frame.index, kind, leaf), emit, alone)
            else:
                self._hook(tensor, partial(self._arrive, emit))
        if len(self._handles) > self._limit:
            self._prune()

    def close(self) -> None:
        self.open = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._views.clear()

    def _hook(self, tensor: Tensor, arrive: Arrive) -> None:
        self._handles.append(torch.Tensor.register_hook(tensor, arrive))  # type: ignore[no-untyped-call]  # untyped in torch

    def _arrive(self, emit: Callable[[Tensor], None], grad: Tensor | None) -> None:
        if self.open and grad is not None:  # None: an unused output of a node with several
            if self._views:
                self._follow()
            self.arrived = True
            emit(grad)

    def _hook_view(self, tensor: Tensor, place: Place, emit: Callable[[Tensor], None], alone: bool) -> None:
        """A view that is written to in place leaves the graph, and its hook with it; its base stays. What arrives at the
        base is the view's own gradient only where nothing else was made of the base, as far as one can know."""
        fired = [False]

        def arrive(grad: Tensor | None) -> None:
            fired[0] = fired[0] or grad is not None
            self._arrive(emit, grad)

        def arrive_at_base(grad: Tensor | None) -> None:
            assert view is not None
            if grad is not None and not fired[0] and twin._version != view.version and not view.in_time():
                if alone:
                    arrive(view.cut(grad))
                else:
                    self.why[place] = OVERWRITTEN
            fired[0] = False  # the next pass decides anew

        # A view that was written to finds its new node when asked. If a hook asks first, torch 2.8 to 2.14 crash at the
        # next hook on its base.
        _ = tensor.grad_fn
        self._hook(tensor, arrive)
        view, base = View.of(tensor), tensor._base
        if view is not None and base is not None:
            twin = tensor.detach()  # shares the version counter, and lets go of the graph
            self._hook(base, arrive_at_base)
            self._views.append((view, arrive))

    def _follow(self) -> None:
        """Hook the first write to each view since it was seen; asked at every event, because a write makes no event."""
        written = [(view, arrive) for view, arrive in self._views if view.written()]
        self._views = [(view, arrive) for view, arrive in self._views if view.waiting()]
        self._handles += [handle for view, arrive in written if (handle := view.follow(arrive)) is not None]

    def _prune(self) -> None:
        """Forget the hooks of graphs that are gone, so that ten thousand steps in one block take no memory."""
        self._handles = [handle for handle in self._handles if handle.hooks_dict_ref() is not None]
        self._limit = max(1024, 2 * len(self._handles))


def why_no_gradient(tensor: Tensor) -> str | None:
    """Why no gradient of this tensor can come, or None where one can."""
    if tensor.requires_grad and (torch.is_grad_enabled() or not _graphless(tensor)):
        return None
    if tensor.is_inference():
        return "no graph: it was made in inference mode"
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return f"not differentiable: {str(tensor.dtype).removeprefix('torch.')}"
    if torch.is_grad_enabled():
        return "no graph: nothing it depends on requires grad"
    return None if gradients_come_later() else "no graph: gradients were off (no_grad)"


def _graphless(tensor: Tensor) -> bool:
    """A view that was made while gradients were off says that it requires them, like its base."""
    base = tensor._base
    return not tensor.requires_grad or (base is not None and base.requires_grad and tensor.grad_fn is None)


def _leaves(value: Any) -> Iterable[tuple[Leaf, Tensor]]:
    return [((), value)] if isinstance(value, Tensor) else walk(value)


def versions(values: Any) -> dict[int, int]:
    """Each tensor's version, by identity: a module that answers with its own input, unchanged, can be told."""
    found: dict[int, int] = {}
    for value in values:
        for _, t in _leaves(value):
            found[id(t)] = 0 if t.is_inference() else t._version
    return found
