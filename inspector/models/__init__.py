"""Reference models with real data to train them on: small enough to read, good enough to explain.

Everything here is pure torch and readable alone; ``fit``, ``assess`` and ``tasks`` take any classifier and any data.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inspector.models import tasks
from inspector.models.assessing import assess
from inspector.models.attention import AttentionClassifier
from inspector.models.cnn import CNN
from inspector.models.fitting import fit
from inspector.models.lstm import LSTMClassifier
from inspector.models.recommender import Recommender
from inspector.models.shipped import load

if TYPE_CHECKING:
    import inspector.models.recipe as recipe

__all__ = ["CNN", "AttentionClassifier", "LSTMClassifier", "Recommender", "assess", "fit", "load", "recipe", "tasks"]


def __getattr__(name: str) -> Any:
    if name == "recipe":  # it is also run as a script, which must not find it imported already
        return import_module("inspector.models.recipe")
    raise AttributeError(f"module 'inspector.models' has no {name!r}; it has {', '.join(__all__)}")
