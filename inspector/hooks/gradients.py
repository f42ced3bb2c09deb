"""Gradients of values as they were when seen: a tensor hook on each leaf, set while the value is in our hands.

Never ``register_full_backward_hook``: with an in-place operation behind the module it crashes, for nested outputs it
never fires, and it changes the user's graph. A tensor hook set inside the forward hook stays with the value of that
moment, also when an in-place operation overwrites it later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.hooks.recompute import checkpointing
from inspector.sites import Kind
from inspector.tensors import Leaf, walk

if TYPE_CHECKING:
    from inspector.hooks.tap import Frame

See = Callable[["Frame", Kind, Leaf, Any], None]

SEVERAL_RECOMPUTED = (
    "several calls of it were recomputed by reentrant checkpointing, and which one a gradient belongs to cannot be known; "
    "use checkpoint(..., use_reentrant=False)"
)


class Gradients:
    """Tensor hooks for as long as a block is open; afterwards they are removed, and a late backward is not recorded."""

    def __init__(self) -> None:
        self.open = True
        self.arrived = False
        self.unclear: set[str] = set()  # paths whose recomputed calls cannot be told apart
        self._waiting: dict[str, list[int]] = {}  # calls without a graph until checkpointing repeats them
        self._handles: list[Any] = []
        self._limit = 1024

    def watch(self, frame: Frame, value: Any, kind: Kind, see: See) -> None:
        """Send the gradient of every tensor in ``value`` to ``see`` whenever a backward pass computes it."""
        if kind == "grad" and not torch.is_grad_enabled() and checkpointing():
            self._waiting.setdefault(frame.path, []).append(frame.index)
        for leaf, tensor in walk(value):
            if tensor.requires_grad:
                self._hook(tensor, partial(see, frame, kind, leaf), id(tensor) not in frame.given)
        self._prune()

    def watch_again(self, frame: Frame, output: Any, see: See) -> None:
        """Reentrant checkpointing has no graph in its first pass: take the gradient in its second."""
        waiting = self._waiting.get(frame.path, [])
        if len(waiting) > 1:
            self.unclear.add(frame.path)
        elif waiting:
            frame.index = waiting.pop()
            self.watch(frame, output, "grad", see)

    def close(self) -> None:
        self.open = False
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, tensor: Tensor, emit: Callable[[Tensor], None], born_here: bool) -> None:
        fired = [False]

        def arrive(grad: Tensor | None) -> None:
            if self.open and grad is not None:  # None: an unused output of a node with several
                self.arrived = fired[0] = True
                emit(grad)

        self._handles.append(torch.Tensor.register_hook(tensor, arrive))  # type: ignore[no-untyped-call]  # untyped in torch
        if born_here and tensor._is_view() and not tensor.is_inference():
            self._hook_base(tensor, fired, arrive)

    def _hook_base(self, view: Tensor, fired: list[bool], arrive: Callable[[Tensor | None], None]) -> None:
        """A view that is written in place afterwards leaves the graph, and its hook with it; its base stays."""
        base = view._base
        if base is None or not base.requires_grad or not base.is_contiguous() or base.is_leaf:
            return
        twin, version = view.detach(), view._version  # detached tensors share the version counter
        place = (view.shape, view.stride(), view.storage_offset() - base.storage_offset())

        def arrive_at_base(grad: Tensor | None) -> None:
            if grad is not None and not fired[0] and twin._version != version:
                arrive(grad.contiguous().as_strided(*place))
            fired[0] = False  # the next pass decides anew

        self._handles.append(torch.Tensor.register_hook(base, arrive_at_base))  # type: ignore[no-untyped-call]  # as above

    def _prune(self) -> None:
        """Forget the hooks of graphs that are gone, so that ten thousand steps in one block take no memory."""
        if len(self._handles) > self._limit:
            self._handles = [handle for handle in self._handles if handle.hooks_dict_ref() is not None]
            self._limit = max(1024, 2 * len(self._handles))


def why_no_gradient(tensor: Tensor) -> str | None:
    """Why no gradient of this tensor can come, or None where one can."""
    if tensor.is_inference():
        return "no graph: it was made in inference mode"
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return f"not differentiable: {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.requires_grad:
        return None
    return "no graph: " + (
        "nothing it depends on requires grad" if torch.is_grad_enabled() else "gradients were off (no_grad)"
    )
