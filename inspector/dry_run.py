"""Run somebody's model and leave no trace: buffers, random numbers and inputs are afterwards as they were.

The model runs in the mode it is in, because a summary of another mode would be one of another network; so BatchNorm
does update its statistics, and they are put back.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from inspector.tensors import rebuild, run, walk


def runnable(model: nn.Module, inputs: Any) -> nn.Module:
    """The model itself; of one with lazy layers a copy that has run once, which is when they get their parameters."""
    if not any(is_lazy(t) for t in [*model.parameters(), *model.buffers()]):
        return model
    twin = copy.deepcopy(model)
    with untouched(nn.Identity(), inputs), torch.no_grad():
        run(twin, fresh(inputs))
    return twin


def fresh(inputs: Any) -> Any:
    """A copy of the inputs, which a model may write into."""
    return rebuild(inputs, lambda _, t: t.detach().clone().requires_grad_(t.requires_grad))


@contextmanager
def untouched(model: nn.Module, inputs: Any = None) -> Iterator[None]:
    """Buffers and every random generator are put back, also when the block raises; each block sees the same numbers."""
    kept = [(m, dict(m._buffers), _values(m)) for m in model.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=_devices(model, inputs)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for module, buffers, values in kept:
            _restore(module, buffers, values)


def _values(module: nn.Module) -> dict[str, Tensor]:
    return {n: b.detach().clone() for n, b in module._buffers.items() if b is not None and not b.is_meta}


def _restore(module: nn.Module, buffers: dict[str, Tensor | None], values: dict[str, Tensor]) -> None:
    if not isinstance(module, torch.jit.ScriptModule):  # whose buffers cannot be exchanged
        module._buffers.clear()
        module._buffers.update(buffers)
    for name, value in values.items():
        now = buffers[name]
        if now is not None and not _same(now.detach(), value):
            with torch.no_grad():
                now.detach().copy_(value)


def _same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit where it is cheap to ask; NaN is never equal, so such a buffer is written back."""
    return a.layout == torch.strided and torch.equal(a, b)


def _devices(model: nn.Module, inputs: Any) -> list[torch.device]:
    tensors = [*model.parameters(), *model.buffers(), *(t for _, t in walk(inputs))]
    return list({t.device for t in tensors if t.device.type == "cuda"})
