"""HTML as nested calls: whatever is not already ``Html`` is escaped, so that a hostile name cannot become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

_VOID = {"img", "meta", "link", "br"}


class Html(str):
    """Text that is markup already; only this module and the page's own style and script make it."""

    __slots__ = ()


def text(value: object) -> Html:
    """Any value as harmless text; what UTF-8 or HTML cannot hold is replaced."""
    plain = str(value).replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    return value if isinstance(value, Html) else Html(html.escape(plain))


def tag(name: str, /, *children: object, **attributes: Any) -> Html:
    """``tag("td", "a < b", class_="n")``. None leaves an attribute out, True writes its bare name; ``_`` stands for -."""
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    end = "" if name in _VOID else f"{join(children)}</{name}>"
    return Html(f"<{name}{written}>{end}")


def join(children: Iterable[object]) -> Html:
    return Html("".join(text(child) for child in children))


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'
