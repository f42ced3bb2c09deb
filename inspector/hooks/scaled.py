"""Was the loss scaled by a GradScaler? Gradients are kept as they are, and a scaled one is labelled, never rescaled.

A scaler leaves no trace in the graph, so its ``scale`` is listened to while a gradient capture is open.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler

_lock = threading.Lock()
_listeners: list[list[Tensor]] = []
_original: list[Any] = []


@contextmanager
def listening() -> Iterator[list[Tensor]]:
    """The scales that were applied to a loss while the block runs, in order, as device tensors (nothing is read)."""
    heard: list[Tensor] = []
    with _lock:
        _listeners.append(heard)
        if len(_listeners) == 1:
            _original.append(GradScaler.scale)
            setattr(GradScaler, "scale", _telling(GradScaler.scale))  # noqa: B010  # mypy forbids assigning a method
    try:
        yield heard
    finally:
        with _lock:
            _listeners[:] = [other for other in _listeners if other is not heard]
            if not _listeners:
                setattr(GradScaler, "scale", _original.pop())  # noqa: B010  # as above


def _telling(scale: Any) -> Any:
    @functools.wraps(scale)
    def tell(self: GradScaler, outputs: Any) -> Any:
        answer = scale(self, outputs)
        if self.is_enabled() and isinstance(self._scale, Tensor):
            for heard in _listeners:
                heard[:] = [self._scale.detach().clone()]
        return answer

    return tell


def label(heard: list[Tensor]) -> str | None:
    """What to say of gradients that came while a scale was applied."""
    return f"scaled by GradScaler ({heard[-1].item():g}x)" if heard else None
