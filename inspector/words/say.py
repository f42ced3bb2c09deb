"""Sentences from the table, and numbers as people write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inspector.words.english import ENGLISH

MOST = 5  # names in one list


class Say:
    """``say("store.empty")`` is the sentence under that key with its fields filled in."""

    def __init__(self, words: Mapping[str, str] = ENGLISH) -> None:
        self.words = {**ENGLISH, **words}

    def __call__(self, key: str, /, **fields: Any) -> str:
        return self.words[key].format(**fields)

    def listing(self, items: Iterable[object], most: int = MOST) -> str:
        """``a, b and c``; of very many the first ones and how many more there are."""
        words = [str(item) for item in items]
        if len(words) > most:
            words = [*words[: most - 1], self("more", count=f"{len(words) - most + 1:,}")]
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + self("and") + words[-1] if words else ""


def percent(share: float) -> str:
    """A share in percent; very small ones are not rounded to nothing, and no nearly-all to all."""
    if share != share:
        return "not defined"
    text = f"{100 * share:.1f}%"
    if text == "0.0%" and share > 0:
        return "less than 0.1%"
    return "more than 99.9%" if text == "100.0%" and share < 1 else text


def figure(value: float) -> str:
    """Three digits."""
    return "not a number" if value != value else f"{value:.3g}"


def plural(count: int) -> str:
    return "" if count == 1 else "s"
