"""What the user logs: numbers at once, tensors on their device until they have arrived on the host."""

from __future__ import annotations

import numbers
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inspector.monitor.arrival import Arrival

_ENOUGH = 64  # tensors that wait on the device before they are sent without waiting for a logged step


def _number(value: Tensor) -> float:
    if value.dtype is not torch.float32 or value.dim() or value.is_neg():  # the usual case takes no copy
        value = torch.empty((), dtype=torch.float64).copy_(value.reshape(()))
    return float(value.numpy())


def check(scalars: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError for what is no single real number."""
    for name, value in scalars.items():
        if isinstance(value, Tensor):
            if value.numel() != 1 or value.is_complex():
                raise ValueError(
                    f"log({name}=...) takes one real number, this tensor has {value.numel()}; give its mean, say"
                )
        elif not isinstance(value, numbers.Real) and not hasattr(value, "__float__"):
            raise TypeError(f"log({name}=...) takes a number or a tensor of one element, not a {type(value).__name__}")


class Scalars:
    """Takes values in, gives them out as (step, name, number) once they are on the host."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, str, Tensor]] = []
        self.under_way: deque[tuple[list[tuple[int, str]], Arrival]] = deque()
        self.arrived: list[tuple[int, str, float]] = []

    def add(self, step: int, name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            self.arrived.append((step, name, float(value)))
        elif value.device.type == "cpu":
            self.arrived.append((step, name, _number(value.detach())))
        else:
            self.waiting.append((step, name, value.detach().reshape(()).clone()))
            if len(self.waiting) >= _ENOUGH:
                self.send()

    def send(self) -> None:
        """Begin the copy of what waits on a device."""
        if not self.waiting:
            return
        home = self.waiting[0][2].device
        values = torch.stack([value.to(home, torch.float32, non_blocking=True) for _, _, value in self.waiting])
        self.under_way.append(([(step, name) for step, name, _ in self.waiting], Arrival(values)))
        self.waiting = []

    def take(self, *, wait: bool = False) -> list[tuple[int, str, float]]:
        """What is on the host now; ``wait`` for all of it."""
        while self.under_way and (wait or self.under_way[0][1].ready):
            keys, values = self.under_way.popleft()
            self.arrived += [(*key, value) for key, value in zip(keys, values.numpy().tolist(), strict=True)]
        arrived, self.arrived = self.arrived, []
        return arrived
