"""Sentences from the table, and numbers as people write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from inspector.words.english import ENGLISH

MOST = 5  # names in one list


class Say:
    """``say("store.empty")`` is the sentence under that key with its fields filled in; whatever is said of records,
    down to a percentage, comes from the one table."""

    def __init__(self, words: Mapping[str, str] = ENGLISH) -> None:
        self.words = {**ENGLISH, **words}

    def __call__(self, key: str, /, **fields: Any) -> str:
        return self.words[key].format(**fields)

    def of(self, count: int, key: str, /, **fields: Any) -> str:
        """The sentence for so many, which is its ``n``: that under ``key.one`` where it is one and the table has it."""
        chosen = f"{key}.one" if count == 1 and f"{key}.one" in self.words else key
        return self(chosen, n=f"{count:,}", **fields)

    def known(self, key: str) -> str:
        """What the table has under a key, or "" where it has nothing."""
        return self.words.get(key, "")

    def listing(self, items: Iterable[object], most: int = MOST) -> str:
        """``a, b and c``; of very many the first ones and how many more there are."""
        words = [str(item) for item in items]
        if len(words) > most:
            words = [*words[: most - 1], self("more", count=f"{len(words) - most + 1:,}")]
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + self("and") + words[-1] if words else ""

    def percent(self, share: float) -> str:
        """A share in percent; very small ones are not rounded to nothing, and no nearly-all to all."""
        if share != share:
            return self("number.undefined")
        text = f"{100 * share:.1f}%"
        if text == "0.0%" and share > 0:
            return self("number.least")
        return self("number.most") if text == "100.0%" and share < 1 else text

    def figure(self, value: float) -> str:
        """Three digits."""
        return self("number.broken") if value != value else f"{value:.3g}"

    def interval(self, low: float, high: float) -> str:
        return self("interval", low=self.figure(low), high=self.figure(high))

    def module(self, name: str) -> str:
        """A module by its path; the model itself has none."""
        return name or self("model")


def ended(text: str) -> str:
    """A sentence of the record's own, with the stop that it may lack."""
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."
