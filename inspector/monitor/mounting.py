"""When our hooks are on the modules: only while a step is due, and one instead of two where one tells all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from torch import nn

from inspector.hooks.eager import hook_guards
from inspector.hooks.mounted import Mounted
from inspector.hooks.tap import mount, mount_endings, mount_traced
from inspector.monitor.ingraph import InGraph
from inspector.monitor.passing import Passing
from inspector.monitor.unseen import Unseen


class Mounting:
    """``for_step`` puts on, leaves on or takes off what a step needs; ``for_graph`` is for a compiled model, whose hooks
    stay on to the end."""

    def __init__(self, chosen: Mapping[str, nn.Module], passing: Passing) -> None:
        self.chosen, self.passing = chosen, passing
        self.stack: ExitStack | None = None
        self.blocks: list[Mounted] = []
        self.briefly = False  # are the hooks that are on those of a step without samples?
        self.unseen = Unseen()

    def for_graph(self, graph: InGraph) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(hook_guards())
        self.stack.enter_context(mount_traced(self.chosen, graph.hooks()))

    def for_step(self, *, due: bool, sampling: bool) -> None:
        briefly = not sampling and not self.passing.grads
        if not due or briefly != self.briefly or self.passing.missed_some:
            self.close()
        if due and self.stack is None:
            self._mount(briefly)

    def _mount(self, briefly: bool) -> None:
        """Where it is known how a module treats its inputs, one hook is enough while nothing but outputs is looked at."""
        self.briefly, self.stack, self.passing.missed_some = briefly, ExitStack(), False
        readers = self.passing.readers if briefly else {}
        chosen = {path: module for path, module in self.chosen.items() if path not in self.unseen.inside}
        pairs = {path: module for path, module in chosen.items() if not readers.get(path)}
        self.blocks = [self.stack.enter_context(mount(pairs, enter=self.passing.enter, leave=self.passing.leave))]
        if readers:
            brief = {path: module for path, module in chosen.items() if readers.get(path)}
            self.blocks.append(self.stack.enter_context(mount_endings(brief, self.passing.ended, self.passing.missed)))

    def say_what_was_unseen(self) -> None:
        """At the end of a step that was due and eager."""
        if self.stack is None:
            return
        if self.unseen.compiled([block.compiled for block in self.blocks]):
            self.close()
        if not self.unseen.inside:
            self.unseen.step(calls=self.passing.ran, transformed=self.passing.transformed)

    def close(self) -> None:
        """Take all hooks away."""
        if self.stack is not None:
            stack, self.stack = self.stack, None
            stack.close()
