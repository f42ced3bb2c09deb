"""torchvision where it is needed: a build that does not fit torch fails in many ways, and each is told with the cure."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch


def torchvision(module: str, what: str) -> Any:
    """A module of torchvision, for ``what`` needs it. Raises ImportError where it cannot be loaded."""
    try:
        return import_module(f"torchvision.{module}")
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # missing, or built for another torch
        raise ImportError(
            f"{what} needs a torchvision that fits torch {torch.__version__} ({type(error).__name__}: {error}); "
            "install a matching pair: pip install --upgrade --force-reinstall torch torchvision"
        ) from error
