"""The sink that fills a Store. It sees every call, keeps what ``keep`` says, and notes why anything is missing."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from inspector.hooks.coverage import cover, missing
from inspector.hooks.frame import Frame
from inspector.hooks.gradients import Gradients, Place, why_no_gradient
from inspector.hooks.keep import Arriving, Keep, off_graph, snapshot
from inspector.hooks.mounted import Mounted
from inspector.hooks.noted import Noted
from inspector.hooks.refusals import refuse_model
from inspector.hooks.scaled import label, listening
from inspector.hooks.select import Where, aliases, choose, names, unwrap
from inspector.hooks.tap import tapped
from inspector.provenance import provenance
from inspector.records.store import Call, Store
from inspector.sites import Kind, Site, as_kinds
from inspector.tensors import Inputs, Leaf, Placeholder, format_leaf, nbytes, rebuild, walk

DROPPED = "dropped by keep="
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@contextmanager
def capture(
    model: nn.Module,
    where: Where = "*",
    *,
    what: Kind | Iterable[Kind] = "output",
    keep: Keep = snapshot,
    budget: int | str | None = None,
) -> Iterator[Store]:
    """Record what passes the chosen modules while the block runs; the model's own run is bit for bit the same.

    where: see ``select``. what: one kind or several of "output", "input", "grad", "grad_input", "attention", "gates".
    keep: what is stored of each tensor: snapshot, borrow, live, offload, or a function of a tensor (None drops it; what it
    answers is taken off the graph).
    budget: bytes, as a number or like "2 GiB"; exceeding it raises MemoryError that names the largest sites.
    "grad" is the sum over the backward passes inside the block; "grad_input" is the whole gradient of the tensor that
    came in, over all its uses. Compiled models run eagerly inside. Raises LookupError where nothing is chosen.

    >>> from torch import nn, ones
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with capture(model, "*", what=("output", "grad")) as store:
    ...     model(ones(1, 2)).sum().backward()
    >>> list(store), store["1"].grad
    (['', '0', '1'], tensor([[1., 1., 1.]]))
    """
    refuse_model(model)
    named = names(model)
    chosen = choose(model, named, where)
    recorder = _Recorder(model, named, chosen, as_kinds(what), keep, _bytes(budget))
    scaling: AbstractContextManager[list[Tensor]] = listening() if recorder.wants_gradients else nullcontext([])
    tapping = tapped(
        chosen,
        recorder.see,
        recorder.kinds,
        gradients=recorder.gradients,
        began=recorder.noted.frames.append,
        begin=recorder.begin,
        end=recorder.end,
        lacks=recorder.lacks,
        only=recorder.only_output,
    )
    with scaling as scales, tapping as mounted:
        recorder.follow(mounted)
        try:
            yield recorder.store
        finally:
            recorder.finish(mounted, label(scales))


class Slot(Placeholder):
    """Where a gradient will be; passes add up."""

    __slots__ = ("passes", "reason", "value")

    def __init__(self, reason: str | None) -> None:
        self.value: Any = None
        self.reason, self.passes = reason, 0

    def read(self) -> Any:
        return self.value.read() if isinstance(self.value, Placeholder) else self.value

    def add(self, kept: Any) -> None:
        self.passes += 1
        self.value = kept if self.passes == 1 else _sum(self.read(), kept)


class _Recorder:
    def __init__(
        self,
        model: nn.Module,
        named: dict[str, nn.Module],
        chosen: dict[str, nn.Module],
        kinds: tuple[Kind, ...],
        keep: Keep,
        budget: int | None,
    ) -> None:
        self.model, self.named, self.chosen, self.kinds, self.budget = model, named, chosen, kinds, budget
        self.keep = off_graph(keep)
        self.types = {path: type(module).__name__ for path, module in chosen.items()}
        self.noted = Noted(kinds, self.types)
        self.store = Store(kinds, aliases=aliases(named, chosen), model=type(unwrap(model)).__qualname__)
        self.store.coming = self.noted.take
        origin = weakref.ref(model)  # a Store must not keep the model alive
        self.store.origin_of = lambda: provenance(there) if (there := origin()) is not None else {}
        self.wants_gradients = bool({"grad", "grad_input"} & set(kinds))
        self.gradients = Gradients()
        self.expected: dict[tuple[str, int, str], dict[Leaf, Slot]] = {}
        self.sizes: dict[str, int] = {}
        self.total = 0

    def follow(self, mounted: Mounted) -> None:
        self.store.coverage_of = lambda: cover(self.types, mounted.calls, self._missing(mounted), self.store)

    def _missing(self, mounted: Mounted) -> dict[str, str]:
        return missing(self.model, self.chosen, self.named, mounted)

    def begin(self, frame: Frame, inputs: Inputs | None) -> None:
        if "grad_input" in self.kinds:
            self._expect(frame, "grad_input", inputs, {})

    def end(self, frame: Frame, output: Any) -> None:
        if frame.raised is not None:
            call = self._call(frame)
            call.ended = True
            call.why.update(dict.fromkeys(self.kinds, f"the call raised {type(frame.raised).__name__}"))
            return
        if "grad" in self.kinds:
            self._expect(frame, "grad", output, frame.given)
        self._call(frame).ended = True

    def only_output(self, frame: Frame, output: Any) -> None:
        """``end`` and ``see`` at once, and at once done where a plain tensor came out."""
        if frame.again:
            return
        if isinstance(output, Tensor):
            frame.noted = {"output": (kept := self.keep(output))}
            if kept is None or self.budget is not None:
                self._weigh(kept, frame, "output", ())
        elif frame.raised is not None:
            self.end(frame, output)
        else:
            self.see(frame, "output", (), output)

    def lacks(self, frame: Frame, kind: Kind, why: str) -> None:
        self._call(frame).why[kind] = why

    def see(self, frame: Frame, kind: Kind, leaf: Leaf, value: Any) -> None:
        if kind == "grad" or kind == "grad_input":
            self.expected[frame.path, frame.index, kind][leaf].add(self._kept(value, frame, kind, leaf))
            return
        if isinstance(value, Tensor):
            kept = self.keep(value)
            if kept is None or self.budget is not None:
                self._weigh(kept, frame, kind, leaf)
        else:
            kept = rebuild(value, lambda at, tensor: self._kept(tensor, frame, kind, at))
        if frame.scratch is None and kind == "output":
            frame.noted = {"output": kept}
        else:
            self._call(frame).values[kind] = kept

    def _call(self, frame: Frame) -> Call:
        if frame.scratch is None:
            self.store.take()
        return frame.scratch  # type: ignore[no-any-return]  # what Noted puts there

    def _expect(self, frame: Frame, kind: Kind, value: Any, given: dict[int, int]) -> None:
        """Lay out the nesting of the gradients to come, each leaf with the reason why it may stay empty."""
        call = self._call(frame)
        tensors: list[tuple[Leaf, Tensor]] = [((), value)] if isinstance(value, Tensor) else list(walk(value))
        slots = {leaf: Slot(why_no_gradient(t)) for leaf, t in tensors}
        self.expected[frame.path, frame.index, kind] = slots
        call.values[kind] = slots[()] if () in slots else rebuild(value, lambda leaf, _: slots[leaf])
        shared = given and [format_leaf(leaf) for leaf, t in tensors if given.get(id(t)) == _version(t)]
        if shared:
            where = " at " * any(shared) + ", ".join(filter(None, shared))
            call.why[kind] = f"shared with the input: the whole gradient of that tensor{where}"

    def _kept(self, tensor: Tensor, frame: Frame, kind: Kind, leaf: Leaf) -> Any:
        kept = self.keep(tensor)
        if kept is None or self.budget is not None:
            self._weigh(kept, frame, kind, leaf)
        return kept

    def _weigh(self, kept: Any, frame: Frame, kind: Kind, leaf: Leaf) -> None:
        """Note what was dropped, and what is held against the budget."""
        if kept is None:
            self.store.by_path[frame.path][frame.index].why[kind] = DROPPED
        elif self.budget is not None:
            site, size = str(Site(frame.path, frame.index, kind, leaf)), _size(kept)
            self.total += size
            self.sizes[site] = self.sizes.get(site, 0) + size
            if self.total > self.budget:
                raise MemoryError(self._over_budget())

    def _over_budget(self) -> str:
        largest = sorted(self.sizes.items(), key=lambda item: -item[1])[:5]
        shown = ", ".join(f"{site} {size:,} B" for site, size in largest)
        return (
            f"the capture holds {self.total:,} bytes, over its budget of {self.budget:,}; the largest are {shown}. "
            "Choose fewer modules (where=), keep less of each (keep=), or raise budget="
        )

    def finish(self, mounted: Mounted, scaled: str | None) -> None:
        """Say for every gradient that did not come why, and let go of the model."""
        for (path, index, kind), slots in self.expected.items():
            empty = [(leaf, slot) for leaf, slot in slots.items() if slot.value is None]
            reasons = {format_leaf(leaf): self._reason((path, index, kind, leaf), slot) for leaf, slot in empty}
            why = self.store.by_path[path][index].why
            if reasons:
                why[kind] = _joined(reasons, len(slots))
            if scaled is not None and len(empty) < len(slots):
                why[kind] = "; ".join(filter(None, [why.get(kind), scaled]))
        self.expected.clear()
        types, calls, reasons, store = self.types, mounted.calls, self._missing(mounted), weakref.proxy(self.store)
        self.store.coverage_of = lambda: cover(types, calls, reasons, store)  # a table that few ask for

    def _reason(self, place: Place, slot: Slot) -> str:
        if place in self.gradients.why:
            return self.gradients.why[place]
        if slot.passes:
            return DROPPED
        if slot.reason is not None:
            return slot.reason
        return "not reached by the loss" if self.gradients.arrived else "backward did not run inside the block"


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _joined(reasons: dict[str, str], leaves: int) -> str:
    if len(set(reasons.values())) == 1 and len(reasons) == leaves:
        return next(iter(reasons.values()))
    return "; ".join(f"{leaf} {reason}" for leaf, reason in reasons.items())


def _sum(one: Any, other: Any) -> Any:
    other = other.read() if isinstance(other, Placeholder) else other
    return one if other is None else other if one is None else one + other


def _size(kept: Any) -> int:
    if isinstance(kept, Arriving):
        return nbytes(kept.tensor)
    return nbytes(kept) if isinstance(kept, Tensor) else 0


def _bytes(budget: int | str | None) -> int | None:
    if budget is None or isinstance(budget, int):
        return budget
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", budget)
    if not match or match[2].lower() not in _UNITS:
        raise ValueError(f"budget={budget!r} is no size; write bytes as a number, or like '500 MB' or '2 GiB'")
    return int(float(match[1]) * _UNITS[match[2].lower()])
