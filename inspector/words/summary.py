"""What a summary says: how large, where the parameters and the work are, and what the counts leave out."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.records import Summary
from inspector.records.summary import in_bytes, in_seconds
from inspector.words.say import Say, percent


def tell(s: Summary, say: Say) -> list[str]:
    """Paragraphs: parameters, work, memory and time."""
    return [" ".join(_size(s, say)), " ".join(_work(s, say))]


def _size(s: Summary, say: Say) -> Iterator[str]:
    modules = len({row.name for row in s.rows})
    numbers = {"parameters": f"{s.parameters:,}", "trainable": f"{s.trainable:,}", "modules": f"{modules:,}"}
    yield say("summary.what", model=s.model, **numbers)
    largest = max(s.rows, key=lambda row: row.parameters, default=None)
    if largest is not None and largest.parameters and s.parameters:
        share = percent(largest.parameters / s.parameters)
        name = largest.name or "(model)"
        yield say("summary.largest", name=name, kind=largest.kind, count=f"{largest.parameters:,}", share=share)
    shared = sum(row.shared_with is not None for row in s.rows)
    if shared:
        yield say("summary.shared", count=f"{shared:,}")


def _work(s: Summary, say: Say) -> Iterator[str]:
    if s.multiply_adds is None and s.output_bytes is None and s.seconds is None:
        yield say("summary.not_run")
        return
    if s.multiply_adds:
        most = max(s.rows, key=lambda row: row.multiply_adds or 0)
        share = percent((most.multiply_adds or 0) / s.multiply_adds)
        yield say("summary.work", macs=f"{s.multiply_adds:,}", name=most.name or "(model)", share=share)
    if s.operations is not None and s.operations.skipped:
        skipped = say.listing(f"{name} x{count}" for name, count in s.operations.skipped.items())
        yield say("summary.uncounted", skipped=skipped, counted=s.operations.counted, total=s.operations.total)
    if s.output_bytes is not None and s.saved_bytes is not None:
        yield say("summary.memory", outputs=in_bytes(s.output_bytes), saved=in_bytes(s.saved_bytes))
    if s.seconds is not None:
        yield say("summary.time", seconds=in_seconds(s.seconds))
