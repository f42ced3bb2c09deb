"""How every noun goes to disk and comes back: its fields as one tree, with the class of record named in the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

from inspector import archive


class Saved:
    """Gives a dataclass record ``.save(path)`` and ``.load(path)``; a record whose fields are records overrides the two
    tree methods."""

    def save(self, path: str | Path) -> Path:
        """Write the record to one file, whole or not at all; returns the path."""
        return archive.save(path, self.to_tree(), kind=type(self).__name__)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved record. Never runs code; raises ArchiveError that says what is wrong with the file."""
        tree = archive.load(path, kind=cls.__name__)
        try:
            return cls.from_tree(tree)
        except (TypeError, LookupError, AttributeError, ValueError) as error:
            raise archive.ArchiveError(f"{path} lacks what a {cls.__name__} holds ({error}); save it again") from error

    def to_tree(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}  # type: ignore[arg-type]  # every heir is a dataclass

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        return cls(**tree)
