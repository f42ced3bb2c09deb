"""A board: many small pictures in one pair of axes, in cells of one width, so that columns line up and drawing is fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from inspector.viz.figure import bare
from inspector.viz.scales import Array
from inspector.viz.style import FAINT, MUTED, SMALL

GAP = 0.07


@dataclass(frozen=True)
class Board:
    """Cells of width 1 and height ``tall`` on ``ax``, numbered by row and column from the upper left."""

    ax: Axes
    rows: int
    columns: int
    tall: float = 1.0

    def __post_init__(self) -> None:
        bare(self.ax).set_aspect("equal")
        self.ax.tick_params(length=0, pad=3)
        self._rule()

    def _rule(self) -> None:
        self.ax.set_xlim(0, self.columns * (1 + GAP) - GAP)
        self.ax.set_ylim(self.rows * (self.tall + GAP) - GAP, 0)

    def put(self, pixels: Array, row: int, column: int, **style: Any) -> AxesImage:
        """One picture into its cell, fitted to the cell's shape from the middle."""
        left, top = column * (1 + GAP), row * (self.tall + GAP)
        height, width = pixels.shape[:2]
        wide, high = (1.0, height / width) if height / width <= self.tall else (self.tall * width / height, self.tall)
        wide, high = max(wide, 0.02), max(high, 0.02)
        left, top = left + (1 - wide) / 2, top + (self.tall - high) / 2
        extent = (left, left + wide, top + high, top)
        drawn = self.ax.imshow(pixels, **{"interpolation": "nearest", "extent": extent, "aspect": "equal", **style})
        self.ax.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=FAINT, linewidth=0.5, clip_on=False))
        self._rule()
        return drawn

    def write(self, text: str, row: int, column: int, **style: Any) -> None:
        """Words in the middle of a cell, where there is no picture."""
        x, y = column * (1 + GAP) + 0.5, row * (self.tall + GAP) + self.tall / 2
        self.ax.text(x, y, text, **{"ha": "center", "va": "center", "color": MUTED, "size": SMALL, **style})

    def label_rows(self, labels: list[str]) -> None:
        """Names at the left of the rows."""
        at = [row * (self.tall + GAP) + self.tall / 2 for row in range(len(labels))]
        self.ax.set_yticks(at, labels=labels)

    def label_columns(self, labels: list[str]) -> None:
        """Names above the columns."""
        self.ax.xaxis.tick_top()
        self.ax.set_xticks([column * (1 + GAP) + 0.5 for column in range(len(labels))], labels=labels)
        self.ax.tick_params(length=0, pad=3)

    def label_right(self, labels: list[str]) -> None:
        """Facts at the right of the rows, such as the scale of each."""
        beyond = self.columns * (1 + GAP) - GAP + 0.06
        for row, label in enumerate(labels):
            y = row * (self.tall + GAP) + self.tall / 2
            self.ax.text(beyond, y, label, ha="left", va="center", size=SMALL, color=MUTED, linespacing=1.4)
