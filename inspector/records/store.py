"""Store: what passed through the modules of a model, call by call, in run order."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from inspector.archive import writable
from inspector.records.coverage import Coverage
from inspector.records.html import as_html
from inspector.records.saved import Saved
from inspector.records.tables import table
from inspector.sites import KINDS, Kind, Site, key
from inspector.tensors import (
    Placeholder,
    digest,
    dtype_text,
    nbytes,
    only_tensor,
    pick,
    rebuild,
    shape_text,
    type_text,
    walk,
)

SHOWN = 200


class NotCapturedError(AttributeError, LookupError):
    """A kind of value that this capture was not asked for: not absent, only unasked."""


class Call(Saved):
    """One call of one module. ``output``, ``input``, ``grad``, ``grad_input``, ``attention`` and ``gates`` nest as the
    module nests them; a kind that was not asked for raises with the cure, and None stands only where ``why`` says so."""

    def __init__(self, site: Site, module: str, kinds: tuple[Kind, ...], parent: str | None = None) -> None:
        self.site, self.module, self.kinds, self.parent = site, module, kinds, parent
        self.values: dict[str, Any] = {}
        self.why: dict[str, str] = {}  # kind -> why there is no value, or what to know about it
        self.ended = False

    def __getattr__(self, name: str) -> Any:
        if name not in KINDS:
            raise AttributeError(f"a Call has no {name!r}; it has {', '.join(KINDS)}")
        kinds = self.__dict__.get("kinds", ())
        if name not in kinds:
            more = ", ".join(repr(kind) for kind in (*kinds, name))
            raise NotCapturedError(f"{name} was not captured at {self.site}; ask for it: capture(model, ..., what=({more}))")
        return rebuild(self.values.get(name), lambda _, t: t.read() if isinstance(t, Placeholder) else t)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.kinds]

    def __repr__(self) -> str:
        lines = [f"{self.site} ({self.module})"]
        for kind in self.kinds:
            lines += [f"  {row[0]}: {' '.join(cell for cell in row[1:] if cell)}" for row in self.rows(kind)]
        return "\n".join(lines)

    def rows(self, kind: Kind, site: Site | None = None) -> list[list[str]]:
        """One row of text per tensor: address, shape, dtype, bytes, digest; one with the reason where there is none."""
        site = (site or self.site)._replace(kind=kind)
        try:
            value = getattr(self, kind)
        except RuntimeError as error:  # a borrowed value that was overwritten
            return [[str(site), "", "", "", str(error)]]
        rows = [_tensor_row(site._replace(leaf=leaf), tensor) for leaf, tensor in walk(value)]
        return rows or [[str(site), "", "", "", self.reason(kind, value)]]

    def has_no(self, kind: Kind) -> bool:
        """True for attention and gates of a module that has none by its nature; coverage says so, tables leave it out."""
        return kind in ("attention", "gates") and self.ended and self.values.get(kind) is None

    def reason(self, kind: str, value: Any = None) -> str:
        """Why there is no tensor of this kind."""
        if kind not in self.values and not self.ended:
            return "the call has not ended"
        return self.why.get(kind, f"no tensor but {type_text(value)}")

    def to_tree(self) -> dict[str, Any]:
        head = {"site": [self.site.path, self.site.call], "module": self.module, "kinds": self.kinds, "parent": self.parent}
        values = {kind: rebuild(getattr(self, kind), lambda _, t: t, other=writable) for kind in self.kinds}
        return head | {"values": values, "why": self.why}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Call:
        call = cls(Site(*tree["site"]), tree["module"], tuple(tree["kinds"]), tree["parent"])
        call.values, call.why, call.ended = tree["values"], tree["why"], True
        return call

    _repr_html_ = as_html


class Store(Saved, Mapping[str, Call]):
    """Calls in run order; keys are ``relu`` where a module ran once and ``relu@0``, ``relu@1`` where it ran more often.

    >>> # store["lstm"].output, store.at("lstm:output[0]"), store.all("relu"), store.coverage
    """

    def __init__(self, kinds: tuple[Kind, ...], *, aliases: Mapping[str, str] | None = None, model: str = "") -> None:
        self.kinds, self.model = kinds, model
        self.aliases = dict(aliases or {})  # other names of a shared module -> the name its calls are kept under
        self.origin_of: Any = dict  # the model's class, checksum and versions, worked out when the store is saved
        self.coming: Callable[[], Iterable[Call]] = tuple  # calls that its maker has seen since it was asked last
        self._by_path: dict[str, list[Call]] = {}
        self._order: list[Call] = []
        self.coverage_of: Any = lambda: Coverage({})

    def add(self, call: Call) -> Call:
        """Take in the next call (makers only)."""
        self._by_path.setdefault(call.site.path, []).append(call)
        self._order.append(call)
        return call

    def take(self) -> None:
        """Take in the calls that have come."""
        for call in self.coming():
            self.add(call)

    @property
    def by_path(self) -> dict[str, list[Call]]:
        """path -> its calls, in order."""
        self.take()
        return self._by_path

    @property
    def order(self) -> list[Call]:
        """Every call, in the order in which they began."""
        self.take()
        return self._order

    @property
    def coverage(self) -> Coverage:
        """For every chosen module how often it ran, and why a value is missing."""
        return self.coverage_of()  # type: ignore[no-any-return]  # set by the maker

    @property
    def origin(self) -> dict[str, Any]:
        """Class, parameter checksum and versions of the model as it is now; of a loaded store, as it was when saved."""
        return self.origin_of()  # type: ignore[no-any-return]  # set by the maker

    def calls(self, path: str) -> list[Call]:
        """Every call of one module, in order; KeyError with near matches where there is none."""
        path = self.aliases.get(path, path)
        if path not in self.by_path:
            raise KeyError(self._unknown(path))
        return self.by_path[path]

    def __getitem__(self, name: str | Site) -> Call:
        return self._one(Site.parse(name))

    def _one(self, site: Site) -> Call:
        calls = self.calls(site.path)
        if site.call is None and len(calls) > 1:
            names = ", ".join(str(call.site) for call in calls[:8]) + (", ..." if len(calls) > 8 else "")
            raise KeyError(f"{site.path!r} ran {len(calls)} times; name one: {names}, or read them with store.all()")
        index = site.call or 0
        for call in calls:
            if call.site.call == index or (site.call is None and len(calls) == 1):
                return call
        raise KeyError(f"{site} did not happen: {site.path!r} ran {len(calls)} times, counted from 0")

    def at(self, site: str | Site) -> Tensor:
        """The one tensor at an address; a value of several tensors without a leaf is refused with its leaves named."""
        site = Site.parse(site)
        return self._tensor(self._one(site), site)

    def all(self, site: str | Site) -> list[Tensor]:
        """The tensor at an address in every call of its module, in order."""
        site = Site.parse(site)
        if site.call is not None:
            return [self.at(site)]
        return [self._tensor(call, site) for call in self.calls(site.path)]

    def _tensor(self, call: Call, site: Site) -> Tensor:
        name = str(site._replace(call=call.site.call))
        value = getattr(call, site.kind)
        if value is None:
            raise LookupError(f"{name} is None: {call.reason(site.kind)}")
        return only_tensor(pick(value, site.leaf), name)

    def __iter__(self) -> Iterator[str]:
        return (self._key(call) for call in self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __contains__(self, name: object) -> bool:
        try:
            self[name]  # type: ignore[index]  # anything may be asked for
        except (LookupError, ValueError, TypeError):
            return False
        return True

    def _key(self, call: Call) -> str:
        several = len(self.by_path[call.site.path]) > 1
        return key(call.site.path, call.site.call if several else None)

    def _short(self, call: Call) -> Site:
        return call.site if len(self.by_path[call.site.path]) > 1 else call.site._replace(call=None)

    def _unknown(self, path: str) -> str:
        reason = self.coverage.get(path)
        if reason is not None:
            return f"{path!r} was chosen but never ran: {reason.reason}"
        near = difflib.get_close_matches(path, [*self.by_path, *self.aliases], n=3)
        hint = f"Did you mean {', '.join(map(repr, near))}?" if near else "Choose it in capture(model, where=...)."
        shown = ", ".join(map(repr, list(self.by_path)[:6]))
        return f"{path!r} was not captured; the store has {len(self.by_path)} modules, such as {shown}. {hint}"

    def __repr__(self) -> str:
        shown = [(call, kind) for call in self.order[:SHOWN] for kind in self.kinds if not call.has_no(kind)]
        rows = [[row[0], call.module, *row[1:]] for call, kind in shown for row in call.rows(kind, self._short(call))]
        lines = [table(["site", "module", "shape", "dtype", "bytes", "values"], rows) if rows else "Store: empty"]
        if len(self.order) > SHOWN:
            lines.append(f"... {SHOWN} of {len(self.order)} calls shown")
        missing = self.coverage.missing
        return "\n".join([*lines, *(f"not captured: {path!r}: {status.reason}" for path, status in missing.items())])

    def to_tree(self) -> dict[str, Any]:
        head = {"kinds": self.kinds, "aliases": self.aliases, "model": self.model, "origin": self.origin}
        return head | {"calls": [call.to_tree() for call in self.order], "coverage": self.coverage.to_tree()}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Store:
        store = cls(tuple(tree["kinds"]), aliases=tree["aliases"], model=tree["model"])
        origin = tree["origin"]
        store.origin_of = lambda: origin
        for saved in tree["calls"]:
            store.add(Call.from_tree(saved))
        coverage = Coverage.from_tree(tree["coverage"])
        store.coverage_of = lambda: coverage
        return store

    _repr_html_ = as_html


def _tensor_row(site: Site, tensor: Tensor) -> list[str]:
    return [str(site) or "(model)", shape_text(tensor), dtype_text(tensor), f"{nbytes(tensor):,}", digest(tensor)]
