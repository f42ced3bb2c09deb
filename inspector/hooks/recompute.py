"""Is this forward a recomputation by activation checkpointing? It repeats an earlier call and is no call of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType

import torch
import torch.utils.checkpoint

_FILE = torch.utils.checkpoint.__file__


def recomputing() -> bool:
    """True inside checkpointing's second pass. A forward that a user runs in a backward hook has a graph task too, so
    the running functions are asked; that is only done during a backward, where there is a task."""
    if torch._C._current_graph_task_id() == -1:
        return False
    return any(frame.f_code.co_name in ("unpack_hook", "backward", "recompute_fn") for frame in _frames())


def checkpointing() -> bool:
    """True inside checkpointing's first pass, if a backward will run its calls once more."""
    for frame in _frames():
        if frame.f_code.co_name == "forward":  # reentrant: gradients are off inside, whatever they were outside
            return any(frame.f_locals["ctx"].needs_input_grad)
        if frame.f_code.co_name == "checkpoint":
            return torch.is_grad_enabled()
    return False


def _frames() -> Iterator[FrameType]:
    """The running functions of torch.utils.checkpoint, innermost first."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == _FILE:
            yield frame
        frame = frame.f_back
