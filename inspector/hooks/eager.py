"""The settings of the compiler that somebody who looks needs: eager runs, or graphs that are bound to their hooks.

They are settings for the whole process, so overlapping blocks share one count for each; two independent ones would leave
them on for ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_open: list[Any] = []  # blocks that want eager runs; see _shared
_bound: list[Any] = []  # blocks that want graphs bound to hooks


@contextmanager
def eager() -> Iterator[None]:
    """Compiled models run eagerly inside, since compiled code ignores hooks that were added later; nothing is done where no
    compiler was ever loaded."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _shared(_open, _run_eagerly):
        yield


@contextmanager
def hook_guards() -> Iterator[None]:
    """What is compiled inside is bound to the hooks of its own model: otherwise another instance of the same class, with
    or without hooks, would run this one's code."""
    with _shared(_bound, _bind_to_hooks):
        yield


@contextmanager
def _shared(blocks: list[Any], make: Callable[[], Callable[[], object]]) -> Iterator[None]:
    """The first block to open makes the setting, and the last one to close undoes it. blocks: how to undo it, then one entry
    per open block."""
    with _lock:
        if not blocks:
            blocks.append(make())
        blocks.append(None)
    try:
        yield
    finally:
        with _lock:
            blocks.pop()
            if len(blocks) == 1:
                blocks.pop()()


def _run_eagerly() -> Callable[[], object]:
    stance = torch.compiler.set_stance("force_eager")  # set by the call itself, undone by __exit__
    return lambda: stance.__exit__(None, None, None)


def _bind_to_hooks() -> Callable[[], object]:
    from torch._dynamo import config

    before, config.skip_nnmodule_hook_guards = config.skip_nnmodule_hook_guards, False
    return lambda: setattr(config, "skip_nnmodule_hook_guards", before)
