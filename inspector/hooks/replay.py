"""A checkpointed region that a backward runs once more: which of its first calls is each call, and what was on around them.

What a region runs again is kept in the region itself, so that is where this is put, and it goes with the graph.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from inspector.hooks.recompute import Region

_opened = itertools.count()
Around = Callable[[Any], AbstractContextManager[None]]  # of a weak reference to the region
_KEPT = {True: "run_function", False: "recompute_fn"}  # where a reentrant region and the other keep what they run again


class Replays:
    """The regions in which something was on, and what was noted of the calls that each ran at first, in order."""

    def __init__(self) -> None:
        self._order = next(_opened)
        self._ran: WeakKeyDictionary[Any, dict[Hashable, list[Any]]] = WeakKeyDictionary()
        self._left: WeakKeyDictionary[Any, dict[Hashable, Iterator[Any]]] = WeakKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._ran)

    def note(self, regions: Iterable[Region], key: Hashable, call: Any, around: Around) -> None:
        """This call of ``key`` runs now; whatever runs a region once more does so inside ``around(region)``."""
        for region in regions:
            if region.key not in self._ran:
                self._ran[region.key] = {}
                _what_repeats(region).around[self._order] = partial(self._again, weakref.ref(region.key), around)
            self._ran[region.key].setdefault(key, []).append(call)

    def left(self, region: Region, key: Hashable) -> Iterator[Any] | None:
        """The calls of ``key`` that this run of the region has still to repeat; None where nothing was on in it."""
        return self._left[region.key].get(key, iter(())) if region.key in self._left else None

    def _again(self, region: Any, around: Around) -> AbstractContextManager[None]:
        running = region()
        self._left[running] = {key: iter(calls) for key, calls in self._ran[running].items()}
        return around(region)


class _Again:
    """What a region runs again, inside what was on at first. around: when its block opened -> it."""

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
