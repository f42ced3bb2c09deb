"""Leave a model and the random state as they were found, also when the work raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Inside, the modes of the modules may be changed; afterwards each is what it was."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def own_randomness(model: nn.Module, seed: int) -> Iterator[torch.Generator]:
    """Inside, dropout and the like draw from a state seeded here; afterwards the caller's is back. Yields a generator
    apart from both, so that the order of samples does not depend on the model."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach every device, also those not forked
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        yield torch.Generator().manual_seed(seed)
