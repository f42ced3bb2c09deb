"""The training monitor: statistics that cost next to nothing, of the gradients that are applied, and what is wrong."""

from inspector.monitor.monitor import Monitor
from inspector.monitor.rules import RULES, Rule
from inspector.monitor.sinks import Sink, csv, tensorboard, wandb

__all__ = ["RULES", "Monitor", "Rule", "Sink", "csv", "tensorboard", "wandb"]
