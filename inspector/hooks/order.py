"""Observing hooks run after everybody else's, so that what they record is what the next module receives."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

_observers: set[int] = set()  # ids of the hooks that observe


def observing(*hook_ids: int) -> None:
    """These hooks only look."""
    _observers.update(hook_ids)


def no_more(*hook_ids: int) -> None:
    """These hooks are gone."""
    _observers.difference_update(hook_ids)


def keep_last(hooks: OrderedDict[int, Any], own: int) -> bool:
    """Move observing hooks behind those that were registered since; were there any?

    Each call of a module reads its hooks into a tuple first, so moving one during the call is safe and takes effect
    for the hooks that run after the call.
    """
    if not _somebody_behind(hooks, own):
        return False
    for hook_id in [i for i in hooks if i in _observers]:
        hooks.move_to_end(hook_id)
    return True


def _somebody_behind(hooks: OrderedDict[int, Any], own: int) -> bool:
    behind = itertools.takewhile(lambda hook_id: hook_id != own, reversed(hooks))
    return any(hook_id not in _observers for hook_id in behind)
