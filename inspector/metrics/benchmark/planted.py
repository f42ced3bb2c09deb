"""Which methods find evidence that was planted, for each reference architecture: patches in images for the CNN, motifs in
time series for the LSTM, sentiment words in sentences for the attention model. All three come trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inspector import models
from inspector.metrics.comparing import compare
from inspector.models import tasks
from inspector.records import Comparison, Task

TASKS: dict[str, Callable[[], Task]] = {
    "patches": tasks.planted_patches,
    "steps": tasks.planted_steps,
    "words": tasks.planted_words,
}
METHODS = ("saliency", "input_x_gradient", "integrated_gradients", "occlusion", "grad_cam")
METRICS = ("auroc", "auprc", "relevance_mass", "pointing_game", "deletion_gap")


def planted(
    names: tuple[str, ...] = ("patches", "steps", "words"),
    *,
    samples: int = 64,
    methods: Any = METHODS,
    metrics: Any = METRICS,
    progress: Any = None,
) -> dict[str, Comparison]:
    """One comparison per task on held-out samples: ``found["steps"].scores["occlusion"]["auroc"]``."""
    return {
        name: compare(models.load(name), TASKS[name]().test[:samples], methods=methods, metrics=metrics, progress=progress)
        for name in names
    }
