"""Replace a value at a site while a block runs: ablate it, patch it in from another run, steer it.

An edit comes before other people's hooks and before every capture, so they all see what the next module receives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from inspector.hooks.attention_edit import AttentionEdit, forget_edited
from inspector.hooks.eager import eager
from inspector.hooks.frame import Frame
from inspector.hooks.parameters import named_inputs
from inspector.hooks.reads import Reads
from inspector.hooks.recompute import checkpointing, regions, repeated
from inspector.hooks.replace import Change, fitted, replaced
from inspector.hooks.replay import Replays
from inspector.hooks.select import find, select
from inspector.hooks.tap import mount
from inspector.sites import Site


@contextmanager
def edit(model: nn.Module, changes: Mapping[str | Site, Change]) -> Iterator[None]:
    """Change the values at the given sites while the block runs; types, nesting and the autograd graph are kept.

    changes: site -> a tensor (broadcast to the value's shape), or a function of the tensor. A site without a call
    changes every call; calls are counted within each outermost run of the model. Kinds: output, input, and attention
    (weights before dropout, on the graph; the attention is then computed from what they are changed to, unfused).
    A function gets a copy of its own, and what it answers with is copied, so neither may be overwritten by the other side.
    Checkpointed calls are edited again when a backward recomputes them, also after the block.
    Raises LookupError for an unknown module or leaf, ValueError for another shape, RuntimeError where a named call never
    came, where all calls were of another thread, or where a backward after the block recomputes a change that reads a name
    which has been set anew.

    >>> from torch import nn, ones
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with edit(model, {"1": lambda value: 0 * value}):
    ...     print(model(ones(1, 2)).sum().item())
    0.0
    """
    editor = _Editor(model, {Site.parse(site): change for site, change in changes.items()})
    with eager(), mount(editor.modules, enter=editor.enter, leave=editor.leave, last=False, numbers=True) as mounted:
        try:
            yield
        finally:
            editor.close()
            elsewhere = mounted.elsewhere
    editor.check(elsewhere)


class _Editor:
    def __init__(self, model: nn.Module, changes: dict[Site, Change]) -> None:
        if not changes:
            raise ValueError("changes is empty: give at least one site and what to put there")
        if next(regions(), None) is not None:  # each recomputation would open it again, inside of its own replay
            raise RuntimeError("edit is opened inside a checkpointed function; open it around the run of the whole model")
        self.modules = select(model, "")
        self.root = id(self.modules[""])
        self.changes = [(self._known(model, site), change) for site, change in changes.items()]
        self.counts: dict[str, int] = {}
        self.depth = 0
        self.applied: set[Site] = set()
        self.paths = {site.path for site, _ in self.changes}
        self.replays = Replays()  # of checkpointed calls
        self.read: list[tuple[Site, Reads]] | None = None  # by the changes, when the block ended
        self.seen: dict[str, int] = {}
        self.attending: set[AttentionEdit] = set()  # calls that run now with edited attention

    def _known(self, model: nn.Module, site: Site) -> Site:
        """The site, a shared module under one of its names; unknown modules and kinds are refused at the door."""
        if site.kind not in ("output", "input", "attention"):
            raise ValueError(f"{site}: edit changes 'output', 'input' and 'attention'; {site.kind!r} is not supported")
        module = find(model, site.path)
        path = next((path for path, other in self.modules.items() if other is module), site.path)
        self.modules[path] = module
        return site._replace(path=path)

    def enter(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any], only: Any = None) -> Any:
        frame.scratch = self._index(frame, only)
        if frame.path not in self.paths or frame.scratch is None:
            return None
        self.replays.note(checkpointing(), frame.path, frame.scratch, self._again)
        self._edit_attention(frame, (args, kwargs))
        wanted = [(site, change) for site, change in self._for(frame) if site.kind == "input"]
        if not wanted:
            return None
        inputs = named_inputs(frame.module, args, kwargs)
        for site, change in wanted:
            inputs = self._changed(inputs, site, change)
        values = list(inputs.values())
        return tuple(values[: len(args)]), dict(list(inputs.items())[len(args) :])

    def leave(self, frame: Frame, output: Any) -> Any:
        if id(frame.module) == self.root and not frame.again:
            self.depth -= 1
        if frame.facets is not None:
            self.attending.discard(frame.facets)
            frame.facets.end(raised=frame.raised is not None)
        wanted = [(site, change) for site, change in self._for(frame) if site.kind == "output"]
        if frame.raised is not None or not wanted:
            return None
        for site, change in wanted:
            output = self._changed(output, site, change)
        return output

    def _edit_attention(self, frame: Frame, inputs: Any) -> None:
        name = f"{frame.path or '(model)'}:attention"
        wanted = [(site, change) for site, change in self._for(frame) if site.kind == "attention"]
        if not wanted:
            return
        self.applied.update(site for site, _ in wanted)
        changes = [(site.leaf, partial(fitted, change=change, name=name)) for site, change in wanted]
        frame.facets = AttentionEdit(name, frame.module, changes)
        frame.facets.begin(inputs)
        self.attending.add(frame.facets)

    def close(self) -> None:
        """Also where an interrupt ended calls without their end."""
        if self.replays:
            self.read = [(site, Reads(change)) for site, change in self.changes]
        self._let_go()

    def _let_go(self, but: Iterable[AttentionEdit] = ()) -> None:
        for attention in self.attending.difference(but):
            attention.take_out()
        forget_edited()

    @contextmanager
    def _again(self, region: Any) -> Iterator[None]:
        """Around a recomputation; while the block is open its own hooks do it."""
        if self.read is None:
            yield
            return
        self._refuse_other_changes()
        attending = set(self.attending)
        enter = partial(self.enter, only=region)
        with eager(), mount(self.modules, enter=enter, leave=self.leave, last=False, numbers=True):
            try:
                yield
            finally:
                self._let_go(but=attending)

    def _refuse_other_changes(self) -> None:
        for site, reads in self.read or ():
            if other := reads.set_anew():
                raise RuntimeError(
                    f"checkpointing recomputes the edit at {site} after its block, and what that reads has been set anew "
                    f"since: {', '.join(other)}. Call backward inside the block, or give the edit a value that stays"
                )

    def check(self, elsewhere: set[str]) -> None:
        """After the block: nothing that was asked for may have been skipped in silence. elsewhere: what ran in another
        thread."""
        for site in [site for site, _ in self.changes if site not in self.applied]:
            if site.path in elsewhere:
                raise RuntimeError(
                    f"{site} was never edited: {site.path or 'the model'!r} ran in another thread only (nn.DataParallel "
                    "runs copies so); open the block in the thread that runs the model"
                )
            if site.call is not None and self.seen.get(site.path):
                raise RuntimeError(
                    f"{site} was never edited: {site.path!r} ran {self.seen[site.path]} times in one run, counted from 0"
                )

    def _index(self, frame: Frame, only: Any) -> int | None:
        """The call's number within the outermost run of the model; None where it repeats a call that was not edited."""
        if frame.again or only is not None:
            return self._repeated(frame.path, only) if frame.path in self.paths else None
        if id(frame.module) == self.root:
            if not self.depth:
                self.counts.clear()
            self.depth += 1
        index = self.counts.get(frame.path, 0)
        self.counts[frame.path] = index + 1
        self.seen[frame.path] = max(self.seen.get(frame.path, 0), index + 1)
        return index

    def _repeated(self, path: str, only: Any) -> int | None:
        region = repeated()
        if region is None or (only is not None and only() is not region.key):
            return None
        calls = self.replays.left(region, path)
        index: int | None = next(calls, None) if calls is not None else None
        if calls is not None and index is None:
            raise RuntimeError(
                f"checkpointing recomputes {path!r} more often than it ran at first, so which call is edited cannot be "
                "known; make the checkpointed function do the same each time, or switch checkpointing off"
            )
        return index

    def _for(self, frame: Frame) -> list[tuple[Site, Change]]:
        if frame.scratch is None:
            return []
        return [(s, c) for s, c in self.changes if s.path == frame.path and s.call in (None, frame.scratch)]

    def _changed(self, value: Any, site: Site, change: Change) -> Any:
        self.applied.add(site)
        return replaced(value, site, change, f"{site.path or '(model)'}:{site.kind}")
