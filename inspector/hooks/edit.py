"""Replace a value at a site while a block runs: ablate it, patch it in from another run, steer it.

An edit comes before other people's hooks and before every capture, so they all see what the next module receives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from inspector.hooks.attention_edit import AttentionEdit, forget_edited
from inspector.hooks.eager import eager
from inspector.hooks.frame import Frame
from inspector.hooks.parameters import named_inputs
from inspector.hooks.recompute import checkpointing, repeated
from inspector.hooks.select import find, select
from inspector.hooks.tap import mount
from inspector.sites import Site
from inspector.tensors import Inputs, Leaf, Placeholder, format_leaf, only_tensor, pick, rebuild, shape_text

Change = Tensor | Callable[[Tensor], Tensor]


@contextmanager
def edit(model: nn.Module, changes: Mapping[str | Site, Change]) -> Iterator[None]:
    """Change the values at the given sites while the block runs; types, nesting and the autograd graph are kept.

    changes: site -> a tensor (broadcast to the value's shape), or a function of the tensor. A site without a call
    changes every call; calls are counted within each outermost run of the model. Kinds: output, input, and attention
    (weights before dropout, on the graph; the attention is then computed from what they are changed to, unfused).
    Raises LookupError for an unknown module or leaf, ValueError for another shape, RuntimeError where a named call never
    came, or where an edited call was checkpointed and its backward has not run when the block ends.

    >>> from torch import nn, ones
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with edit(model, {"1": lambda value: 0 * value}):
    ...     print(model(ones(1, 2)).sum().item())
    0.0
    """
    editor = _Editor(model, {Site.parse(site): change for site, change in changes.items()})
    with eager(), mount(editor.modules, enter=editor.enter, leave=editor.leave, last=False, numbers=True):
        try:
            yield
        finally:
            editor.close()
    editor.check()


class _Editor:
    def __init__(self, model: nn.Module, changes: dict[Site, Change]) -> None:
        if not changes:
            raise ValueError("changes is empty: give at least one site and what to put there")
        self.modules = select(model, "")
        self.root = id(self.modules[""])
        self.changes = [(self._known(model, site), change) for site, change in changes.items()]
        self.counts: dict[str, int] = {}
        self.depth = 0
        self.applied: set[Site] = set()
        self.regions: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()  # checkpointed, with what waits in them
        self.pending: list[set[str]] = []  # edited calls of each outermost region, which wait for its backward
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

    def enter(self, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        frame.scratch = self._index(frame)
        if frame.scratch is None:
            return None
        self._edit_attention(frame, (args, kwargs))
        wanted = [(site, change) for site, change in self._for(frame) if site.kind == "input"]
        if not wanted:
            return None
        inputs = named_inputs(frame.module, args, kwargs)
        for site, change in wanted:
            inputs = self._changed(inputs, site, change, frame)
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
            output = self._changed(output, site, change, frame)
        return output

    def _edit_attention(self, frame: Frame, inputs: Any) -> None:
        name = f"{frame.path or '(model)'}:attention"
        wanted = [(site, change) for site, change in self._for(frame) if site.kind == "attention"]
        if not wanted:
            return
        self.applied.update(site for site, _ in wanted)
        self._note_checkpoint(frame)
        changes = [(site.leaf, partial(_replace, change=change, name=name)) for site, change in wanted]
        frame.facets = AttentionEdit(name, frame.module, changes)
        frame.facets.begin(inputs)
        self.attending.add(frame.facets)

    def close(self) -> None:
        """Also where an interrupt ended calls without their end."""
        for attention in self.attending:
            attention.take_out()
        forget_edited()

    def check(self) -> None:
        """After the block: nothing that was asked for may have been skipped in silence."""
        if waiting := set().union(*self.pending):
            raise RuntimeError(
                "edited calls were checkpointed and their backward has not run inside the block: "
                f"{', '.join(sorted(waiting))}; it would recompute them without the edit and give wrong gradients. "
                "Call backward inside the block"
            )
        for site, _ in self.changes:
            if site.call is not None and site not in self.applied and self.seen.get(site.path):
                raise RuntimeError(
                    f"{site} was never edited: {site.path!r} ran {self.seen[site.path]} times in one run, counted from 0"
                )

    def _index(self, frame: Frame) -> int | None:
        """The call's number within the outermost run of the model; None where it repeats a call that was not edited."""
        if frame.again:
            return self._repeated(frame)
        if id(frame.module) == self.root:
            if not self.depth:
                self.counts.clear()
            self.depth += 1
        index = self.counts.get(frame.path, 0)
        self.counts[frame.path] = index + 1
        self.seen[frame.path] = max(self.seen.get(frame.path, 0), index + 1)
        return index

    def _repeated(self, frame: Frame) -> int | None:
        waiting = [self.regions[region] for region in repeated() if region in self.regions]
        if not waiting:  # made before the block, or by a call that no edit is for
            return None
        for paths in waiting:
            paths.clear()
        if self.counts.get(frame.path, 0) > 1 and any(s.path == frame.path and s.call is not None for s, _ in self.changes):
            raise RuntimeError(
                f"checkpointing recomputes {frame.path!r}, which ran several times, and which call this is cannot be known; "
                f"edit every call ({frame.path!r} without @) or switch checkpointing off"
            )
        return 0

    def _for(self, frame: Frame) -> list[tuple[Site, Change]]:
        if frame.scratch is None:
            return []
        return [(s, c) for s, c in self.changes if s.path == frame.path and s.call in (None, frame.scratch)]

    def _changed(self, value: Any, site: Site, change: Change, frame: Frame) -> Any:
        name = f"{frame.path or '(model)'}:{site.kind}"
        self.applied.add(site)
        self._note_checkpoint(frame)
        target = _leaf_of(value, site, name)
        return rebuild(value, lambda leaf, tensor: _replace(tensor, change, name) if leaf == target else tensor)

    def _note_checkpoint(self, frame: Frame) -> None:
        around = [] if frame.again else checkpointing()
        if not around:
            return
        waiting = self.regions.get(around[-1])
        if waiting is None:
            waiting = set()
            self.pending = [*filter(None, self.pending), waiting]
        waiting.add(frame.path)
        self.regions.update(dict.fromkeys(around, waiting))


def _leaf_of(value: Any, site: Site, name: str) -> Leaf:
    """The leaf in the value's own keys: a position among named inputs becomes a name."""
    part = pick(value, site.leaf)
    tensor = only_tensor(part, f"{name}{format_leaf(site.leaf)}")
    found: list[Leaf] = []
    rebuild(value, lambda leaf, t: found.append(leaf) if t is tensor and _under(leaf, site.leaf, value) else None)
    return found[0]


def _under(leaf: Leaf, wanted: Leaf, value: Any) -> bool:
    """Tell apart two leaves that hold the same tensor."""
    if isinstance(value, Inputs) and wanted and isinstance(wanted[0], int):
        wanted = (list(value)[wanted[0]], *wanted[1:])
    return leaf[: len(wanted)] == wanted


def _replace(tensor: Tensor, change: Change, name: str) -> Tensor:
    new: Any = change if isinstance(change, Tensor) else change(tensor)
    if isinstance(new, Placeholder):
        new = new.read()
    if not isinstance(new, Tensor):
        raise TypeError(f"the edit at {name} answered with {type(new).__name__}; it must answer with a tensor")
    if new.shape != tensor.shape:
        try:
            new = new.expand(tensor.shape)
        except RuntimeError:
            raise ValueError(
                f"the edit at {name} has shape {shape_text(new)}, the value there has {shape_text(tensor)}; "
                "give one that broadcasts"
            ) from None
    fitted: Tensor = new.to(device=tensor.device, dtype=tensor.dtype)
    return fitted
