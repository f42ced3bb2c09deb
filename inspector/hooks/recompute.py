"""Is this forward a recomputation by activation checkpointing? It repeats an earlier call and is no call of its own.

A checkpointed region is known by what torch keeps of it from its first pass to its recomputation: the ``ctx`` of the
reentrant kind, the ``_CheckpointFrame`` of the other. Nested regions run several times in one backward.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint

_FILE = torch.utils.checkpoint.__file__


class Region(NamedTuple):
    """A checkpointed region that runs now, for the first time or ``again``."""

    key: Any
    reentrant: bool
    again: bool


def recomputing() -> bool:
    """True inside checkpointing's second pass. A forward that a user runs in a backward hook has a graph task too, so
    the running functions are asked; that is only done during a backward, where there is a task."""
    if torch._C._current_graph_task_id() == -1:
        return False
    return any(frame.f_code.co_name in ("unpack_hook", "backward", "recompute_fn") for frame in _frames())


def checkpointing() -> list[Region]:
    """The regions, innermost first, whose first pass this is and which a backward will run once more; where a region runs
    once more now, those inside of it."""
    return list(itertools.takewhile(lambda region: not region.again, regions()))


def repeated() -> Region | None:
    """The innermost region that a backward runs once more now."""
    return next((region for region in regions() if region.again), None)


def gradients_come_later() -> bool:
    """Is there a reentrant region around this call, whose first pass makes no graph?"""
    return any(region.reentrant and not region.again for region in regions())


def regions() -> Iterator[Region]:
    """The running regions that a backward repeats, innermost first."""
    for frame in _frames():
        name, local = frame.f_code.co_name, frame.f_locals
        if name == "backward" and "ctx" in local:
            yield Region(local["ctx"], True, True)
        elif name == "unpack_hook" and "frame" in local:
            yield Region(local["frame"], False, True)
        elif name == "forward" and "ctx" in local and local["ctx"].next_functions:  # none where gradients were off outside
            yield Region(local["ctx"], True, False)
        elif "gen" in local and _saving():
            yield Region(local["gen"].gi_frame.f_locals["new_frame"], False, False)


def _saving() -> bool:
    """Does a region of the other kind wait for a backward? Inside, gradients may be off again; it packs what is saved."""
    return torch.is_grad_enabled() or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _frames() -> Iterator[FrameType]:
    """The running functions of torch.utils.checkpoint, innermost first."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == _FILE:
            yield frame
        frame = frame.f_back
