"""Pictures of time series: each channel is a lane, with the signed attribution as a strip beneath its own curve.

In the strip the colour and the height of a line tell the same value, so that the sign does not hang on hue alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from inspector.viz.figure import canvas, shorten
from inspector.viz.scales import ABSENT, Array, Scale, array, colour_map, signed
from inspector.viz.style import EVIDENCE, FAINT, INK, MUTED, panel

LANES = 8  # more channels than these are shown as an image


@panel
def plot_series(
    signal: Tensor | Array,
    values: Tensor | Array,
    *,
    names: Sequence[str] | None = None,
    scale: Scale | None = None,
    valid: Tensor | None = None,
    ax: Axes | None = None,
) -> list[AxesImage]:
    """A lane per channel of ``signal`` (T, F): the curve above, its attribution below. ``values`` (T, F), or (T,) with
    one strip beneath all lanes. Padded steps are grey. Returns the strips."""
    curves, heat = array(signal), array(values)
    lanes = min(curves.shape[1], LANES)
    ax = canvas(ax, (6, 0.7 * lanes + 0.6))
    scale = scale or signed(heat)
    shared = heat.ndim == 1
    strips = [] if shared else [_strip(ax, heat[:, lane], scale, lane + 0.68, lane + 0.97) for lane in range(lanes)]
    for lane in range(lanes):
        _curve(ax, curves[:, lane], lane + 0.06, lane + (0.94 if shared else 0.62))
    if shared:
        strips = [_strip(ax, heat, scale, lanes + 0.05, lanes + 0.45)]
    _frame(ax, len(curves), lanes + 0.5 * shared, valid)
    labels = [shorten(str(names[lane]), 16) if names is not None else f"{lane}" for lane in range(lanes)]
    ax.set_yticks([lane + (0.5 if shared else 0.34) for lane in range(lanes)], labels=labels)
    return strips


def _curve(ax: Axes, curve: Array, top: float, bottom: float) -> None:
    finite = curve[np.isfinite(curve)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    height = (curve - low) / (high - low) if high > low else np.where(np.isfinite(curve), 0.5, np.nan)
    marker = "." if len(curve) <= 30 else ""
    ax.plot(np.arange(len(curve)), bottom - height * (bottom - top), color=INK, lw=1.0, marker=marker, ms=3)


def _strip(ax: Axes, heat: Array, scale: Scale, top: float, bottom: float) -> AxesImage:
    extent = (-0.5, len(heat) - 0.5, bottom, top)
    drawn = ax.imshow(heat[None], extent=extent, aspect="auto", **scale.style)
    middle, half = (top + bottom) / 2, (bottom - top) / 2
    line = middle - np.clip(heat / scale.high, -1, 1) * half * 0.92
    ax.plot(np.arange(len(heat)), line, color=INK, lw=0.6, alpha=0.75)
    return drawn


def _frame(ax: Axes, steps: int, bottom: float, valid: Tensor | None) -> None:
    ax.set_xlim(-0.5, max(steps, 1) - 0.5)
    ax.set_ylim(bottom + 0.03, 0)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    cover_padding(ax, valid)


@panel
def plot_steps(
    values: Tensor | Array,
    *,
    scale: Scale | None = None,
    names: Sequence[str] | None = None,
    valid: Tensor | None = None,
    ax: Axes | None = None,
    cmap: str | None = None,
) -> AxesImage:
    """(T, F) as an image with time to the right and one row for each feature or unit; padded steps are grey."""
    board = array(values).T
    ax = canvas(ax, (6, 2.4))
    scale = scale or signed(board)
    style = scale.style | ({"cmap": colour_map(cmap)} if cmap else {})
    drawn = ax.imshow(board, aspect="auto", extent=(-0.5, board.shape[1] - 0.5, board.shape[0] - 0.5, -0.5), **style)
    cover_padding(ax, valid)
    if names is not None and board.shape[0] <= 24:
        ax.set_yticks(range(board.shape[0]), labels=[shorten(str(name), 16) for name in names])
    else:
        ax.set_yticks([0, board.shape[0] - 1])
    ax.tick_params(length=2)
    return drawn


def cover_padding(ax: Axes, valid: Tensor | None) -> None:
    """Grey over the padded end of a sample."""
    if valid is None or bool(valid.all()):
        return
    low, high = ax.get_xlim()
    for start, stop in _runs(~valid.cpu().numpy()):
        ax.axvspan(start - 0.5, stop - 0.5, facecolor=ABSENT, edgecolor=FAINT, hatch="////", lw=0, zorder=5)
    ax.set_xlim(low, high)


def _runs(mask: Array) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def mark_evidence(ax: Axes, evidence: Tensor | None, *, over: bool = False) -> None:
    """Orange behind the steps of a mask (T,), so that no colour of a map is changed; ``over`` an image of the input. Of
    (T, features) behind the steps that are true in any feature."""
    evidence = evidence.any(1) if evidence is not None and evidence.dim() == 2 else evidence
    if evidence is None or evidence.dim() != 1:
        return
    left, right = ax.get_xlim()
    for start, stop in _runs(evidence.cpu().numpy()):
        ax.axvspan(start - 0.5, stop - 0.5, color=EVIDENCE, alpha=0.25, lw=0, zorder=2 if over else -1)
    ax.set_xlim(left, right)


def grey_axis(ax: Axes, label: str = "step") -> None:
    """The name of the time axis, quietly."""
    ax.set_xlabel(label, color=MUTED)
