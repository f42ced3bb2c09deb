"""The tap: what passes a module becomes events. The only file that registers module hooks.

``mount`` is the one mechanism under capture, edit and the Monitor: it counts calls, knows who called whom, tells a
recomputation from a new call, and takes its hooks away when the block ends, however it ends.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn

from inspector.hooks.eager import eager
from inspector.hooks.gradients import Gradients
from inspector.hooks.parameters import named_inputs
from inspector.hooks.recompute import recomputing
from inspector.hooks.select import Where, select
from inspector.sites import KINDS, Kind, Site, key
from inspector.tensors import Inputs, walk


class Event(NamedTuple):
    """What was seen: where, the value (nested as the module nests it), the module, and the call it ran inside of."""

    site: Site
    value: Any
    module: nn.Module
    parent: str | None


class Frame:
    """One running call of one module. ``index`` counts its calls since the block opened; ``again`` marks the
    recomputation of an earlier call by activation checkpointing, which is no call of its own."""

    __slots__ = ("again", "error", "given", "index", "inputs", "module", "parent", "path", "raised", "scratch")

    def __init__(self, path: str, index: int, module: nn.Module, parent: Frame | None, again: bool) -> None:
        self.path, self.index, self.module, self.parent, self.again = path, index, module, parent, again
        self.error = sys.exception()  # what was being handled before: only a new one was raised by this call
        self.raised: BaseException | None = None
        self.inputs: tuple[Any, ...] = ()
        self.given: dict[int, int] = {}  # id of each tensor that came in -> its version then
        self.scratch: Any = None  # whatever ``enter`` wants to hand to ``leave``

    @property
    def name(self) -> str:
        return key(self.path, self.index)


Enter = Callable[[Frame, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]
Leave = Callable[[Frame, Any], Any]
Sink = Callable[[Event], None]

_observers: set[int] = set()  # ids of hooks that must see what the next module receives, so they run last


class Mounted:
    """Hooks on modules. ``enter(frame, args, kwargs)`` and ``leave(frame, output)`` may answer with other values; None
    leaves them as they are. ``leave`` is also called when the module raised, with ``frame.raised`` set."""

    def __init__(self, modules: Mapping[str, nn.Module], enter: Enter | None, leave: Leave | None, last: bool) -> None:
        self.paths = {id(module): path for path, module in modules.items()}
        self.modules, self.last = modules, last
        self.enter, self.leave = enter, leave
        self.calls: dict[str, int] = {}
        self.elsewhere: set[str] = set()  # modules that ran in a thread that did not open the block
        self.thread = threading.get_ident()
        self.stacks = threading.local()
        self.handles: list[tuple[Any, Any]] = []

    def open(self) -> None:
        for module in self.modules.values():
            first = not self.last  # an edit comes before other people's hooks, which then see the edited value
            before = module.register_forward_pre_hook(self._before, with_kwargs=True, prepend=first)
            after = module.register_forward_hook(self._after, with_kwargs=True, always_call=True)
            self.handles.append((before, after))
            if self.last:
                _observers.update((before.id, after.id))

    def close(self) -> None:
        for before, after in self.handles:
            _observers.difference_update((before.id, after.id))
            before.remove()
            after.remove()
        self.handles.clear()

    @property
    def stack(self) -> list[Frame]:
        try:
            return self.stacks.frames  # type: ignore[no-any-return]  # a thread-local attribute has no type
        except AttributeError:
            self.stacks.frames = []
            return self.stack

    def __deepcopy__(self, memo: dict[int, Any]) -> Mounted:
        return self  # hooks on a copied model belong to no block: they know none of its modules and do nothing

    def __reduce__(self) -> Any:
        return Mounted, ({}, None, None, True)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.paths.get(id(module))
        again = recomputing()
        if path is None or (threading.get_ident() != self.thread and not again):
            self.elsewhere.add(path or "")
            return None
        if self.last:
            _keep_last(module)
        stack = self.stack
        frame = Frame(path, self._count(path, again), module, stack[-1] if stack else None, again)
        stack.append(frame)
        return self.enter(frame, args, kwargs) if self.enter else None

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        stack = self.stack
        if not stack or stack[-1].module is not module:
            return None  # a call that began in another thread, or before the block opened
        frame = stack.pop()
        error = sys.exception()
        frame.raised = error if error is not frame.error else None
        return self.leave(frame, output) if self.leave else None

    def _count(self, path: str, again: bool) -> int:
        index = self.calls.get(path, 0)
        if again:
            return max(index - 1, 0)
        self.calls[path] = index + 1
        return index


@contextmanager
def mount(
    modules: Mapping[str, nn.Module], *, enter: Enter | None = None, leave: Leave | None = None, last: bool = True
) -> Iterator[Mounted]:
    """Hooks on ``modules`` (path -> module) for as long as the block runs, in the thread that opened it.

    last: run after other people's hooks, to see what the next module receives; False runs before them, to change it.
    """
    mounted = Mounted(modules, enter, leave, last)
    try:
        mounted.open()
        yield mounted
    finally:
        mounted.close()


@contextmanager
def tap(model: nn.Module, where: Where, sink: Sink, *, what: Kind | Iterable[Kind] = "output") -> Iterator[None]:
    """Send what passes the chosen modules to ``sink`` as Events while the block runs.

    what: one kind or several. "input" is sent before the call, as a mapping by the forward parameters' names;
    "output" after it; "grad" and "grad_input" during backward, one event per leaf and per pass.
    Values are the live tensors, not copies. Raises LookupError where nothing is chosen, ValueError for unknown kinds.
    """
    with tapped(select(model, where), sink, as_kinds(what), gradients=Gradients()):
        yield


@contextmanager
def tapped(
    modules: Mapping[str, nn.Module],
    sink: Sink,
    kinds: tuple[Kind, ...],
    *,
    gradients: Gradients,
    begin: Callable[[Frame, Inputs | None], None] | None = None,
    end: Callable[[Frame, Any], None] | None = None,
) -> Iterator[Mounted]:
    """``tap`` for those who also need to know when calls begin and end (capture, summary)."""

    def emit(frame: Frame) -> Callable[[Site, Any], None]:
        return lambda site, value: sink(_event(frame, site, value))

    def enter(frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame.inputs = (args, kwargs)
        if frame.again:
            return
        if "grad" in kinds:
            frame.given = {id(t): 0 if t.is_inference() else t._version for part in (args, kwargs) for _, t in walk(part)}
        inputs = named_inputs(frame.module, args, kwargs) if wants_inputs else None
        if begin is not None:
            begin(frame, inputs)
        if "input" in kinds:
            emit(frame)(Site(frame.path, frame.index, "input"), inputs)
        if "grad_input" in kinds:
            gradients.watch(frame, inputs, "grad_input", emit(frame))

    def leave(frame: Frame, output: Any) -> None:
        if frame.again:
            if "grad" in kinds and frame.raised is None:
                gradients.watch_again(frame, output, emit(frame))
            return
        if end is not None:
            end(frame, output)
        if "output" in kinds and frame.raised is None:
            emit(frame)(Site(frame.path, frame.index, "output"), output)
        if "grad" in kinds and frame.raised is None:
            gradients.watch(frame, output, "grad", emit(frame))

    wants_inputs = "input" in kinds or "grad_input" in kinds

    with eager(), mount(modules, enter=enter, leave=leave) as mounted:
        try:
            yield mounted
        finally:
            gradients.close()


def as_kinds(what: Kind | Iterable[Kind]) -> tuple[Kind, ...]:
    """The kinds asked for, checked, each once and in their own order."""
    asked = (what,) if isinstance(what, str) else tuple(what)
    for kind in asked:
        if kind not in KINDS:
            raise ValueError(f"what={kind!r} is no kind of value; there are {', '.join(map(repr, KINDS))}")
    if not asked:
        raise ValueError("what=() asks for nothing; give at least one kind, such as 'output'")
    return tuple(kind for kind in KINDS if kind in asked)


def _event(frame: Frame, site: Site, value: Any) -> Event:
    return Event(site, value, frame.module, frame.parent.name if frame.parent else None)


def _keep_last(module: nn.Module) -> None:
    """Move observing hooks behind those that were registered since, so that we record what the next module receives.

    Each call of a module reads its hooks into a tuple first, so moving one during the call is safe and takes effect
    for the hooks that run after the call.
    """
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        assert isinstance(hooks, OrderedDict)
        if next(reversed(hooks), None) not in _observers:
            for hook_id in [i for i in hooks if i in _observers]:
                hooks.move_to_end(hook_id)
