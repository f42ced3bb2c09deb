"""The grid of several attributions of the same samples: a row for each, the samples as columns, and a scale that is
printed. Magnitudes of different methods are not commensurate, so by default each row has a scale of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from inspector.records import Attribution
from inspector.viz.board import Board
from inspector.viz.figure import Figure, shorten
from inspector.viz.images import as_picture, outline, thin
from inspector.viz.scales import Array, Scale, array, number, signed
from inspector.viz.strips import strips
from inspector.viz.style import styled
from inspector.viz.titles import evidence_note, sample_label, shown_of
from inspector.words.facts import Piece, baseline_of, evidence_of, pieces, target_of, where_of

Shared = Literal["shared", "row", "panel"]
Heats = dict[str, list[Array | None]]


class Rows(NamedTuple):
    """What is drawn: attributions by label, which of them are controls, how many samples, and who shares a scale."""

    attributions: Mapping[str, Attribution]
    controls: Sequence[str] = ()
    shown: int = 6
    share: Shared = "row"

    @property
    def first(self) -> Attribution:
        return next(iter(self.attributions.values()))

    @property
    def pieces(self) -> dict[str, Piece]:
        return {label: pieces(a)[0] for label, a in self.attributions.items()}

    def named(self, label: str) -> str:
        """A label as it is written, controls marked."""
        control = label in self.controls
        return shorten(label or "(model)", 18 if control else 26) + (" (control)" if control else "")

    @property
    def heats(self) -> Heats:
        """The maps of each label, sample by sample; None where it has none over the positions of the samples."""
        found = self.pieces
        fits = {label: has_map(piece, found) for label, piece in found.items()}
        return {
            label: [_heat(piece, i) if fits[label] else None for i in range(self.shown)] for label, piece in found.items()
        }


def has_map(piece: Piece, among: Mapping[str, Piece]) -> bool:
    """Whether a piece has a map over what the others have maps over: pixels where there are images, else positions. What
    a layer without positions gives, such as one number per class, is no map."""
    if piece.heat is None or any(p.view == "image" for p in among.values()):
        return piece.heat is not None and piece.heat.dim() == 3
    return piece.heat.dim() == 2 and (piece.values.dim() > 2 or piece.heat.shape[1] in _lengths(among))


def _lengths(among: Mapping[str, Piece]) -> set[int]:
    first = next(iter(among.values()))
    over = first.input if first.input is not None and first.view in ("sequence", "tokens") else first.heat
    return {over.shape[1]} if over is not None and over.dim() > 1 else set()


def count_of(samples: int | None, total: int, *, images: bool) -> int:
    """How many samples are drawn: as many as were asked for, by default as many as read well; sixteen images at most."""
    if samples is not None and samples < 1:
        raise ValueError(f"samples={samples} shows nothing; ask for 1 or more of the {total}")
    wanted = samples or (6 if images else 3)
    return min(wanted, total, 16)


def check_scale(scale: str) -> None:
    """Raises ValueError that names the three ways to share a scale."""
    if scale not in ("shared", "row", "panel"):
        raise ValueError(f"scale={scale!r} is none of 'shared', 'row' (within a method), 'panel'")


def show_attributions(
    attributions: Mapping[str, Attribution], *, samples: int | None = None, scale: Shared = "row", **figure: Any
) -> Figure:
    """Several methods or layers on the same samples; ``scale`` as in the picture of a comparison. Layers without a map
    over the positions are named below."""
    check_scale(scale)
    total = max((len(a.samples) for a in attributions.values()), default=0)
    if not total:
        why = f"{len(attributions)} attributions of a batch of 0" if attributions else "the mapping is empty"
        raise ValueError(f"there is no attribution to show: {why}")
    found = Rows(attributions).pieces
    mapped = {label: a for label, a in attributions.items() if has_map(found[label], found)} or attributions
    rows = Rows(mapped, (), count_of(samples, total, images=is_images(found)), scale)
    with styled():
        size = (9.8, grid_height(rows) + 1.2)
        drawn = Figure(natural=size, **figure)
        draw_grid(rows, drawn, drawn.add_gridspec(1, 1)[0])
    target = target_of(rows.first)
    rest = [rows.named(label) for label in attributions if label not in mapped]
    drawn.foot(f"No map over the positions: {', '.join(rest)}." if rest else "")
    drawn.head(f"{len(attributions)} attributions" + (f" → {target}" if target else ""), shown_of(rows.shown, total))
    return drawn


def is_images(found: Mapping[str, Piece]) -> bool:
    return any(piece.view == "image" for piece in found.values())


def labelled(attributions: Sequence[Attribution]) -> dict[str, Attribution]:
    """Labels from method and layer, numbered where they are the same."""
    names = [where_of(a) for a in attributions]
    marks = [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]
    return dict(zip(marks, attributions, strict=True))


def grid_height(rows: Rows) -> float:
    """Inches that the grid of maps takes."""
    found, labels = rows.pieces, len(rows.attributions)
    piece = next(iter(found.values()))
    if is_images(found):
        return 0.75 + (labels + 1) * min(1.0, 6.6 / max(rows.shown, 1)) * _tall(piece)
    return rows.shown * (0.95 + 0.19 * labels + 0.75 * (piece.view == "sequence")) + 0.3


def _tall(piece: Piece) -> float:
    first = piece.input if piece.input is not None and piece.input.dim() == 4 else piece.heat
    if first is None or first.dim() < 2:
        return 1.0
    return float(min(max(first.shape[-2] / first.shape[-1], 0.3), 1.6))


def draw_grid(rows: Rows, figure: Figure, place: Any) -> None:
    """Draw into ``place``, a cell of the figure's grid, and say below how to read the colours."""
    heats = rows.heats
    scales = scales_of(heats, rows.share, controls=rows.controls)
    if is_images(rows.pieces):
        _maps(rows, figure, place, heats, scales)
    else:
        names = {label: rows.named(label) for label in heats}
        strips(rows.first, figure, place, heats, scales, names)
        figure.foot("A minus marks what is clearly negative.")
    figure.foot(_scale_note(rows.share), evidence_note(rows.first.samples, pieces(rows.first)[0].leaf))


