"""The picture of an attribution: what went in, what counted, and both together, for a few samples on one shared scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from torch import Tensor

from inspector.records import Attribution
from inspector.viz.bars import plot_features
from inspector.viz.figure import Figure
from inspector.viz.grid import labelled, show_attributions
from inspector.viz.heatgrid import show_images
from inspector.viz.scales import Scale, array, colour_bar, sides, signed
from inspector.viz.sequences import LANES, grey_axis, mark_evidence, plot_series, plot_steps
from inspector.viz.style import EVIDENCE, styled
from inspector.viz.titles import evidence_note, facts_line, over, sample_line, title_of
from inspector.viz.tokens import LINE, fit, lines_of, plot_tokens, unpadded
from inspector.words.facts import Piece, evidence_of, pieces, tokens_of, valid_of

COLUMNS, LINES = 92, 150  # letters in a line of tokens, and lines in one figure


def show_attribution(
    attribution: Attribution, *more: Attribution, samples: int | None = None, piece: str | None = None, **figure: Any
) -> Figure:
    """The first ``samples`` samples of one attribution (default: as many as read well); of several explained inputs the
    one named ``piece``, or the first. Several attributions: a row for each, as in a comparison."""
    if more:
        return show_attributions(labelled([attribution, *more]), samples=samples, **figure)
    chosen = _choose(pieces(attribution), piece)
    shown = _count(attribution, chosen, samples)
    drawn = _PICTURES[chosen.view](attribution, chosen, shown, figure)
    others = [p.name for p in pieces(attribution) if p.name != chosen.name]
    drawn.foot(f"Also explained: {', '.join(others)}; choose with piece=…" if others else "")
    drawn.head(title_of(attribution, chosen), facts_line(attribution, shown))
    return drawn


def _count(attribution: Attribution, piece: Piece, wanted: int | None) -> int:
    """How many samples are drawn: as many as asked for, and never more than there are or than a page holds."""
    total = len(attribution.samples)
    if not total:
        raise ValueError("there is no sample to show: the attribution is of a batch of 0")
    if wanted is not None and wanted < 1:
        raise ValueError(f"samples={wanted} shows nothing; ask for 1 or more of the {total}")
    default = {"image": 6, "sequence": 3, "tokens": 6, "row": 4, "other": total}[piece.view]
    shown = min(default if wanted is None else wanted, total)
    return min(shown, _fitting(attribution, piece, shown)) if piece.view == "tokens" else shown


def _fitting(attribution: Attribution, piece: Piece, shown: int) -> int:
    """How many samples have no more lines of tokens together than one figure holds; one at least."""
    length = piece.heat.shape[1] if piece.heat is not None else 0
    texts = [tokens_of(attribution.samples, i, length) for i in range(shown)]
    lines = np.cumsum([lines_of(words, COLUMNS) + 1 for words in texts])
    return max(1, int((lines <= LINES).sum()))


def _choose(found: list[Piece], name: str | None) -> Piece:
    if not found:
        raise ValueError("this attribution holds no tensor to show")
    for piece in found:
        if name in (None, piece.name):
            return piece
    raise LookupError(f"{name!r} is no explained input; there are {', '.join(repr(p.name) for p in found)}")


def _sequences(attribution: Attribution, piece: Piece, shown: int, options: dict[str, Any]) -> Figure:
    assert piece.input is not None
    values = piece.values if piece.values.shape == piece.input.shape else piece.heat
    assert values is not None
    scale = signed([values[i] for i in range(shown)], over=over(shown))
    draw = _lanes if piece.input.shape[2] <= LANES else _heat_maps
    return draw(attribution, piece, values, scale, shown, options)


def _lanes(
    attribution: Attribution, piece: Piece, values: Tensor, scale: Scale, shown: int, options: dict[str, Any]
) -> Figure:
    assert piece.input is not None
    tall = 0.62 * piece.input.shape[2] + 0.5
    with styled():
        figure = Figure(natural=(8.0, tall * shown + 1.4), **options)
        axes = [figure.add_subplot(shown, 1, i + 1) for i in range(shown)]
        for i, ax in enumerate(axes):
            valid = valid_of(attribution.samples, i, piece.input.shape[1])
            names = attribution.samples.names.get("features")
            drawn = plot_series(piece.input[i], values[i], names=names, scale=scale, valid=valid, ax=ax)
            mark_evidence(ax, evidence_of(attribution.samples, i, piece.leaf))
            ax.set_title(sample_line(attribution, i))
        grey_axis(axes[-1])
        colour_bar(axes, drawn[-1], scale, sides(values[:shown]))
    figure.foot(
        f"Strips: {scale}. Within a strip the line tells the same value by its height.",
        _padding(attribution),
        evidence_note(attribution.samples, piece.leaf),
    )
    return figure


def _heat_maps(
    attribution: Attribution, piece: Piece, values: Tensor, scale: Scale, shown: int, options: dict[str, Any]
) -> Figure:
    assert piece.input is not None
    steps = piece.input.shape[1]
    names = attribution.samples.names.get("features")
    with styled():
        figure = Figure(natural=(2.6 * shown + 1.6, 5.2), **options)
        grid = GridSpec(2, shown, figure=figure, height_ratios=[1, 1 if values.dim() == 3 else 0.25])
        tops = [figure.add_subplot(grid[0, i]) for i in range(shown)]
        lows = [figure.add_subplot(grid[1, i], sharex=tops[i]) for i in range(shown)]
        for i in range(shown):
            valid = valid_of(attribution.samples, i, steps)
            plot_steps(piece.input[i], names=names, valid=valid, ax=tops[i], cmap="Greys", scale=_plain(piece.input[i]))
            one = values[i] if values.dim() == 3 else values[i][:, None]
            mark_evidence(tops[i], evidence_of(attribution.samples, i, piece.leaf), over=True)
            drawn = plot_steps(one, scale=scale, names=names if values.dim() == 3 else None, valid=valid, ax=lows[i])
            tops[i].set_title(sample_line(attribution, i))
            grey_axis(lows[i])
        tops[0].set_ylabel("input")
        lows[0].set_ylabel("attribution")
        colour_bar(lows, drawn, scale, sides(values[:shown]))
    figure.foot(f"Colours: {scale}.", _padding(attribution), evidence_note(attribution.samples, piece.leaf))
    return figure


def _plain(values: Tensor) -> Scale:
    """From the lowest to the highest value, for inputs."""
    numbers = array(values)
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return Scale(low, high if high > low else low + 1.0, "range of the input")


def _padding(attribution: Attribution) -> str:
    valid = attribution.samples.valid
    return "Hatched: padding." if valid is not None and not bool(valid.all()) else ""


def _tokens(attribution: Attribution, piece: Piece, shown: int, options: dict[str, Any]) -> Figure:
    assert piece.heat is not None
    length = piece.heat.shape[1]
    scale = signed([piece.heat[i] for i in range(shown)], over=over(shown))
    valid = [valid_of(attribution.samples, i, length) for i in range(shown)]
    texts = [unpadded(tokens_of(attribution.samples, i, length), valid[i]) for i in range(shown)]
    cut = len(texts) == 1 and lines_of(texts[0], COLUMNS) > LINES
    texts = [fit(texts[0], COLUMNS, LINES)] if cut else texts
    lines = [lines_of(words, COLUMNS) for words in texts]
    with styled():
        figure = Figure(natural=(8.6, sum(lines) * 0.36 + 0.42 * shown + 1.3), **options)
        grid = GridSpec(shown, 1, figure=figure, height_ratios=[n * LINE + 0.5 for n in lines])
        for i, words in enumerate(texts):
            ax = figure.add_subplot(grid[i])
            n = len(words)
            boxes = plot_tokens(words, piece.heat[i][:n], scale=scale, columns=COLUMNS, valid=valid[i][:n], ax=ax)
            _frame_evidence(boxes, evidence_of(attribution.samples, i, piece.leaf))
            ax.set_title(sample_line(attribution, i))
    unsigned = not bool((piece.heat[:shown] < 0).any())
    signs = (
        "Red: how much it counts, without sign."
        if unsigned
        else "Red, solid underline: for the target; blue, dashed: against."
    )
    figure.foot(
        f"{signs} Colours: {scale}. Numbers: the attributions of the largest.",
        f"The first {len(texts[0]):,} of {length:,} tokens shown." if cut else "",
        evidence_note(attribution.samples, piece.leaf),
    )
    return figure


def _frame_evidence(boxes: list[Rectangle], evidence: Tensor | None) -> None:
    if evidence is not None and evidence.dim() == 1:
        for box, true in zip(boxes, evidence.tolist(), strict=False):
            if true:
                box.set(edgecolor=EVIDENCE, linewidth=1.6, zorder=3)


def _rows(attribution: Attribution, piece: Piece, shown: int, options: dict[str, Any]) -> Figure:
    assert piece.heat is not None
    heats = piece.heat[:shown]
    names, top = piece.positions or None, min(12, heats.shape[1])
    reach = float(np.nanmax(np.abs(array(heats)), initial=0.0)) or 1.0
    wide = min(shown, 2)
    tall = -(-shown // wide)
    with styled():
        height = (0.24 * (top + 1) + 0.75) * tall + 0.9
        figure = Figure(natural=(4.6 * wide, height), **options)
        for i in range(shown):
            ax = figure.add_subplot(tall, wide, i + 1)
            given = piece.input[i] if piece.input is not None and piece.input.shape == piece.heat.shape else None
            plot_features(heats[i], given, names=names, top=top, reach=reach, ax=ax)
            ax.set_title(sample_line(attribution, i))
    figure.foot(f"All panels share one horizontal scale, ±{reach:.3g} (the largest value over {over(shown)}).")
    return figure


def _other(attribution: Attribution, piece: Piece, shown: int, options: dict[str, Any]) -> Figure:
    from inspector.viz.anything import tensor_figure

    return tensor_figure(piece.values, **options)


_PICTURES = {"image": show_images, "sequence": _sequences, "tokens": _tokens, "row": _rows, "other": _other}
