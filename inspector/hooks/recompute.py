"""Is this forward a recomputation by activation checkpointing? It repeats an earlier call and is no call of its own."""

from __future__ import annotations

import sys
from types import FrameType

import torch
import torch.utils.checkpoint

_FILE = torch.utils.checkpoint.__file__


def recomputing() -> bool:
    """True inside checkpointing's second pass. A forward that a user runs in a backward hook has a graph task too, so
    the running functions are asked; that is only done during a backward, where there is a task."""
    if torch._C._current_graph_task_id() == -1:
        return False
    return _running(lambda name: name in ("unpack_hook", "backward", "recompute_fn"))


def checkpointing() -> bool:
    """True inside checkpointing's first pass, whose calls will run once more during backward."""
    return _running(lambda name: name in ("forward", "checkpoint"))


def _running(wanted: object) -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _FILE and wanted(code.co_name):  # type: ignore[operator]  # a predicate on names
            return True
        frame = frame.f_back
    return False
