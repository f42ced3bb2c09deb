"""Runs the rules while training goes on, and says each thing once: a finding is new when it was not there before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from inspector.records.history import Finding, History

Rules = Mapping[str, Callable[[History], Iterable[Finding]]]

WINDOW = 96  # measured steps that the rules look back on
_OF_THE_RUN = frozenset(("exploding", "loss_spike", "vanishing", "massive", "update_ratio"))
_GONE = 20  # looks in a row without it until a finding may come again: what comes and goes is told once


class Diagnosis:
    """All findings so far, and which of them still hold."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.found: list[Finding] = []
        self.fresh: list[Finding] = []
        self.missing: dict[tuple[str, str], int] = {}  # what is known -> looks in a row without it

    def look(self, history: History) -> list[Finding]:
        """The findings that are new in this history; also kept in ``fresh`` until they are taken."""
        with np.errstate(all="ignore"):
            now = {_key(f): f for rule in self.rules.values() for f in rule(history)}
        new = [finding for key, finding in now.items() if key not in self.missing]
        for key in list(self.missing):
            self.missing[key] = 0 if key in now else self.missing[key] + 1
            if self.missing[key] >= _GONE and key[0] != "nan":
                del self.missing[key]
        self.missing |= dict.fromkeys(now, 0)
        self.found += new
        self.fresh += new
        return new

    def take(self) -> list[Finding]:
        fresh, self.fresh = self.fresh, []
        return fresh

    def ranked(self) -> list[Finding]:
        """In the order of the rules, each by step."""
        rank = {name: i for i, name in enumerate(self.rules)}
        return sorted(self.found, key=lambda f: (rank.get(f.rule, len(rank)), f.step))


def _key(finding: Finding) -> tuple[str, str]:
    """What makes two findings the same one; of the whole run's, where it is worst may change from look to look, and too
    much is another thing than too little."""
    side = ">" if finding.value > finding.threshold else "<"
    return (finding.rule, side if finding.rule in _OF_THE_RUN else finding.name)


def as_rules(rules: Rules | Iterable[Callable[[History], Iterable[Finding]]]) -> Rules:
    """A table of rules from a table or from functions; {} means none."""
    if isinstance(rules, Mapping):
        return rules
    return {getattr(rule, "__name__", f"rule{i}"): rule for i, rule in enumerate(rules)}
