"""Checkpointed calls stay edited: whenever a backward runs their region once more, also after the block, the edit is on.

What a region runs again is kept in the region itself, so that is where the edit is put, and it goes with the graph.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from inspector.hooks.recompute import Region, checkpointing, repeated

_opened = itertools.count()
Around = Callable[[Any], AbstractContextManager[None]]  # of a weak reference to the region
_KEPT = {True: "run_function", False: "recompute_fn"}  # where a reentrant region and the other keep what they run again


class Replays:
    """The regions in which an edit was on, and which calls of the edited modules each ran at first."""

    def __init__(self) -> None:
        self._order = next(_opened)
        self._ran: WeakKeyDictionary[Any, dict[str, list[int]]] = WeakKeyDictionary()
        self._left: WeakKeyDictionary[Any, dict[str, Iterator[int]]] = WeakKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._ran)

    def note(self, path: str, index: int, around: Around) -> None:
        """This call runs now; whatever runs a region that it is in once more does so inside ``around(region)``."""
        for region in checkpointing():
            if region.key not in self._ran:
                self._ran[region.key] = {}
                _what_repeats(region).around[self._order] = partial(self._again, weakref.ref(region.key), around)
            self._ran[region.key].setdefault(path, []).append(index)

    def index(self, path: str, only: Any = None) -> int | None:
        """Which call is repeated now; None where that was not edited. only: (weakly) the region that is asked for."""
        region = repeated()
        if region not in self._left or (only is not None and only() is not region):
            return None
        index = next(self._left[region].get(path, iter(())), None)
        if index is None:
            raise RuntimeError(
                f"checkpointing recomputes {path!r} more often than it ran at first, so which call is edited cannot be "
                "known; a checkpointed function must do the same each time, or switch checkpointing off"
            )
        return index

    def _again(self, region: Any, around: Around) -> AbstractContextManager[None]:
        key = region()
        self._left[key] = {path: iter(calls) for path, calls in self._ran[key].items()}
        return around(region)


class _Again:
    """What a region runs again, inside the edits that were on at first. around: when the edit's block opened -> it."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run = run
        self.around: dict[int, Callable[[], AbstractContextManager[None]]] = {}

    def __call__(self, *args: Any) -> Any:
        with ExitStack() as stack:
            for order in sorted(self.around):
                stack.enter_context(self.around[order]())
            return self.run(*args)


def _what_repeats(region: Region) -> _Again:
    name = _KEPT[region.reentrant]
    run = getattr(region.key, name)
    if not isinstance(run, _Again):
        run = _Again(run)
        setattr(region.key, name, run)
    return run