def _heat(piece: Piece, index: int) -> Array | None:
    return None if piece.heat is None or index >= len(piece.heat) else array(piece.heat[index])


def scales_of(heats: Heats, share: Shared, *, controls: Sequence[str] = ()) -> dict[str, list[Scale]]:
    """For each label one scale per sample, the same object wherever it is shared."""
    if share == "shared":
        every = signed(
            [h for label, row in heats.items() if label not in controls for h in row if h is not None], over="all maps"
        )
        return {label: [every] * len(row) for label, row in heats.items()}
    if share == "row":
        rows = {label: signed([h for h in row if h is not None], over="the row") for label, row in heats.items()}
        return {label: [rows[label]] * len(row) for label, row in heats.items()}
    return {label: [signed([] if h is None else h, over="this map") for h in row] for label, row in heats.items()}


def _scale_note(share: Shared) -> str:
    rule = "99th percentile of |a| (the maximum where that is 0)"
    said = {
        "row": f"Each row has its own scale, printed at its right: red is +, blue −, white 0; limits: {rule} over the row. "
        "Colours compare within a row only.",
        "shared": f"One scale for all maps, printed at the right: red is +, blue −, white 0; limits: {rule} over all "
        "methods but the control. Methods have different units, so pale is not unimportant.",
        "panel": f"Each map has its own scale: red is +, blue −, white 0; limits: {rule} of that map. "
        "Colours compare within a map only.",
    }
    return said[share]


def _maps(rows: Rows, figure: Figure, place: Any, heats: Heats, scales: dict[str, list[Scale]]) -> None:
    piece = next(p for p in rows.pieces.values() if p.view == "image")
    board = Board(figure.add_subplot(place), len(heats) + 1, rows.shown, _tall(piece))
    for i in range(rows.shown):
        if piece.input is not None and piece.input.dim() == 4:
            drawn = board.put(as_picture(piece.input[i])[0], 0, i)
            outline(board.ax, evidence_of(rows.first.samples, i, piece.leaf), drawn.get_extent())
        for row, label in enumerate(heats, start=1):
            _map(board, heats[label][i], row, i, scales[label][i])
    board.label_columns([_column(rows.first, i) for i in range(rows.shown)])
    board.label_rows(["input", *(_row_label(rows, label) for label in heats)])
    said = [_range(row) if any(h is not None for h in heats[label]) else "" for label, row in scales.items()]
    board.label_right(["", *said])


def _map(board: Board, heat: Array | None, row: int, column: int, scale: Scale) -> None:
    if heat is None or heat.ndim != 2:
        board.write("no map", row, column)
    else:
        board.put(thin(heat), row, column, **scale.style)


def _column(attribution: Attribution, index: int) -> str:
    return "\n".join(line for line in sample_label(attribution, index, 14).split("\n") if not line.startswith("δ"))


def _row_label(rows: Rows, label: str) -> str:
    a = rows.attributions[label]
    lines = [rows.named(label)]
    if a.layer is not None and a.layer not in label:
        lines.append(f"at {shorten(a.layer, 24)}")
    base = baseline_of(a)
    lines += [f"baseline {shorten(base, 20)}"] if base else []
    if a.delta is not None and a.delta.numel():
        lines.append(f"sum off by {number(a.delta.abs().max().item())}")
    return "\n".join(lines)


def _range(row: list[Scale]) -> str:
    if all(scale is row[0] for scale in row):
        return row[0].range_text
    return f"own scales,\n±{min(s.high for s in row):.2g} to ±{max(s.high for s in row):.2g}"
