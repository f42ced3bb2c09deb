"""Calls that a capture has seen and the Store does not hold yet. While the model runs, a call leaves no more than its frame
here: making records of it then would take as long as copying its values."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from inspector.hooks.frame import Frame
from inspector.records.store import Call
from inspector.sites import Kind, Site


class Noted:
    """types: path -> name of the module's class."""

    def __init__(self, kinds: tuple[Kind, ...], types: Mapping[str, str]) -> None:
        self.kinds, self.types = kinds, types
        self.frames: deque[Frame] = deque()

    def take(self) -> list[Call]:
        """The calls that began since it was asked last, in that order; a frame that still runs knows its own by then."""
        calls = []
        while self.frames:
            calls.append(self._call(self.frames.popleft()))
        return calls

    def _call(self, frame: Frame) -> Call:
        path, parent = frame.path, frame.parent
        call = Call(Site(path, frame.index), self.types[path], self.kinds, None if parent is None else parent.path)
        if frame.noted is not None:
            call.values, call.ended = frame.noted, True
        frame.scratch = call
        return call
