"""Images that were explained: the input, its map, and both laid over each other, on one shared and printed scale."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from inspector.records import Attribution
from inspector.tensors import Leaf
from inspector.viz.board import Board
from inspector.viz.figure import Figure
from inspector.viz.images import as_picture, blend, outline, thin
from inspector.viz.scales import Array, Scale, array, colour_bar, sides, signed
from inspector.viz.style import styled
from inspector.viz.titles import evidence_note, over, sample_label
from inspector.words.facts import Piece, evidence_of

WIDE = 8  # samples beside each other; further ones stand below


class Shown(NamedTuple):
    """One sample: its heat, and its picture (H, W, 3) with what was done to it, where there is one."""

    heat: Array
    picture: Array | None
    note: str

    def cells(self, scale: Scale) -> dict[str, Array]:
        """What is drawn of it, by name."""
        if self.picture is None:
            return {"attribution": thin(self.heat)}
        laid_over = blend(self.picture, thin(self.heat), scale)
        return {"input": self.picture, "attribution": thin(self.heat), "laid over": laid_over}


def show_images(attribution: Attribution, piece: Piece, shown: int, options: dict[str, Any]) -> Figure:
    """Samples as columns where there are more than two, eight at most in a band; else as rows."""
    given = piece.input if piece.input is not None and piece.input.dim() == 4 else None
    samples = [_sample(piece, given, i) for i in range(shown)]
    scale = signed([s.heat for s in samples], over=over(shown))
    with styled():
        figure = _draw(attribution, piece.leaf, [s.cells(scale) for s in samples], scale, options)
    figure.foot(f"Colours: {scale}.", _note(samples, given), evidence_note(attribution.samples, piece.leaf))
    return figure


def _sample(piece: Piece, given: Tensor | None, index: int) -> Shown:
    assert piece.heat is not None
    picture, note = as_picture(given[index]) if given is not None else (None, "")
    return Shown(array(piece.heat[index]), picture, note)


def _draw(
    attribution: Attribution, leaf: Leaf, samples: list[dict[str, Array]], scale: Scale, options: dict[str, Any]
) -> Figure:
    words, across = list(samples[0]), len(samples) > 2
    tall = tallness([pixels for cells in samples for pixels in cells.values()])
    columns = min(len(samples), WIDE) if across else len(words)
    bands = -(-len(samples) // columns) if across else 1
    cell = min(2.0, 8.2 / columns, max(0.8, 2.4 / tall))
    rows = len(words) if across else len(samples)
    size = (cell * columns + 2.2, bands * (cell * tall * rows + (0.9 if across else 0.3)) + 1.0)
    figure = Figure(natural=size, **options)
    axes = [figure.add_subplot(bands, 1, band + 1) for band in range(bands)]
    for band, ax in enumerate(axes):
        chosen = range(band * columns, min((band + 1) * columns, len(samples))) if across else range(len(samples))
        board = Board(ax, rows, columns, tall)
        names = [sample_label(attribution, i) for i in chosen]
        mappable = _fill(board, attribution, leaf, {i: samples[i] for i in chosen}, scale, across)
        board.label_rows(words if across else names)
        board.label_columns(names if across else words)
    colour_bar(axes, mappable, scale, sides([cells["attribution"] for cells in samples]))
    return figure


def _fill(
    board: Board, attribution: Attribution, leaf: Leaf, samples: dict[int, dict[str, Array]], scale: Scale, across: bool
) -> Any:
    """The pictures of some samples; returns one that lies on the scale."""
    mappable: Any = None
    for place, (i, cells) in enumerate(samples.items()):
        for k, (word, pixels) in enumerate(cells.items()):
            at = (k, place) if across else (place, k)
            drawn = board.put(pixels, *at, **(scale.style if word == "attribution" else {}))
            if word == "attribution":
                mappable = drawn
            if word == "input":
                outline(board.ax, evidence_of(attribution.samples, i, leaf), drawn.get_extent())
    return mappable


def tallness(pictures: list[Array]) -> float:
    """Height over width of a cell that fits them all, within reason."""
    ratio = max(p.shape[0] / p.shape[1] for p in pictures)
    return float(min(max(ratio, 0.25), 3.0))


def _note(samples: list[Shown], given: Tensor | None) -> str:
    notes = dict.fromkeys(s.note for s in samples if s.note)
    said = [f"Input: {'; '.join(notes)}."] if notes else []
    if given is not None and tuple(given.shape[-2:]) != samples[0].heat.shape:
        size, full = "×".join(map(str, samples[0].heat.shape)), "×".join(map(str, given.shape[-2:]))
        said.append(f"The map has {size} values for {full} pixels; each is drawn as the block it stands for.")
    return " ".join(said)
