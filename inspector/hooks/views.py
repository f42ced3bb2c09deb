"""Views that are written to in place: autograd then rewrites their history, and a hook set on them before never fires.

The write becomes a node between the view's base and what follows. The gradient that this node hands to the base,
cut to the view's place, is that of the view as it was; other uses of the base are not in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Arrive = Callable[[Tensor | None], None]
_NEVER = -2  # no backward pass has this number, and -1 is none
_WRITES = 256  # how many writes to one base are searched for the first


class View:
    """One view as it was when seen. Holds no tensor, so that what the model lets go is gone."""

    __slots__ = ("dtype", "followed", "lazy", "node", "place", "shape", "slot", "version", "view")

    def __init__(self, view: Tensor, base: Tensor) -> None:
        self.view = weakref.ref(view)
        self.version, self.followed = view._version, _NEVER
        self.node, self.slot = base.grad_fn, base.output_nr
        self.shape = (base.shape, base.stride())
        offset = view.storage_offset() - base.storage_offset() * base.itemsize // view.itemsize
        self.place = (offset, view.shape, view.stride())
        self.dtype, self.lazy = view.dtype, (view.is_conj() != base.is_conj(), view.is_neg() != base.is_neg())

    @classmethod
    def of(cls, tensor: Tensor) -> View | None:
        """The view that a tensor is, or None where no hook can follow it."""
        base = tensor._base
        if base is None or base.grad_fn is None or base.is_nested or base.layout != torch.strided:
            return None
        return cls(tensor, base)

    def written(self) -> bool:
        view = self.view()
        return view is not None and view._version != self.version

    def waiting(self) -> bool:
        view = self.view()
        return view is not None and view._version == self.version

    def in_time(self) -> bool:
        """Was it followed before this backward pass? Else the pass may have been past the write by then."""
        return self.followed not in (_NEVER, torch._C._current_graph_task_id())

    def follow(self, arrive: Arrive) -> Any:
        """Send the gradient that the first write hands back to ``arrive``; None where there is no such node."""
        view = self.view()
        base = view._base if view is not None else None
        found = self._first_write(base.grad_fn) if base is not None else None
        self.node = None
        if found is None:
            return None
        node, slot = found
        self.followed = torch._C._current_graph_task_id()
        return node.register_hook(lambda grads, _: arrive(None if grads[slot] is None else self.cut(grads[slot])))

    def _first_write(self, node: Any) -> tuple[Any, int] | None:
        for _ in range(_WRITES):
            if node is None or node is self.node:
                return None
            for slot, (before, number) in enumerate(node.next_functions):
                if before is self.node and number == self.slot:
                    return node, slot
            node = node.next_functions[0][0]
        return None

    def cut(self, grad: Tensor) -> Tensor:
        """The view's part of a gradient of its base; a view may be the real numbers of complex ones, or their conjugates."""
        whole = grad.new_empty_strided(*self.shape).copy_(grad)
        part = torch.empty(0, dtype=self.dtype, device=grad.device).set_(whole.untyped_storage(), *self.place)
        conjugate, negative = self.lazy
        part = part.conj().resolve_conj() if conjugate else part
        return -part if negative else part
