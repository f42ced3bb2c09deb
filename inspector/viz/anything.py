"""The picture of any tensor: a curve, a matrix, or a mosaic of its last two axes, with a digest of its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from inspector.tensors import digest, dtype_text, shape_text
from inspector.viz.figure import Figure, canvas
from inspector.viz.images import plot_mosaic, thin
from inspector.viz.scales import BROKEN, array, colour_bar, sequential
from inspector.viz.style import COLOURS, INK, panel, styled


def tensor_figure(tensor: Tensor, *, title: str = "", axes: tuple[str, str] | None = None, **figure: Any) -> Figure:
    """One figure for a tensor of any shape: nothing is refused but the empty one, which is said."""
    with styled():
        drawn = Figure(natural=(_width(tensor), 3.8), **figure)
        mappable = plot_tensor(tensor, ax=drawn.add_subplot(), axes=axes)
        if mappable is not None:
            scale = sequential(tensor)
            colour_bar(drawn.axes[0], mappable, scale)
            drawn.foot(f"Colours: {scale}.")
    drawn.foot("Complex numbers are drawn by their magnitude." if tensor.is_complex() else "")
    drawn.head(title or f"tensor {shape_text(tensor)}", f"{shape_text(tensor)} · {dtype_text(tensor)} · {digest(tensor)}")
    return drawn


def _width(tensor: Tensor) -> float:
    """Inches: narrower for a square matrix, so that it does not stand at one side of nothing."""
    if tensor.is_nested or tensor.dim() != 2 or not tensor.numel() or not 0.2 < tensor.shape[0] / tensor.shape[1] < 5:
        return 6.2
    return float(min(max(2.9 * tensor.shape[1] / tensor.shape[0] + 1.6, 4.2), 6.2))


@panel
def plot_tensor(tensor: Tensor, *, ax: Axes | None = None, axes: tuple[str, str] | None = None) -> Any:
    """Up to one axis a curve or a number, two axes a matrix, more a mosaic over the leading ones; returns the image, or
    None where there is none."""
    ax = canvas(ax, (6, 3.6))
    if tensor.is_meta or tensor.is_nested or not tensor.numel():
        ax.axis("off")
        ax.text(0.5, 0.5, digest(tensor) if not tensor.is_nested else shape_text(tensor), ha="center", va="center")
        return None
    values = array(tensor)
    values = values.reshape(values.shape[values.ndim - _trailing(values.shape) :]) if values.ndim > 2 else values
    if values.ndim <= 1:
        return _curve(ax, values)
    if values.ndim == 2:
        return _matrix(ax, values, axes or ("axis 0", "axis 1"))
    return plot_mosaic(values.reshape(-1, *values.shape[-2:]), ax=ax, order="index", scale=sequential(tensor))


def _trailing(shape: tuple[int, ...]) -> int:
    """How many axes remain when leading axes of length one are dropped; two at least."""
    leading = next((i for i, n in enumerate(shape) if n > 1), len(shape))
    return max(len(shape) - leading, 2)


def _curve(ax: Axes, values: np.ndarray[Any, np.dtype[Any]]) -> None:
    if values.ndim == 0:
        ax.axis("off")
        text = "not a number" if np.isnan(values) else f"{float(values):.6g}".replace("-", "−")
        ax.text(0.5, 0.5, text, ha="center", va="center", size=22)
        return
    flat = np.atleast_1d(values)
    for at in np.flatnonzero(np.isnan(flat)):
        ax.axvspan(at - 0.5, at + 0.5, color=BROKEN, alpha=0.6, lw=0, zorder=0)
    ax.set_title("yellow: not finite" if np.isnan(flat).any() else "")
    if len(flat) <= 40:
        ax.bar(range(len(flat)), np.nan_to_num(flat), color=COLOURS[0], width=0.7)
    else:
        ax.plot(flat, color=COLOURS[0], lw=1.0)
    ax.axhline(0, color=INK, lw=0.6)
    ax.set_xlabel("index")
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))


def _matrix(ax: Axes, values: np.ndarray[Any, np.dtype[Any]], names: tuple[str, str]) -> Any:
    rows, columns = values.shape
    square = 0.2 < rows / columns < 5
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    style = sequential(values).style
    drawn = ax.imshow(thin(values), aspect="equal" if square else "auto", extent=extent, **style)
    ax.set_xlabel(names[1])
    ax.set_ylabel(names[0])
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    return drawn
