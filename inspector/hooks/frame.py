"""What is seen: events for everybody, and the running call (Frame) for those who work inside the tap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import nn

from inspector.sites import Kind, Site
from inspector.tensors import Leaf


class Event(NamedTuple):
    """What was seen: where, the value (nested as the module nests it), the module, and the path of the module that
    called it (the nearest chosen one; None for the outermost)."""

    site: Site
    value: Any
    module: nn.Module
    parent: str | None


class Hooked(Protocol):
    """One module of a block with hooks. ``module`` is None when the block has ended."""

    path: str
    module: Any


class Frame:
    """One running call of one module. ``index`` counts its calls since the block opened; ``again`` marks the
    recomputation of an earlier call by activation checkpointing, which is no call of its own.

    Most calls need few of these, so the others stand in the class until they are set: that is faster than setting all.
    A frame may outlive its block, so it holds no module itself.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  # never written into, only replaced
    raised: BaseException | None = None
    given: dict[int, int] = {}  # noqa: RUF012  # id of each tensor that came in -> its version then, for gradients
    scratch: Any = None  # whatever ``enter`` hands to ``leave``
    facets: Any = None  # what Facets.begin hands to Facets.end
    noted: dict[str, Any] | None = None  # what was kept of it before anybody asked, for capture

    def __init__(self, hook: Hooked, index: int, parent: Frame | None, again: bool) -> None:
        self.hook, self.index, self.parent, self.again = hook, index, parent, again

    @property
    def path(self) -> str:
        return self.hook.path

    @property
    def module(self) -> Any:
        return self.hook.module


Enter = Callable[[Frame, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]
Leave = Callable[[Frame, Any], Any]
Ended = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any], Any], None]  # path, module, args, kwargs, output
Sink = Callable[[Event], None]
See = Callable[[Frame, Kind, Leaf, Any], None]
