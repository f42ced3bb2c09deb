"""The grid of a comparison where samples are no images: for each sample the methods as rows over steps, tokens or
features, beneath the sample's own signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpecFromSubplotSpec
from torch import Tensor

from inspector.records import Attribution
from inspector.viz.figure import Figure, shorten
from inspector.viz.scales import Array, Scale, array, colour_map
from inspector.viz.sequences import LANES, cover_padding, mark_evidence
from inspector.viz.style import ALARM, COLOURS, INK, MUTED, SMALL, panel
from inspector.viz.titles import sample_line
from inspector.viz.tokens import unpadded, visible
from inspector.words.facts import Piece, evidence_of, pieces, tokens_of, valid_of

NAMED = 44  # more positions than these are not named one by one


def strips(
    first: Attribution,
    figure: Figure,
    place: Any,
    heats: dict[str, list[Array | None]],
    scales: dict[str, list[Scale]],
    names: Mapping[str, str],
) -> None:
    """One block per sample: its signal, then a strip per label; what the samples are is read off ``first``."""
    shown = len(next(iter(heats.values())))
    piece = pieces(first)[0]
    signal = piece.view == "sequence"
    blocks = GridSpecFromSubplotSpec(shown, 1, subplot_spec=place)
    ratios = [1.0] * signal + [len(heats) / 3.6]
    for i in range(shown):
        parts = GridSpecFromSubplotSpec(1 + signal, 1, subplot_spec=blocks[i], height_ratios=ratios)
        ax = figure.add_subplot(parts[int(signal)])
        plot_strips({names[k]: row[i] for k, row in heats.items()}, {names[k]: v[i] for k, v in scales.items()}, ax=ax)
        _positions(ax, first, piece, i)
        top = figure.add_subplot(parts[0], sharex=ax) if signal else ax
        if signal:
            _signal(top, piece, i)
        if signal:
            mark_evidence(top, evidence_of(first.samples, i, piece.leaf), over=bool(top.images))
        else:
            _bold(top, evidence_of(first.samples, i, piece.leaf))
        top.set_title(sample_line(first, i))


@panel
def plot_strips(heats: dict[str, Array | None], scales: dict[str, Scale], *, ax: Axes) -> list[Any]:
    """A row for each label (n,), each on its own scale, which is printed at the right; returns the images. A map of fewer
    positions, such as one of a layer that skips steps, is drawn as the blocks it stands for."""
    longest = max((len(h) for h in heats.values() if h is not None and h.ndim == 1), default=1)
    ax.set_xlim(-0.5, longest - 0.5)
    drawn = []
    for row, (label, heat) in enumerate(heats.items()):
        scale = scales[label]
        if heat is None or heat.ndim != 1:
            ax.text(longest / 2, row, "no map over these positions", color=MUTED, ha="center", va="center", size=SMALL)
        else:
            extent = (-0.5, longest - 0.5, row + 0.42, row - 0.42)
            drawn.append(ax.imshow(heat[None], extent=extent, aspect="auto", **scale.style))
            _mark_negative(ax, heat, scale, row)
        scaled = scale.range_text if heat is not None else ""
        ax.annotate(scaled, (1.01, row), xycoords=ax.get_yaxis_transform(), size=SMALL, color=MUTED, va="center")
    ax.set_xlim(-0.5, longest - 0.5)
    ax.set_ylim(len(heats) - 0.5, -0.5)
    ax.set_yticks(range(len(heats)), labels=[shorten(label, 36) for label in heats])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return drawn


def _mark_negative(ax: Axes, heat: Array, scale: Scale, row: int) -> None:
    """A minus on every clearly negative cell, so that the sign does not hang on hue alone."""
    if len(heat) <= NAMED:
        wide = (ax.get_xlim()[1] + 0.5) / len(heat)
        for at in np.flatnonzero(heat < -0.25 * scale.high):
            ink = "white" if heat[at] < -0.6 * scale.high else INK
            ax.text((at + 0.5) * wide - 0.5, row, "−", ha="center", va="center", size=SMALL, color=ink)


def _positions(ax: Axes, attribution: Attribution, piece: Piece, index: int) -> None:
    if piece.heat is None or piece.heat.dim() != 2:
        return
    length = piece.heat.shape[1]
    names = _names(attribution, piece, index, length)
    valid = valid_of(attribution.samples, index, length)
    cover_padding(ax, valid)
    if piece.view == "tokens":
        length = len(unpadded(names, valid))
        names = names[:length]
        ax.set_xlim(-0.5, length - 0.5)
    if names and length <= NAMED:
        rotation = 0 if sum(map(len, names)) < 90 and length <= 14 else 50
        options: dict[str, Any] = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor"} if rotation else {}
        ax.set_xticks(range(length), labels=[shorten(visible(name), 14) for name in names], **options)
    else:
        ax.locator_params(axis="x", nbins=8, integer=True)
        ax.set_xlabel({"tokens": "token", "row": "feature"}.get(piece.view, "step"), color=MUTED)


def _bold(ax: Axes, evidence: Tensor | None) -> None:
    """The names of the true evidence in orange."""
    labels = ax.get_xticklabels()
    if evidence is not None and evidence.dim() == 1 and len(labels) <= len(evidence) <= NAMED:
        for label, true in zip(labels, evidence.tolist(), strict=False):
            if true:
                label.set(color=ALARM, weight="bold")


def _names(attribution: Attribution, piece: Piece, index: int, length: int) -> list[str]:
    if piece.view == "tokens":
        return tokens_of(attribution.samples, index, length)
    return list(piece.positions)


def _signal(ax: Axes, piece: Piece, index: int) -> None:
    assert piece.input is not None
    signal = array(piece.input[index])
    if signal.shape[1] <= LANES:
        for lane in range(signal.shape[1]):
            ax.plot(signal[:, lane], lw=0.9, color=COLOURS[lane % len(COLOURS)])
    else:
        extent = (-0.5, len(signal) - 0.5, signal.shape[1] - 0.5, -0.5)
        ax.imshow(signal.T, aspect="auto", extent=extent, cmap=colour_map("Greys"), interpolation="nearest")
    ax.tick_params(labelbottom=False, length=0)
    ax.set_yticks([])
    ax.set_ylabel("input", rotation=0, ha="right", va="center")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
