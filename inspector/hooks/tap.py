"""The tap: what passes a module becomes events. The only file that registers module hooks.

``mount`` is the one mechanism under capture, edit and the Monitor: it counts calls, knows who called whom, tells a
recomputation from a new call, and takes its hooks away when the block ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from inspector.hooks.eager import eager
from inspector.hooks.facets import Facets
from inspector.hooks.frame import Ended, Enter, Event, Frame, Leave, See, Sink
from inspector.hooks.gradients import Gradients
from inspector.hooks.mounted import Ending, Hook, Mounted
from inspector.hooks.order import observing
from inspector.hooks.seeing import Seeing
from inspector.hooks.select import Where, select
from inspector.sites import Kind, Site, as_kinds
from inspector.tensors import Inputs, Leaf


@contextmanager
def mount(
    modules: Mapping[str, nn.Module],
    *,
    enter: Enter | None = None,
    leave: Leave | None = None,
    began: Callable[[Frame], None] | None = None,
    last: bool = True,
    numbers: bool = False,
) -> Iterator[Mounted]:
    """Hooks on ``modules`` (path -> module, each once) for as long as the block runs, for the calls of the thread that
    opened it.

    ``enter(frame, args, kwargs)`` and ``leave(frame, output)`` may answer with other values; None leaves them as they
    are. ``leave`` is also called when the module raised, with ``frame.raised`` set. ``began(frame)`` comes before
    ``enter``, and not for recomputations.
    last: run after other people's hooks, to see what the next module receives; False runs before them, to change it.
    numbers: refuse transforms and tracing, whose values are none.
    """
    mounted = Mounted(enter, leave, began)
    mounted.last, mounted.numbers = last, numbers
    with _on(modules, mounted, Hook):
        yield mounted


@contextmanager
def mount_endings(modules: Mapping[str, nn.Module], ended: Ended, missed: Callable[[str], None]) -> Iterator[Mounted]:
    """``mount`` for who only wants to see what a call that returned was given and answers: ``ended(path, module, args,
    kwargs, output)``. Recomputations are not told. ``missed(path)``: a call whose answer could not be told, because
    somebody else's hook, which may change it, had come to stand behind ours; it does so for the next call no more."""
    mounted = Mounted(None, None, None)
    mounted.ended, mounted.missed = ended, missed
    with _on(modules, mounted, Ending):
        yield mounted


@contextmanager
def _on(modules: Mapping[str, nn.Module], mounted: Mounted, hook: type[Hook]) -> Iterator[None]:
    """A hook of this kind on each module, and none when the block ends."""
    try:
        for path, module in modules.items():
            if not isinstance(module, torch.jit.ScriptModule):  # of one, coverage tells that it never calls hooks
                hook(mounted, path, module)
        if mounted.last:
            observing(mounted.id)
        yield
    finally:
        mounted.close()


@contextmanager
def mount_traced(
    modules: Mapping[str, nn.Module], after: Mapping[str, Callable[[nn.Module, Any, Any], Any]]
) -> Iterator[None]:
    """Bare forward hooks, which the compiler can take into its graph; on for the whole block, for the Monitor."""
    handles = [module.register_forward_hook(after[path]) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def tap(model: nn.Module, where: Where, sink: Sink, *, what: Kind | Iterable[Kind] = "output") -> Iterator[None]:
    """Send what passes the chosen modules to ``sink`` as Events while the block runs.

    what: one kind or several. "input" is sent before the call, as a mapping by the forward parameters' names;
    "output" after it, and "attention" and "gates" where the call has them; "grad" and "grad_input" during backward, one
    event per leaf and per pass.
    Values are the live tensors, not copies. Raises LookupError where nothing is chosen, ValueError for unknown kinds.
    """

    def see(frame: Frame, kind: Kind, leaf: Leaf, value: Any) -> None:
        parent = frame.parent.path if frame.parent else None
        sink(Event(Site(frame.path, frame.index, kind, leaf), value, frame.module, parent))

    with tapped(select(model, where), see, as_kinds(what), gradients=Gradients()):
        yield


@contextmanager
def tapped(
    modules: Mapping[str, nn.Module],
    see: See,
    kinds: tuple[Kind, ...],
    *,
    gradients: Gradients,
    began: Callable[[Frame], None] | None = None,
    begin: Callable[[Frame, Inputs | None], None] | None = None,
    end: Callable[[Frame, Any], None] | None = None,
    lacks: Callable[[Frame, Kind, str], None] | None = None,
    only: Leave | None = None,
) -> Iterator[Mounted]:
    """``tap`` without the Events, for those who also want to know when a call begins, how it ends, and why it has no
    attention or no gates (capture). only: stands for all the others but ``began`` where only outputs are asked for."""
    facets = Facets(modules, kinds) if {"attention", "gates"} & set(kinds) else None
    seeing = Seeing(see, kinds, gradients, facets)
    seeing.begin, seeing.end, seeing.lacks = begin, end, lacks
    light = only is not None and kinds == ("output",)  # by far the most frequent
    enter, leave = (None, only) if light else (seeing.enter, seeing.leave)
    with eager(), mount(modules, enter=enter, leave=leave, began=began, numbers=True) as mounted:
        try:
            yield mounted
        finally:
            gradients.close()
            if facets is not None:
                facets.close()
