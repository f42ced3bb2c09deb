"""Ground truth: tasks whose right answer is known, so that methods and metrics can themselves be judged.

``python -m inspector.metrics.benchmark arma gaussian planted`` prints our numbers beside the published ones.
"""

from inspector.metrics.benchmark.arma import arma
from inspector.metrics.benchmark.gaussian import gaussian
from inspector.metrics.benchmark.planted import planted
from inspector.metrics.benchmark.rows import Row, table_of
from inspector.metrics.benchmark.states import states

__all__ = ["Row", "arma", "gaussian", "planted", "states", "table_of"]
