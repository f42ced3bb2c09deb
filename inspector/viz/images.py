"""Pictures of images and feature maps. Many maps are one mosaic, and nothing is smoothed: a 7x7 map is shown as 7x7."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from inspector.viz.figure import bare, canvas
from inspector.viz.scales import BROKEN, Array, Scale, array, colour_map, sequential, signed
from inspector.viz.style import EVIDENCE, panel

_BROKEN_RGB = tuple(int(BROKEN[i : i + 2], 16) / 255 for i in (1, 3, 5))
_LARGEST = 1200  # more pixels on a side than any figure here has


def as_picture(image: Tensor | Array) -> tuple[Array, str]:
    """(H, W, 3) in 0..1 from an image (C, H, W) or (H, W) of any channels and range, and what was done to it in words.

    Three channels are colours; any other number is shown as the grey mean. A range within 0..1 or 0..255 is kept.
    """
    pixels = thin(array(image if image.ndim == 3 else image[None]))
    channels = pixels.shape[0]
    if channels not in (1, 3):
        pixels = pixels.mean(axis=0, keepdims=True)
    shown, how = _stretch(pixels)
    picture = np.moveaxis(np.broadcast_to(shown, (3, *shown.shape[1:])), 0, -1).copy()
    picture[np.isnan(picture).any(axis=-1)] = _BROKEN_RGB
    mean = f"mean of {channels} channels" if channels not in (1, 3) else ""
    return picture, ", ".join(filter(None, [mean, how]))


def _stretch(pixels: Array) -> tuple[Array, str]:
    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return pixels, ""
    if low >= 0 and 1 < high <= 255 and np.array_equal(finite, np.round(finite)):
        return pixels / 255, ""
    if high == low:
        return np.where(np.isnan(pixels), np.nan, 0.5), "constant"
    return (pixels - low) / (high - low), "brightness stretched to its own range"


def thin(pixels: Array) -> Array:
    """Every n-th pixel of the last two axes, so that none is longer than a figure can show."""
    rows, columns = (max(1, -(-n // _LARGEST)) for n in pixels.shape[-2:])
    return pixels[..., ::rows, ::columns]


@panel
def plot_image(image: Tensor | Array, *, ax: Axes | None = None, title: str = "", extent: Any = None) -> AxesImage:
    """The image itself, in colour (3 channels) or grey; returns what was drawn."""
    ax = canvas(ax, (3, 3))
    drawn = bare(ax).imshow(as_picture(image)[0], interpolation="nearest", extent=extent)
    ax.set_title(title)
    return drawn


@panel
def plot_heat(
    heat: Tensor | Array, *, scale: Scale | None = None, ax: Axes | None = None, title: str = "", extent: Any = None
) -> AxesImage:
    """A signed map (H, W) on the diverging colours of ``scale`` (default: its own); broken values are yellow."""
    ax = canvas(ax, (3, 3))
    values = thin(array(heat))
    drawn = bare(ax).imshow(values, extent=extent, **(scale or signed(values)).style)
    ax.set_title(title)
    return drawn


@panel
def plot_overlay(
    image: Tensor | Array, heat: Tensor | Array, *, scale: Scale | None = None, ax: Axes | None = None, extent: Any = None
) -> AxesImage:
    """The heat over the grey image: hue tells the sign, opacity the size, so that the image never changes a value's hue.

    A map coarser than the image is spread by nearest neighbour, so that its true resolution stays visible.
    """
    ax = canvas(ax, (3, 3))
    picture, values = as_picture(image)[0], thin(array(heat))
    scale = scale or signed(values)
    drawn = bare(ax).imshow(blend(picture, values, scale), interpolation="nearest", extent=extent)
    ax.set_title("")
    return drawn


def blend(picture: Array, heat: Array, scale: Scale) -> Array:
    """(H, W, 3): the pale grey picture with the heat's colours laid over it, as opaque as the heat is large."""
    grey = 0.62 + 0.36 * picture.mean(axis=-1, keepdims=True)
    spread = _nearest(heat, picture.shape[:2])
    strength = np.nan_to_num(np.clip(np.abs(spread) / scale.high, 0, 1), nan=1.0)[..., None]
    colours = colour_map("RdBu_r")(np.ma.masked_invalid(0.5 + 0.5 * np.sign(spread) * (0.35 + 0.65 * strength[..., 0])))
    mixed: Array = grey * (1 - strength) + colours[..., :3] * strength
    return mixed


