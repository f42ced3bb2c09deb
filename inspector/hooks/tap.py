"""The tap: what passes a module becomes events. The only file that registers module hooks.

``mount`` is the one mechanism under capture, edit and the Monitor: it counts calls, knows who called whom, tells a
recomputation from a new call, and takes its hooks away when the block ends, however it ends.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from inspector.hooks.eager import eager
from inspector.hooks.facets import Facets
from inspector.hooks.frame import Enter, Event, Frame, Leave, See, Sink
from inspector.hooks.gradients import Gradients
from inspector.hooks.order import keep_last, no_more, observing
from inspector.hooks.recompute import recomputing
from inspector.hooks.refusals import refuse_transforms
from inspector.hooks.seeing import Seeing
from inspector.hooks.select import Where, select
from inspector.sites import Kind, Site, as_kinds
from inspector.tensors import Inputs, Leaf

Hooks = OrderedDict[int, Callable[..., Any]]
_graph_task = torch._C._current_graph_task_id
_interpreters = torch._C._functorch.peek_interpreter_stack
_tracing = torch._C._get_tracing_state
_compiling = torch.compiler.is_compiling


class Mounted:
    """A block with hooks on modules: how often each ran, and which ran in a thread that did not open the block."""

    def __init__(self, enter: Enter | None, leave: Leave | None, began: Callable[[Frame], None] | None) -> None:
        self.enter, self.leave, self.began = enter, leave, began
        self.last = self.numbers = True
        self.thread = get_ident()
        self.outer: BaseException | None = None  # what the caller was handling when the outermost module was called
        self.stack: list[Frame] = []
        self.stacks: dict[int, list[Frame]] = {self.thread: self.stack}
        self.hooks: dict[str, _Hook] = {}
        self.id = RemovableHandle(OrderedDict()).id  # what our hooks are kept under: no other hook has it

    @property
    def calls(self) -> dict[str, int]:
        """How often each module ran, without those that never did."""
        return {path: hook.calls for path, hook in self.hooks.items() if hook.calls}

    @property
    def elsewhere(self) -> set[str]:
        """Modules that ran in another thread, which this block does not record."""
        return {path for path, hook in self.hooks.items() if hook.elsewhere}

    def close(self) -> None:
        """Take the hooks away, and let go of the model and of what was captured, without waiting for a collection."""
        self.enter = self.leave = self.began = self.outer = None
        for hook in self.hooks.values():
            hook.remove()
        self.hooks.clear()
        no_more(self.id)


class _Hook:
    """The pair of hooks on one module. They go straight to where ``register_forward_hook`` puts them, under one id for all:
    its handles would take as long as the looking. This runs at every call, so it asks for the usual case first."""

    __slots__ = ("block", "calls", "elsewhere", "module", "path", "posts", "pres")

    def __init__(self, block: Mounted, path: str, module: nn.Module) -> None:
        self.block, self.path, self.calls, self.elsewhere = block, path, 0, False
        self.module: nn.Module | None = module
        self.pres: Hooks = module._forward_pre_hooks  # type: ignore[assignment]  # torch's annotation says less
        self.posts: Hooks = module._forward_hooks  # type: ignore[assignment]  # as above
        own = block.id
        block.hooks[path] = self  # first, so that an interrupt finds what to take away
        self.pres[own], self.posts[own] = self.before, self.after
        module._forward_pre_hooks_with_kwargs[own] = module._forward_hooks_always_called[own] = True
        if not block.last:  # an edit comes before other people's pre-hooks, which then see the edited value
            self.pres.move_to_end(own, last=False)

    def remove(self) -> None:
        module, own = self.module, self.block.id
        assert module is not None
        self.pres.pop(own, None)
        self.posts.pop(own, None)
        module._forward_pre_hooks_with_kwargs.pop(own, None)
        module._forward_hooks_always_called.pop(own, None)
        self.module = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Hook:
        return self  # the hooks of a copied model do nothing: they know another module

    def __reduce__(self) -> Any:
        return _Inert, ()

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        block = self.block
        stack = block.stack
        if block.numbers and (_interpreters() is not None or (not stack and (_tracing() is not None or _compiling()))):
            refuse_transforms()
        again = _graph_task() != -1 and recomputing()
        if again or get_ident() != block.thread or module is not self.module:
            other = self._stack(module, again)
            if other is None:
                return None
            stack = other
        if block.last:
            if next(reversed(self.posts), None) != block.id:
                keep_last(self.posts, block.id)
            if block.enter is not None and next(reversed(self.pres), None) != block.id:
                keep_last(self.pres, block.id)
        if not stack:
            block.outer = sys.exception()
        index = self.calls
        if again:
            index = max(index - 1, 0)
        else:
            self.calls = index + 1
        frame = Frame(self, index, stack[-1] if stack else None, again)
        stack.append(frame)
        if block.began is not None and not again:
            block.began(frame)
        return block.enter(frame, args, kwargs) if block.enter is not None else None

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        block = self.block
        stack = block.stack if get_ident() == block.thread else block.stacks.get(get_ident())
        if not stack or stack[-1].hook is not self or module is not self.module:
            return None  # a call of a copy, of another thread, or from before the block opened
        frame = stack.pop()
        if output is None:  # None may also be what the module answers
            error = sys.exception()
            frame.raised = error if error is not block.outer else None
        return block.leave(frame, output) if block.leave is not None else None

    def _stack(self, module: nn.Module, again: bool) -> list[Frame] | None:
        """The running calls of this thread, or None where the call is not ours to record."""
        if module is self.module and (again or get_ident() == self.block.thread):
            return self.block.stacks.setdefault(get_ident(), [])  # on a GPU, backward recomputes in a thread of its own
        self.elsewhere = self.elsewhere or module is self.module or bool(getattr(module, "_is_replica", False))
        return None


class _Inert:
    """What a pickled hook comes back as: a model pickled while somebody looks at it loads as a model nobody looks at."""

    def before(self, *_: Any) -> None:
        return None

    after = before


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
    try:
        for path, module in modules.items():
            if not isinstance(module, torch.jit.ScriptModule):  # of one, coverage tells that it never calls hooks
                _Hook(mounted, path, module)
        if last:
            observing(mounted.id)
        yield mounted
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
