"""Run eagerly what was compiled, while somebody looks: compiled code ignores hooks that were added later.

The compiler's stance is one setting for the whole process, so overlapping blocks share one counted guard; two
independent ones would leave it on for ever.
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


@contextmanager
def eager() -> Iterator[None]:
    """Compiled models run eagerly inside; nothing is done where no compiler was ever loaded."""
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
