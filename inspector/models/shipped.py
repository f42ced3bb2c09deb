"""The models that come trained: what each is, what it learned on, and how to get its weights.

One row makes a model: ``recipe`` trains it, ``load`` reads it. Weights are stored in half precision, which costs no
accuracy and halves the package; they are used in single precision.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from inspector.models import tasks
from inspector.models.attention import AttentionClassifier
from inspector.models.cnn import CNN
from inspector.models.lstm import LSTMClassifier
from inspector.models.planted import MOTIFS, PATTERNS, VOCABULARY
from inspector.models.recommender import Recommender
from inspector.records.samples import Task


class Shipped(NamedTuple):
    """A model untrained, the task it learns, and for how long at which rate."""

    build: Callable[[], nn.Module]
    task: Callable[[], Task]
    epochs: int
    lr: float
    batch_size: int = 32


MODELS: dict[str, Shipped] = {
    "cnn": Shipped(CNN, tasks.digits, epochs=20, lr=2e-3),
    "lstm": Shipped(LSTMClassifier, tasks.digit_rows, epochs=40, lr=5e-3),
    "attention": Shipped(AttentionClassifier, tasks.digit_rows, epochs=80, lr=5e-3, batch_size=16),
    "patches": Shipped(lambda: CNN(widths=(16, 32), hidden=32, classes=len(PATTERNS)), tasks.planted_patches, 20, lr=3e-3),
    "steps": Shipped(lambda: LSTMClassifier(4, 64, len(MOTIFS)), tasks.planted_steps, 40, 1e-2, batch_size=64),
    "words": Shipped(
        lambda: AttentionClassifier(16, 32, 2, vocabulary=len(VOCABULARY)), tasks.planted_words, epochs=15, lr=5e-3
    ),
    "tastes": Shipped(Recommender, tasks.planted_tastes, epochs=20, lr=5e-3, batch_size=64),
}


def load(name: str) -> nn.Module:
    """A trained model in eval mode: "cnn", "lstm" or "attention" on real digits, "patches", "steps", "words" or
    "tastes" on the planted tasks. Raises LookupError for another name."""
    model = build(name).eval()
    with as_file(files("inspector.models") / "weights" / f"{name}.safetensors") as path:
        read(model, path)
    return model


def build(name: str, *, seed: int = 0) -> nn.Module:
    """The same model untrained, on the CPU; its weights depend on ``seed`` alone."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise LookupError(f"{name!r} is no model that comes with inspector; there are {', '.join(MODELS)}{hint}")
    with torch.random.fork_rng([]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return MODELS[name].build()


def read(model: nn.Module, path: Path) -> None:
    """Put saved weights into a model of the same shape."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(path))


def write(model: nn.Module, path: Path) -> Path:
    """Save a model's weights in half precision, as a plain safetensors file that any library reads; returns the path."""
    from safetensors.torch import save

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(save({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}))
    return unfinished.replace(path)
