"""How words are fitted to the room there is: wrapped by their true width, cut at a word, told apart by what differs."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path


def wrap(words: str, width: float, size: float, *, bold: bool = False) -> str:
    """``words`` in lines no wider than ``width`` inches at ``size`` points; lines that are there stay apart."""
    return "\n".join(part for line in words.split("\n") for part in _lines(line, width, size, bold))


@lru_cache(512)
def _lines(words: str, width: float, size: float, bold: bool) -> tuple[str, ...]:
    letters = max(int(width * 72 / (0.45 * size)), 8)
    while True:
        lines = tuple(textwrap.wrap(words, letters)) or ("",)
        widest = max(wide(line, size, bold) for line in lines)
        if widest <= width or letters <= 8:
            return lines
        letters = max(8, min(letters - 1, int(letters * (width / widest + 1) / 2)))


@lru_cache(2048)
def wide(line: str, size: float, bold: bool = False) -> float:
    """Inches that one line takes in the font of the figures."""
    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal", size=size)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        width, _, _ = text_to_path.get_text_width_height_descent(line, font, ismath=False)
    return float(width) / 72


def clipped(sentence: str, length: int) -> str:
    """Prose is cut at its end, between two words."""
    sentence = " ".join(sentence.split())
    if len(sentence) <= length:
        return sentence
    head = sentence[: length - 1]
    return (head[: head.rfind(" ")] if " " in head[length // 2 :] else head).rstrip(" ,;:.") + "…"


def apart(names: Sequence[str]) -> list[str]:
    """What tells dotted names from each other: of ``encoder.0.attn`` and ``encoder.1.attn`` the ``0`` and the ``1``."""
    parts = [name.split(".") for name in names]
    shortest = min(map(len, parts), default=0)
    if len(set(names)) < 2 or len(set(names)) < len(names):
        return list(names)
    head = _shared(parts, shortest - 1)
    tail = _shared([part[::-1] for part in parts], shortest - head - 1)
    return [".".join(part[head : len(part) - tail]) for part in parts]


def _shared(parts: list[list[str]], most: int) -> int:
    """How many of the first parts, ``most`` of them at most, are the same everywhere."""
    count = 0
    while count < most and all(part[count] == parts[0][count] for part in parts):
        count += 1
    return count
