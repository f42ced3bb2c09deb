"""Coverage: for each chosen module how often it ran, and why something is missing. Silence is never an answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from inspector.records.html import as_html
from inspector.records.saved import Saved
from inspector.records.tables import table


class Status(NamedTuple):
    """calls: how often the module ran. reason: why it never ran, or None. notes: kind -> what to know about its values."""

    module: str
    calls: int
    reason: str | None = None
    notes: Mapping[str, str] = {}


class Coverage(Saved, Mapping[str, Status]):
    """``coverage["relu"]`` is a Status; ``missing`` are the chosen modules that never ran."""

    def __init__(self, statuses: Mapping[str, Status]) -> None:
        self.statuses = dict(statuses)

    def __getitem__(self, path: str) -> Status:
        return self.statuses[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.statuses)

    def __len__(self) -> int:
        return len(self.statuses)

    @property
    def missing(self) -> dict[str, Status]:
        """The modules that were chosen and never ran, with the reason."""
        return {path: status for path, status in self.items() if not status.calls}

    def __repr__(self) -> str:
        rows = [[path or "(model)", s.module, str(s.calls), "; ".join(_remarks(s))] for path, s in self.items()]
        return table(["module", "type", "calls", "remarks"], rows)

    def to_tree(self) -> dict[str, Any]:
        return {path: tuple(status) for path, status in self.items()}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Coverage:
        return cls({path: Status(*status) for path, status in tree.items()})

    _repr_html_ = as_html


def _remarks(status: Status) -> list[str]:
    return [*([status.reason] if status.reason else []), *(f"{kind}: {note}" for kind, note in status.notes.items())]
