"""What can be wrong with a training run: each rule is a function History -> findings, and RULES is the table of them.

A rule looks at what was measured and nothing else, so it also works on a run that was loaded. The order is the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inspector.monitor.rules.numbers import nan
from inspector.records.history import Finding, History

Rule = Callable[[History], Iterable[Finding]]

RULES: dict[str, Rule] = {
    "nan": nan,
}

__all__ = ["RULES", "Rule"]
