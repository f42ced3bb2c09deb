"""The address of a value: ``path[@call][:kind][leaf]``, such as ``layer4``, ``relu@1`` or ``lstm:output[0]``.

A path that holds one of ``@ : [ ] '`` is quoted, so that every name a module can have is addressable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, cast, get_args

from inspector.tensors import Leaf, format_leaf

Kind = Literal["output", "input", "grad", "grad_input", "attention", "gates"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_PATH = re.compile(r"'((?:[^'\\]|\\.)*)'|([^@:\[\]']*)")
_CALL = re.compile(r"@(\d+)")
_KIND = re.compile(r":(\w+)")
_LEAF = re.compile(r'\[(?:(-?\d+)|"((?:[^"\\]|\\.)*)"|([^\[\]"]+))\]')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def as_kinds(what: Kind | Iterable[Kind]) -> tuple[Kind, ...]:
    """The kinds asked for, checked, each once and in their own order."""
    asked = (what,) if isinstance(what, str) else tuple(what)
    for kind in asked:
        if kind not in KINDS:
            raise ValueError(f"what={kind!r} is no kind of value; there are {', '.join(map(repr, KINDS))}")
    if not asked:
        raise ValueError("what=() asks for nothing; give at least one kind, such as 'output'")
    return tuple(kind for kind in KINDS if kind in asked)


class Site(NamedTuple):
    """Where a value is: the module's path, which of its calls, which kind of value, and the leaf inside it.

    ``call=None`` means the only call. ``Site.parse(str(site)) == site`` for every site.

    >>> Site.parse("lstm@1:output[0]")
    Site(path='lstm', call=1, kind='output', leaf=(0,))
    >>> str(Site("a:b", call=1))
    "'a:b'@1"
    """

    path: str
    call: int | None = None
    kind: Kind = "output"
    leaf: Leaf = ()

    @classmethod
    def parse(cls, text: str | Site) -> Site:
        """Read an address; a Site is passed through. Raises ValueError that shows the grammar."""
        if isinstance(text, Site):
            return text
        path, rest = _read_path(text)
        call, rest = _read_call(rest)
        kind, rest = _read_kind(rest, text)
        leaf, rest = _read_leaf(rest)
        if rest:
            raise _bad(text, f"{rest!r} is left over")
        return cls(path, call, kind, leaf)

    def __str__(self) -> str:
        call = "" if self.call is None else f"@{self.call}"
        kind = "" if self.kind == "output" and not self.leaf else f":{self.kind}"
        return f"{quote(self.path)}{call}{kind}{format_leaf(self.leaf)}"


def quote(path: str) -> str:
    """A module's path as it is written in an address."""
    if not re.search(r"[@:\[\]']", path):
        return path
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def key(path: str, call: int | None) -> str:
    """The name of one call: ``relu`` or ``relu@1``."""
    return quote(path) if call is None else f"{quote(path)}@{call}"


def _read_path(text: str) -> tuple[str, str]:
    match = _PATH.match(text)
    assert match is not None  # the second alternative matches the empty string
    path = match[2] if match[1] is None else _ESCAPE.sub(r"\1", match[1])
    return path, text[match.end() :]


def _read_call(rest: str) -> tuple[int | None, str]:
    match = _CALL.match(rest)
    return (int(match[1]), rest[match.end() :]) if match else (None, rest)


def _read_kind(rest: str, text: str) -> tuple[Kind, str]:
    match = _KIND.match(rest)
    if not match:
        return "output", rest
    if match[1] not in KINDS:
        raise _bad(text, f"{match[1]!r} is no kind of value; there are {', '.join(KINDS)}")
    return cast(Kind, match[1]), rest[match.end() :]


def _read_leaf(rest: str) -> tuple[Leaf, str]:
    leaf: list[int | str] = []
    while match := _LEAF.match(rest):
        leaf.append(_read_key(match))
        rest = rest[match.end() :]
    return tuple(leaf), rest


def _read_key(match: re.Match[str]) -> int | str:
    index, quoted, name = match.groups()
    if index is not None:
        return int(index)
    return _ESCAPE.sub(r"\1", quoted) if quoted is not None else cast(str, name)


def _bad(text: Any, why: str) -> ValueError:
    return ValueError(
        f"{text!r} is no address: {why}. Write path[@call][:kind][leaf], such as 'relu@1' or 'lstm:output[0]'; "
        "quote a path that holds @ : [ ] like \"'a:b'@1\""
    )