def _nearest(heat: Array, shape: tuple[int, ...]) -> Array:
    rows, columns = ((np.arange(n) * m) // n for n, m in zip(shape, heat.shape, strict=True))
    spread: Array = np.take(np.take(heat, rows, axis=0), columns, axis=1)
    return spread


def tile(maps: Array, columns: int | None = None, gap: int = 1) -> tuple[Array, list[tuple[int, int]]]:
    """Maps (n, H, W) as one array with NaN between them, and the upper left corner (row, column) of each."""
    n, height, width = maps.shape
    columns = min(n, columns or default_columns(n, height, width))
    rows = -(-n // columns)
    board = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    corners = [(i // columns * (height + gap), i % columns * (width + gap)) for i in range(n)]
    for one, (top, left) in zip(maps, corners, strict=True):
        board[top : top + height, left : left + width] = one
    return board, corners


def default_columns(n: int, height: int, width: int) -> int:
    """So many that the mosaic is about 1.6 times as wide as it is high."""
    return max(1, min(n, round(math.sqrt(1.6 * n * (height + 1) / (width + 1)))))


def activity(maps: Tensor | Array) -> Array:
    """(n,) the mean absolute value of each map, by which mosaics are sorted."""
    values = np.abs(array(maps)).reshape(len(maps), -1)
    good = np.isfinite(values)
    total = np.where(good, values, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(good.sum(axis=1), 1) + ~good.any(axis=1))  # a map of no numbers is not dead


@panel
def plot_mosaic(
    maps: Tensor | Array,
    *,
    ax: Axes | None = None,
    scale: Scale | None = None,
    order: str = "activity",
    limit: int = 256,
    title: str = "",
) -> AxesImage:
    """Feature maps (n, H, W) as one image, the most active first (``order="index"`` keeps theirs); maps that are zero
    everywhere are dead and crossed out. At most ``limit`` maps are drawn, and the title says so."""
    values = array(maps)
    active = activity(values)
    chosen = (np.argsort(-active, kind="stable") if order == "activity" else np.arange(len(values)))[:limit]
    kept = values[chosen]
    gap = max(1, round(0.06 * max(kept.shape[-2:])))
    board, corners = tile(kept, gap=gap)
    ax = canvas(ax, (5, 5 * board.shape[0] / board.shape[1] + 0.4))
    scale = scale or sequential(values, over=f"{len(values)} maps")
    style = scale.style | {"cmap": scale.cmap.with_extremes(bad="white")}
    drawn = bare(ax).imshow(board, **style)
    paint = broken_paint(board, corners, kept.shape[-2:])
    if paint is not None:
        ax.imshow(paint, interpolation="nearest")
    _cross_out(ax, [c for c, i in zip(corners, chosen, strict=True) if active[i] == 0], kept.shape[-2:])
    shown = f" · {len(kept)} of {len(values)} shown" if len(kept) < len(values) else ""
    dead = int((active == 0).sum())
    ax.set_title(f"{title}{f' · {dead} dead (0 everywhere)' if dead else ''}{shown}".removeprefix(" · "))
    return drawn


def broken_paint(board: Array, corners: list[tuple[int, int]], shape: tuple[int, ...]) -> Array | None:
    """(H, W, 4): the colour of broken values where a map inside a mosaic has one, clear elsewhere; None where none has."""
    inside = np.zeros(board.shape, dtype=bool)
    for top, left in corners:
        inside[top : top + shape[0], left : left + shape[1]] = True
    broken = inside & np.isnan(board)
    return np.where(broken[..., None], (*_BROKEN_RGB, 1.0), 0.0) if broken.any() else None


def _cross_out(ax: Axes, corners: list[tuple[int, int]], shape: tuple[int, ...]) -> None:
    height, width = shape
    for top, left in corners:
        ax.plot([left - 0.5, left + width - 0.5], [top - 0.5, top + height - 0.5], color="#8c959f", linewidth=0.7)
        ax.plot([left - 0.5, left + width - 0.5], [top + height - 0.5, top - 0.5], color="#8c959f", linewidth=0.7)


def outline(ax: Axes, mask: Tensor | None, extent: Any) -> None:
    """An orange line around the positions of a mask (H, W) on a picture that lies at ``extent``; of (channels, H, W) around
    those that are true in any channel."""
    mask = mask.any(0) if mask is not None and mask.dim() == 3 else mask
    if mask is None or mask.dim() != 2 or min(mask.shape) < 2:
        return
    left, right, bottom, top = extent
    padded = np.pad(array(mask.float()), 1)
    rows, columns = mask.shape
    x = left + (np.arange(columns + 2) - 0.5) * (right - left) / columns
    y = top + (np.arange(rows + 2) - 0.5) * (bottom - top) / rows
    ax.contour(x, y, padded, levels=[0.5], colors=[EVIDENCE], linewidths=1.2)
