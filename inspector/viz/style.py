"""The one look of all pictures: colours, letters and lines, in force while something is drawn and never longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib.style

INK, MUTED, FAINT, ALARM = "#1f2328", "#656d76", "#d8dee4", "#b35900"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")  # Okabe and Ito: safe for all eyes
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))  # so that colour is never alone
EVIDENCE = "#e69f00"  # around what is known to be the true evidence
TITLE, LABEL, SMALL = 10.5, 8.5, 7.5
_FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS", "Hiragino Sans GB"),
    *("Microsoft YaHei", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Emoji", "Segoe UI Emoji"),
)

_STYLE: dict[str, Any] = {
    "font.size": LABEL,
    "text.color": INK,
    "text.parse_math": False,
    "axes.titlesize": LABEL + 0.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.labelsize": LABEL,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8c959f",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": "#8c959f",
    "ytick.color": "#8c959f",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.handlelength": 2.2,
    "image.interpolation": "nearest",
    "image.resample": False,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "inspector",
}


@cache
def _families() -> list[str]:
    """DejaVu Sans comes with matplotlib; what it lacks is taken from fonts that this machine happens to have."""
    from matplotlib.font_manager import fontManager

    return ["DejaVu Sans", *(name for name in _FALLBACKS if name in set(fontManager.get_font_names()))]


_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)


@contextmanager
def styled() -> Iterator[None]:
    """The one style, for the time of a drawing; the user's own settings are back afterwards."""
    if _INSIDE.get():
        yield
        return
    token = _INSIDE.set(True)
    try:
        with matplotlib.style.context({**_STYLE, "font.family": _families()}, after_reset=True):
            yield
    finally:
        _INSIDE.reset(token)


P = ParamSpec("P")
R = TypeVar("R")


def panel(draw: Callable[P, R]) -> Callable[P, R]:
    """A plot function that draws in the one style, also on axes of the user's own."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with styled():
            return draw(*args, **kwargs)

    return drawn
