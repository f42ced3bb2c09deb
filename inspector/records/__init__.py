"""The waist: all nouns with their reprs. Makers write them, viewers read them, and neither imports the other."""

from inspector.records.assessment import Assessment, Disparity
from inspector.records.attribution import Attribution, Cost
from inspector.records.comparison import Comparison
from inspector.records.coverage import Coverage, Status
from inspector.records.history import Finding, History, Stats
from inspector.records.samples import Samples, Task, as_samples
from inspector.records.scores import Curve, Scores
from inspector.records.store import Call, NotCapturedError, Store
from inspector.records.summary import Row, Summary

__all__ = [
    "Assessment",
    "Attribution",
    "Call",
    "Comparison",
    "Cost",
    "Coverage",
    "Curve",
    "Disparity",
    "Finding",
    "History",
    "NotCapturedError",
    "Row",
    "Samples",
    "Scores",
    "Stats",
    "Status",
    "Store",
    "Summary",
    "Task",
    "as_samples",
]
