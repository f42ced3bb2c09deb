"""A record in plain words: every number comes from the record, and the doubt is said as plainly as the finding.

The sentences themselves are in ``words.english``; here is only what decides which of them are true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inspector.records import (
    Assessment,
    Attribution,
    Call,
    Comparison,
    Coverage,
    Curve,
    Finding,
    History,
    Samples,
    Scores,
    Store,
    Summary,
    Task,
)
from inspector.words import assessment, attribution, comparison, history, small, store, summary
from inspector.words.english import ENGLISH
from inspector.words.say import Say

_TELLERS: dict[type, Callable[[Any, Say], list[str]]] = {
    Assessment: assessment.tell,
    Attribution: attribution.tell,
    Call: store.tell_call,
    Comparison: comparison.tell,
    Coverage: small.tell_coverage,
    Curve: small.tell_curve,
    Finding: lambda finding, say: history.tell_findings([finding], say)[1:],
    History: history.tell,
    Samples: small.tell_samples,
    Scores: small.tell_scores,
    Store: store.tell,
    Summary: summary.tell,
    Task: small.tell_task,
}


def describe(record: Any, *, words: Mapping[str, str] = ENGLISH) -> str:
    """Short paragraphs about a record, or a list of findings. ``words``: the table of sentences, by default the English
    one; keys that it lacks are said in English. Raises TypeError for what there are no words for."""
    say = Say(words)
    if isinstance(record, (list, tuple)) and all(isinstance(item, Finding) for item in record):
        return "\n".join(history.tell_findings(record, say))
    kind = next((kind for kind in _TELLERS if isinstance(record, kind)), None)
    if kind is None:
        known = ", ".join(k.__name__ for k in _TELLERS)
        raise TypeError(f"there are no words for a {type(record).__name__}; describe takes {known}")
    return "\n".join(filter(None, _TELLERS[kind](record, say)))
