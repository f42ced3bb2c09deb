"""A record in plain words: every number comes from the record, and the doubt is said as plainly as the finding.

The sentences themselves are in ``words.english``; here is only what decides which of them are true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inspector.records import Assessment, Attribution, Comparison
from inspector.words import assessment, attribution, comparison
from inspector.words.english import ENGLISH
from inspector.words.say import Say

_TELLERS: dict[type, Callable[[Any, Say], list[str]]] = {
    Assessment: assessment.tell,
    Attribution: attribution.tell,
    Comparison: comparison.tell,
}


def describe(record: Any, *, words: Mapping[str, str] = ENGLISH) -> str:
    """Short paragraphs about a record. ``words``: the table of sentences, by default the English one; keys that it
    lacks are said in English. Raises TypeError for what there are no words for."""
    kind = next((kind for kind in _TELLERS if isinstance(record, kind)), None)
    if kind is None:
        known = ", ".join(k.__name__ for k in _TELLERS)
        raise TypeError(f"there are no words for a {type(record).__name__}; describe takes {known}")
    return "\n".join(filter(None, _TELLERS[kind](record, Say(words))))
