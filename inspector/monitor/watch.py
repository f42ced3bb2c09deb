"""Every step, due or not: the norm of the applied gradients, without waiting for the device.

One number a step goes to the host on its own; it is read a step later. A number that is not finite, or a jump, makes
the following steps due.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median

import numpy as np
import torch
from torch import Tensor

from inspector.monitor.arrival import Arrival
from inspector.monitor.flat import local
from inspector.monitor.one_pass import ONE_PASS, addresses, is_dense

_JUMP, _ENOUGH = 10.0, 20  # times the running median; steps before a jump can be told


class Watch:
    """``look`` puts the norm under way; ``read`` gives what has arrived as (step, norm, skipped)."""

    def __init__(self) -> None:
        self.under_way: deque[tuple[int, Arrival]] = deque()
        self.recent: deque[float] = deque(maxlen=64)

    def look(self, step: int, gradients: Sequence[Tensor], scale: Tensor | None, found_inf: Tensor | None) -> None:
        known = norm_on_host(gradients) if scale is None and found_inf is None else None
        if known is not None:
            self.under_way.append((step, Arrival(np.array(known))))
            return
        norm = total_norm(gradients)
        if norm is None:
            return
        if scale is not None:
            norm = norm / torch.as_tensor(scale).to(norm)
        if found_inf is not None:
            norm = torch.stack([norm, found_inf.detach().to(norm).reshape(())])
        self.under_way.append((step, Arrival(norm)))

    def read(self, *, wait: bool = False) -> list[tuple[int, float, bool]]:
        """What has arrived since the last call, or all that is under way."""
        arrived = []
        while self.under_way and (wait or self.under_way[0][1].ready):
            step, numbers = self.under_way.popleft()
            norm, *skipped = numbers.numpy().ravel().tolist()
            arrived.append((step, norm, any(skipped)))
        return arrived

    def jumped(self, norm: float) -> bool:
        """Is it out of all proportion to the steps before? Remembers it if not."""
        usual = median(self.recent) if len(self.recent) >= _ENOUGH else math.inf
        jumped = not math.isfinite(norm) or norm > _JUMP * usual
        if math.isfinite(norm):
            self.recent.append(norm)
        return jumped


def norm_on_host(gradients: Sequence[Tensor]) -> float | None:
    """The norm of all of them where they are dense numbers of this process; None where they are not, or are none."""
    if ONE_PASS is None or not gradients or not all(map(is_dense, gradients)):
        return None
    where, sizes = addresses(gradients)
    return math.sqrt(ONE_PASS.squares(where.buffer_info()[0], sizes.buffer_info()[0], len(gradients)))


def total_norm(gradients: Sequence[Tensor]) -> Tensor | None:
    """The norm of all of them as one number, on a device where some of them are; None where there is none to speak of."""
    known = norm_on_host(gradients)
    return _norm_on_device(gradients) if known is None else torch.tensor(known)


def _norm_on_device(gradients: Sequence[Tensor]) -> Tensor | None:
    values = [g if type(g) is Tensor and not g.requires_grad else local(g.detach()) for g in gradients]
    values = [value for value in values if value.layout is torch.strided]
    if not values:
        return None
    norms = [torch.stack(torch._foreach_norm(group, dtype=_wide(group[0]))) for group in _alike(values)]
    home = next((norm.device for norm in norms if norm.device.type != "cpu"), norms[0].device)  # the host would wait
    parts = [norm.to(home, torch.float32, non_blocking=True) for norm in norms]
    total: Tensor = torch.linalg.vector_norm(parts[0] if len(parts) == 1 else torch.cat(parts))
    return total


def _alike(values: list[Tensor]) -> list[list[Tensor]]:
    """By type and device, which is what a foreach function can take at once."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for value in values:
        groups.setdefault((value.dtype, value.device), []).append(value)
    return list(groups.values())


def _wide(value: Tensor) -> torch.dtype | None:
    """Norms of half types are taken in float32."""
    return torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else None
