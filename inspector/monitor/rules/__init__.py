"""What can be wrong with a training run: each rule is a function History -> findings, and RULES is the table of them.

A rule looks at what was measured and nothing else, so it also works on a run that was loaded. The order is the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inspector.monitor.rules.gradients import exploding, loss_spike, skipped, vanishing
from inspector.monitor.rules.numbers import nan
from inspector.monitor.rules.ranges import attention, low_precision, massive
from inspector.monitor.rules.units import dead_relu, dormant, saturated
from inspector.monitor.rules.weights import frozen, poor_initialisation, update_ratio
from inspector.records.history import Finding, History

Rule = Callable[[History], Iterable[Finding]]

RULES: dict[str, Rule] = {
    "nan": nan,
    "exploding": exploding,
    "loss_spike": loss_spike,
    "dead_relu": dead_relu,
    "saturated": saturated,
    "attention": attention,
    "poor_initialisation": poor_initialisation,
    "vanishing": vanishing,
    "frozen": frozen,
    "update_ratio": update_ratio,
    "massive": massive,
    "low_precision": low_precision,
    "skipped": skipped,
    "dormant": dormant,
}

__all__ = ["RULES", "Rule"]
