"""Data to learn and to explain: real handwritten digits, and planted tasks whose true evidence is known.

Nothing downloads: the digits come with scikit-learn, and MNIST is read from where you have it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from inspector.models.people import planted_tastes, planted_unfair
from inspector.models.planted import planted_patches, planted_steps, planted_words
from inspector.models.vision import torchvision
from inspector.records.samples import Samples, Task
from inspector.records.splitting import stratified

__all__ = [
    "Task",
    "digit_rows",
    "digits",
    "mnist",
    "planted_patches",
    "planted_steps",
    "planted_tastes",
    "planted_unfair",
    "planted_words",
]


def digits(*, test_size: float = 0.25, seed: int = 0) -> Task:
    """1,797 real handwritten digits of scikit-learn, 8x8, brought to (1, 28, 28) in 0 to 1 by bilinear interpolation."""
    images, labels = _scan()
    train, test = (_images(images[rows], labels[rows]) for rows in stratified(labels, test_size, seed))
    return Task(
        train, test, "digits", "handwritten digits of 43 writers, 8x8 brought to 28x28 (scikit-learn, UCI optdigits)"
    )


def digit_rows(*, test_size: float = 0.25, seed: int = 0) -> Task:
    """The same digits read as sequences, row by row from the top: (28 steps, 28 columns)."""
    task = digits(test_size=test_size, seed=seed)
    return Task(as_rows(task.train), as_rows(task.test), "digit_rows", f"{task.about}, read row by row")


def mnist(root: str | Path, download: bool = False, *, rows: bool = False) -> Task:
    """MNIST from ``root`` through torchvision, as ``digits`` or with ``rows`` as ``digit_rows``; its own two halves.

    Raises FileNotFoundError where it is not there and ``download`` was not asked for.
    """
    dataset = torchvision("datasets", "mnist").MNIST
    try:
        halves = [dataset(str(root), train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(f"no MNIST under {root} ({error}); download it with mnist(root, download=True)") from error
    train, test = (_images(half.data[:, None].float() / 255, half.targets) for half in halves)
    if rows:
        return Task(as_rows(train), as_rows(test), "mnist_rows", "MNIST, read row by row")
    return Task(train, test, "mnist", "MNIST: handwritten digits, 28x28")


def as_rows(images: Samples) -> Samples:
    """One-channel images (batch, 1, height, width) as sequences of rows (batch, height, width)."""
    width = images.inputs.shape[-1]
    names = {**images.names, "features": tuple(f"column {i}" for i in range(width))}
    return Samples(images.inputs[:, 0], images.target, names=names)


def _scan() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('the digits come with scikit-learn; install it: pip install "inspector[demo]"') from error
    pixels, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    return interpolate(small, (28, 28), mode="bilinear"), torch.from_numpy(labels).long()


def _images(images: Tensor, labels: Tensor) -> Samples:
    return Samples(images, labels, names={"classes": tuple(str(i) for i in range(10))})
