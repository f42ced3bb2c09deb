"""A block with hooks on modules, and the hooks themselves, which ``mount`` in tap.py puts there."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from inspector.hooks.frame import Ended, Enter, Frame, Leave
from inspector.hooks.order import keep_last, no_more
from inspector.hooks.recompute import recomputing
from inspector.hooks.refusals import refuse_transforms

Hooks = OrderedDict[int, Callable[..., Any]]
_graph_task = torch._C._current_graph_task_id
_interpreters = torch._C._functorch.peek_interpreter_stack
_tracing = torch._C._get_tracing_state
_compiling = torch.compiler.is_compiling


class Mounted:
    """A block with hooks on modules: how often each ran, and which ran in a thread that did not open the block."""

    def __init__(self, enter: Enter | None, leave: Leave | None, began: Callable[[Frame], None] | None) -> None:
        self.enter, self.leave, self.began = enter, leave, began
        self.ended: Ended | None = None
        self.missed: Callable[[str], None] | None = None
        self.compiled: dict[str, bool] = {}  # modules that ran inside a compiled function around the model, unseen
        self.last = self.numbers = True
        self.thread = get_ident()
        self.outer: BaseException | None = None  # what the caller was handling when the outermost module was called
        self.stack: list[Frame] = []
        self.stacks: dict[int, list[Frame]] = {self.thread: self.stack}
        self.hooks: dict[str, Hook] = {}
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
        self.enter = self.leave = self.began = self.ended = self.missed = self.outer = None
        for hook in self.hooks.values():
            hook.remove()
        self.hooks.clear()
        no_more(self.id)


class Hook:
    """The pair of hooks on one module. They go straight to where ``register_forward_hook`` puts them, under one id for all:
    its handles would take as long as the looking. This runs at every call, so it asks for the usual case first."""

    __slots__ = ("block", "calls", "elsewhere", "module", "path", "posts", "pres")

    def __init__(self, block: Mounted, path: str, module: nn.Module) -> None:
        self.block, self.path, self.calls, self.elsewhere = block, path, 0, False
        self.module: nn.Module | None = module
        self.pres: Hooks = module._forward_pre_hooks  # type: ignore[assignment]  # torch's annotation says less
        self.posts: Hooks = module._forward_hooks  # type: ignore[assignment]  # as above
        block.compiled[path] = False
        block.hooks[path] = self  # first, so that an interrupt finds what to take away
        self._install(module, block.id)

    def _install(self, module: nn.Module, own: int) -> None:
        self.pres[own], self.posts[own] = self.before, self.after
        module._forward_pre_hooks_with_kwargs[own] = module._forward_hooks_always_called[own] = True
        if not self.block.last:  # an edit comes before other people's pre-hooks, which then see the edited value
            self.pres.move_to_end(own, last=False)

    def remove(self) -> None:
        module, own = self.module, self.block.id
        assert module is not None
        self.pres.pop(own, None)
        self.posts.pop(own, None)
        module._forward_pre_hooks_with_kwargs.pop(own, None)
        module._forward_hooks_with_kwargs.pop(own, None)
        module._forward_hooks_always_called.pop(own, None)
        self.module = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        return self  # the hooks of a copied model do nothing: they know another module

    def __reduce__(self) -> Any:
        return Inert, ()

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        block = self.block
        if not block.numbers and _compiling():
            block.compiled[self.path] = True  # dynamo keeps this assignment, and runs it with the graph
            return None
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
        if not block.numbers and _compiling():
            return None
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


class Ending(Hook):
    """Only the hook behind a call: it knows no frame, and costs less than the pair."""

    __slots__ = ()

    def _install(self, module: nn.Module, own: int) -> None:
        self.posts[own] = self.end
        module._forward_hooks_with_kwargs[own] = True

    def end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        block = self.block
        if _compiling():
            block.compiled[self.path] = True
            return
        if get_ident() != block.thread or module is not self.module or (_graph_task() != -1 and recomputing()):
            return
        if next(reversed(self.posts), None) != block.id and keep_last(self.posts, block.id):
            if block.missed is not None:  # somebody else may still change this value
                block.missed(self.path)
        elif block.ended is not None:
            block.ended(self.path, module, args, kwargs, output)


class Inert:
    """What a pickled hook comes back as: a model pickled while somebody looks at it loads as a model nobody looks at."""

    def before(self, *_: Any) -> None:
        return None

    after = end = before
