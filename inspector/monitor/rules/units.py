"""Rules about units: dead rectifiers, dormant units, saturated squashing layers."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.monitor.rules.judge import Held, lasting, of_type
from inspector.records.history import Finding, History


def dead_relu(history: History) -> Iterator[Finding]:
    """More than 70 % of a rectifier's units have not fired once over a window of looks, which is what "dead" counts. Half
    is no sign: deep in a new model biases decide which units fire, and half of them are negative."""
    grid = history.stats.grid("output", "dead")
    for held in lasting(grid, grid.values > 0.7, 1):
        message = f"{100 * held.value:.0f} % of the units of {held.name or 'the model'} never fire"
        advice = "Lower the learning rate, look at the biases, or use a leaky rectifier."
        source = "as AWS SageMaker Debugger's DeadRelu; cs231n: up to 40 % die if the learning rate is too high"
        yield _finding("dead_relu", held, 0.7, message, advice, source)


def dormant(history: History) -> Iterator[Finding]:
    """Four fifths of a rectifier's units do next to nothing compared with the rest, though they are not dead."""
    grid, dead = (history.stats.grid("output", statistic) for statistic in ("dormant", "dead"))
    if grid.values.shape != dead.values.shape:
        return
    for held in lasting(grid, (grid.values > 0.8) & (dead.values <= 0.7), 3):
        message = f"{100 * held.value:.0f} % of the units of {held.name} do less than 2.5 % of the mean unit's work"
        advice = "The layer has lost capacity: reset these units (ReDo), or lower the learning rate."
        yield _finding("dormant", held, 0.8, message, advice, "Sokar et al. 2023, arXiv 2302.12902 (tau 0.025)")


def saturated(history: History) -> Iterator[Finding]:
    """More than half of a tanh's or sigmoid's outputs sit at its ends; the model's last squashing layer may."""
    grid = history.stats.grid("output", "saturated")
    squashing = [name for name in grid.names if name in of_type(history, "Tanh", "Sigmoid")]
    order = history.stats.unique("name") if squashing else []
    inner = {name for name in squashing if not _is_last(name, order, history)}
    for held in lasting(grid, grid.values > 0.5, 2, inner):
        message = (
            f"{100 * held.value:.0f} % of the outputs of {held.name} are at the ends of its range, where no gradient passes"
        )
        advice = "Start from smaller weights, normalise before it, or lower the learning rate."
        yield _finding("saturated", held, 0.5, message, advice, "AWS SageMaker Debugger's SaturatedActivation")


def _is_last(name: str, order: list[str], history: History) -> bool:
    """Does nothing but containers come after it?"""
    after = order[order.index(name) + 1 :]
    return not any(other in history.meta.get("modules", {}) and not name.startswith(other) for other in after)


def _finding(rule: str, held: Held, threshold: float, message: str, advice: str, source: str) -> Finding:
    return Finding(rule, held.name, held.since, held.value, threshold, message, advice, source)
