"""The settings of the compiler that somebody who looks needs: eager runs, or graphs that are bound to their hooks.

They are settings for the whole process, so overlapping blocks share one count for each; two independent ones would leave
them on for ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_open: list[Any] = []  # one entry per open block; the first holds the stance to restore
_bound: list[Any] = []  # likewise; the first is the setting to restore


@contextmanager
def eager() -> Iterator[None]:
    """Compiled models run eagerly inside, since compiled code ignores hooks that were added later; nothing is done where no
    compiler was ever loaded."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    _acquire()
    try:
        yield
    finally:
        _release()


def _acquire() -> None:
    with _lock:
        if not _open:
            _open.append(torch.compiler.set_stance("force_eager"))  # set by the call itself, undone by __exit__
        _open.append(None)


def _release() -> None:
    with _lock:
        _open.pop()
        if len(_open) == 1:
            _open.pop().__exit__(None, None, None)


@contextmanager
def hook_guards() -> Iterator[None]:
    """What is compiled inside is bound to the hooks of its own model: otherwise another instance of the same class, with
    or without hooks, would run this one's code."""
    from torch._dynamo import config

    with _lock:
        if not _bound:
            _bound.append(config.skip_nnmodule_hook_guards)
            config.skip_nnmodule_hook_guards = False
        _bound.append(None)
    try:
        yield
    finally:
        with _lock:
            _bound.pop()
            if len(_bound) == 1:
                config.skip_nnmodule_hook_guards = _bound.pop()
