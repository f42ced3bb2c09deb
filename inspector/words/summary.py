"""What a summary says: how large, where the parameters and the work are, and what the counts leave out."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.records import Summary
from inspector.records.summary import in_bytes, in_seconds
from inspector.words.say import Say


def tell(s: Summary, say: Say) -> list[str]:
    """Paragraphs: parameters, work, memory and time."""
    return [" ".join(_size(s, say)), " ".join(_work(s, say))]


def _size(s: Summary, say: Say) -> Iterator[str]:
    modules = say.of(len({row.name for row in s.rows}), "count.modules")
    key = "nothing" if not s.parameters else "all_trainable" if s.trainable == s.parameters else "what"
    numbers = {"parameters": f"{s.parameters:,}", "trainable": f"{s.trainable:,}"}
    yield say(f"summary.{key}", model=s.model, modules=modules, **numbers)
    largest = max(s.rows, key=lambda row: row.parameters, default=None)
    if largest is not None and largest.parameters and s.parameters:
        share = say.percent(largest.parameters / s.parameters)
        yield say(
            "summary.largest", name=say.module(largest.name), kind=largest.kind, count=f"{largest.parameters:,}", share=share
        )
    shared = sum(row.shared_with is not None for row in s.rows)
    if shared:
        yield say.of(shared, "summary.shared")


def _work(s: Summary, say: Say) -> Iterator[str]:
    if s.multiply_adds is None and s.output_bytes is None and s.seconds is None:
        yield say("summary.not_run")
        return
    if s.multiply_adds:
        most = max(s.rows, key=lambda row: row.multiply_adds or 0)
        share = say.percent((most.multiply_adds or 0) / s.multiply_adds)
        yield say("summary.work", macs=f"{s.multiply_adds:,}", name=say.module(most.name), share=share)
    if s.operations is not None and s.operations.skipped:
        skipped = say.listing(
            say("summary.operation", name=name, count=count) for name, count in s.operations.skipped.items()
        )
        yield say("summary.uncounted", skipped=skipped, counted=s.operations.counted, total=s.operations.total)
    if s.output_bytes is not None and s.saved_bytes is not None:
        yield say("summary.memory", outputs=in_bytes(s.output_bytes), saved=in_bytes(s.saved_bytes))
    if s.seconds is not None:
        yield say("summary.time", seconds=in_seconds(s.seconds))
