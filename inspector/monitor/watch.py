"""Every step, due or not: the norm of the applied gradients, without waiting for the device.

One number a step goes to the host on its own; it is read a step later. A number that is not finite, or a jump, makes
the following steps due.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from inspector.monitor.arrival import Arrival
from inspector.monitor.table import local

_JUMP, _ENOUGH = 10.0, 20  # times the running median; steps before a jump can be told


class Watch:
    """``look`` puts the norm under way; ``read`` gives what has arrived as (step, norm, skipped)."""

    def __init__(self) -> None:
        self.under_way: deque[tuple[int, Arrival]] = deque()
        self.recent: deque[float] = deque(maxlen=64)

    def look(self, step: int, gradients: Sequence[Tensor], scale: Tensor | None, found_inf: Tensor | None) -> None:
        values = [local(g.detach()) for g in gradients if g.layout == torch.strided]
        if not values:
            return
        home = values[0].device
        norms = [n.to(home, torch.float32, non_blocking=True) for n in torch._foreach_norm(values)]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        skipped = torch.zeros_like(norm) if found_inf is None else found_inf.detach().to(norm).reshape(())
        if scale is not None:
            norm = norm / torch.as_tensor(scale).to(norm)
        self.under_way.append((step, Arrival(torch.stack([norm, skipped]))))

    def read(self, *, wait: bool = False) -> list[tuple[int, float, bool]]:
        """What has arrived since the last call, or all that is under way."""
        arrived = []
        while self.under_way and (wait or self.under_way[0][1].ready):
            step, numbers = self.under_way.popleft()
            norm, skipped = numbers.numpy().tolist()
            arrived.append((step, norm, skipped > 0))
        return arrived

    def jumped(self, norm: float) -> bool:
        """Is it out of all proportion to the steps before? Remembers it if not."""
        usual = median(self.recent) if len(self.recent) >= _ENOUGH else math.inf
        jumped = not math.isfinite(norm) or norm > _JUMP * usual
        if math.isfinite(norm):
            self.recent.append(norm)
        return jumped
