"""Where an answer comes from, without hashing a large model anew for every answer.

A tensor's version tells most changes, but not writes through ``.data``; so a few of its numbers are compared too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from inspector.provenance import provenance

_SAMPLED = 32
_unsigned: ContextVar[bool] = ContextVar("unsigned", default=False)
_made: WeakKeyDictionary[nn.Module, tuple[list[Any], dict[str, Any]]] = WeakKeyDictionary()


def origin(model: nn.Module, seed: int) -> dict[str, Any]:
    """The model's class, parameter checksum and versions, and the seed; kept until the model changes. Nothing where
    ``unsigned``."""
    if _unsigned.get():
        return {}
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_inference() or tensor.is_sparse for tensor in tensors):
        return provenance(model, seed=seed)
    marks = [_mark(tensor.detach()) for tensor in tensors]
    kept = _made.get(model)
    if kept is None or kept[0] != marks:
        kept = marks, provenance(model, seed=seed)
        _made[model] = kept
    return kept[1] | {"seed": seed}


@contextmanager
def unsigned() -> Iterator[None]:
    """Inside, answers do not say where they come from: for those that are compared and thrown away, such as of a model that
    is untrained layer by layer, whose parameters would be hashed anew each time."""
    token = _unsigned.set(True)
    try:
        yield
    finally:
        _unsigned.reset(token)


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    some = tensor.reshape(-1)[:: max(1, tensor.numel() // _SAMPLED)]
    return tensor.data_ptr(), tensor._version, tensor.dtype, tuple(tensor.shape), some.tolist()
