"""What an answer took: counted pass by pass, and kept in ``Attribution.cost``."""

from __future__ import annotations

import time

from torch import Tensor

from inspector.records import Cost


class Ledger:
    """Counts what an answer takes, pass by pass. failed: the examples of the pass in which an error was raised, or 0."""

    def __init__(self) -> None:
        self.forwards = self.backwards = self.examples = self.failed = 0
        self.since = time.perf_counter()

    def forward(self, examples: int) -> None:
        self.forwards += 1
        self.examples += examples

    def backward(self, _: Tensor) -> None:
        self.backwards += 1

    def cost(self) -> Cost:
        return Cost(self.forwards, self.backwards, self.examples, time.perf_counter() - self.since)
