"""Metrics: attributions -> Scores, Comparison. Which explanation can be believed, and by how much.

A metric is a function of a model and an attribution that gives one number a sample; METRICS is the table of them.
"""

from inspector.metrics.agreement import AGREEMENT, agreement
from inspector.metrics.blame import Blame, blame
from inspector.metrics.comparing import compare
from inspector.metrics.scoring import score
from inspector.metrics.table import METRICS, Metric

__all__ = ["AGREEMENT", "METRICS", "Blame", "Metric", "agreement", "blame", "compare", "score"]
