"""Everything of ours that runs on the training's time runs in here: an error ends the monitor and nothing else."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any


class Guard:
    """``guard(act, *args)`` runs ``act``; after the first error it does nothing any more. ``spent``: seconds in here."""

    def __init__(self) -> None:
        self.off: str | None = None
        self.spent = 0.0
        self.inside = False

    def __call__(self, act: Callable[..., Any], *args: Any) -> Any:
        if self.off is not None or self.inside:
            return None if self.off is not None else act(*args)
        begin, self.inside = time.perf_counter(), True
        try:
            return act(*args)
        except Exception as error:
            self._fail(error)
            return None
        finally:
            self.inside = False
            self.spent += time.perf_counter() - begin

    def of(self, act: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: self(act, *args)

    def _fail(self, error: Exception) -> None:
        self.off = f"{type(error).__name__}: {error}"
        warnings.warn(f"the monitor is off from here on, the training goes on: {self.off}", RuntimeWarning, stacklevel=4)
