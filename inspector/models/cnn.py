"""CNN: two convolution blocks and two dense layers, after the article's network for 28x28 digits.

Every non-linearity is a module of its own and none is used twice, so that each one can be looked at and each
attribution rule has one place to go.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn


class CNN(nn.Module):
    """Images (batch, channels, height, width) -> class scores (batch, classes); one block per entry of ``widths``."""

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64),
        hidden: int = 128,
        classes: int = 10,
        size: int | tuple[int, int] = 28,
    ) -> None:
        super().__init__()
        cells = _cells_left(size, len(widths))
        self.blocks = nn.Sequential(*(_block(before, after) for before, after in pairwise((channels, *widths))))
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(widths[-1] * cells, hidden)
        self.relu = nn.ReLU()
        self.out = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:  # (batch, 1, 28, 28)
        maps = self.blocks(images)  # (batch, 32, 13, 13), then (batch, 64, 5, 5)
        flat = self.flatten(maps)  # (batch, 1600)
        hidden = self.relu(self.dense(flat))  # (batch, 128)
        return self.out(hidden)  # type: ignore[no-any-return]  # (batch, 10)


def _block(before: int, after: int) -> nn.Sequential:
    """Convolution 3x3 without padding, ReLU, max-pool 2: (channels, s, s) -> (channels, (s - 2) // 2, (s - 2) // 2)."""
    layers = [("conv", nn.Conv2d(before, after, 3)), ("relu", nn.ReLU()), ("pool", nn.MaxPool2d(2))]
    return nn.Sequential(OrderedDict(layers))


def _cells_left(size: int | tuple[int, int], blocks: int) -> int:
    """How many positions of an image of ``size`` are left after the blocks; ValueError where none is."""
    height, width = (size, size) if isinstance(size, int) else size
    for _ in range(blocks):
        height, width = (height - 2) // 2, (width - 2) // 2
    if min(height, width) < 1:
        raise ValueError(f"an image of size {size} is used up by {blocks} blocks; give fewer widths or larger images")
    return height * width
