"""A small tensor on its way to the host: copied without waiting, read when it is there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


class Arrival:
    """A copy of ``value`` on the host: on the CPU at once, from a GPU when the stream has come that far."""

    __slots__ = ("event", "host")

    def __init__(self, value: Tensor | Array) -> None:
        self.event: Any = None
        self.host: Tensor | Array
        if isinstance(value, np.ndarray):
            self.host = value.copy()
            return
        if value.device.type == "cpu":
            self.host = value.clone()
            return
        cuda = value.device.type == "cuda"
        self.host = torch.empty(value.shape, dtype=value.dtype, pin_memory=cuda).copy_(value, non_blocking=cuda)
        if cuda:
            self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # untyped in torch
            self.event.record(torch.cuda.current_stream(value.device))

    @property
    def ready(self) -> bool:
        return self.event is None or bool(self.event.query())

    def numpy(self) -> Array:
        """The numbers; waits for them where they are not there yet."""
        if self.event is not None:
            self.event.synchronize()
        return self.host if isinstance(self.host, np.ndarray) else self.host.numpy()
