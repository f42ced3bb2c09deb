"""What a Store keeps of each tensor. Whatever is kept, it is never silently something else than what was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inspector.tensors import Placeholder, rebuild

Keep = Callable[[Tensor], Any]


class OverwrittenError(RuntimeError):
    """A borrowed value was changed in place after it was seen."""


class Borrowed(Placeholder):
    """A tensor that was not copied, with the version it had: reading it later raises if it was written to since."""

    __slots__ = ("tensor", "version")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor, tensor._version

    def read(self) -> Tensor:
        if self.tensor._version != self.version:
            raise OverwrittenError(
                f"this borrowed value ({tuple(self.tensor.shape)}) was overwritten in place after it was captured; "
                "use keep=snapshot, which keeps an exact copy"
            )
        return self.tensor


class Arriving(Placeholder):
    """A copy on its way to the CPU; reading it waits until it has arrived."""

    __slots__ = ("event", "tensor")

    def __init__(self, tensor: Tensor, event: torch.cuda.Event) -> None:
        self.tensor, self.event = tensor, event

    def read(self) -> Tensor:
        self.event.synchronize()
        return self.tensor


def snapshot(tensor: Tensor) -> Tensor:
    """An exact private copy, off the graph; a slice is copied without the storage it was cut from."""
    return (tensor.detach() if tensor.requires_grad else tensor).clone()


def borrow(tensor: Tensor) -> Tensor | Placeholder:
    """No copy. Reading it after an in-place operation overwrote it raises OverwrittenError.

    Writes through ``.data`` or numpy change no version and escape this. Inference tensors have no version: copied.
    """
    return snapshot(tensor) if tensor.is_inference() else Borrowed(tensor.detach())


def live(tensor: Tensor) -> Tensor | Placeholder:
    """The tensor itself, on its graph. Reading it after an in-place operation overwrote it raises OverwrittenError."""
    return tensor if tensor.is_inference() else Borrowed(tensor)


def off_graph(keep: Keep) -> Keep:
    """What ``keep`` answers, without the graph it was computed on: kept, that would hold all of the model's run. A view or
    an array that shares the tensor's memory becomes a copy: the model may write there later."""
    if keep in (snapshot, borrow, live, offload):
        return keep
    return lambda tensor: rebuild(keep(tensor), lambda _, kept: _apart(kept, tensor), other=_copied)


def _apart(kept: Any, tensor: Tensor) -> Any:
    if not isinstance(kept, Tensor):
        return kept
    return snapshot(kept) if torch._C._is_alias_of(kept, tensor) else kept.detach()  # type: ignore[attr-defined]  # no stub


def _copied(kept: Any) -> Any:
    return kept.copy() if type(kept).__name__ == "ndarray" else kept


def offload(tensor: Tensor) -> Tensor | Placeholder:
    """A copy on the CPU; from a GPU through pinned memory, without stalling the device."""
    if tensor.device.type != "cuda" or tensor.layout != torch.strided or tensor.is_nested:
        return tensor.detach().to("cpu", copy=True)
    pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
    pinned.copy_(tensor.detach(), non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    event.record(torch.cuda.current_stream(tensor.device))
    return Arriving(pinned, event)
