"""The figure that everything is drawn on. It lives outside pyplot and carries its own style into every drawing, so it is
shown exactly once in a notebook, leaks nothing, and looks the same whatever settings the user works with.

Names, tokens and labels are drawn as they are: mathtext is off, so that ``$x$`` stays three characters.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter

from inspector.viz.lettering import wrap
from inspector.viz.style import ALARM, INK, LABEL, MUTED, SMALL, TITLE, styled

_MARGIN = 0.14  # inches around the text of head and foot


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure with a head (title, facts, alarms) and a foot (scales, doubts) that never meet the axes.

    ``natural``: the size in inches that its words were set for; in a smaller figure they shrink with it.
    """

    def __init__(self, *args: Any, natural: tuple[float, float] | None = None, **kwargs: Any) -> None:
        self._natural = natural
        if natural is not None and not args:
            kwargs = {"figsize": natural, **kwargs}
        with styled():
            super().__init__(*args, **{"dpi": 110, "layout": "constrained", "facecolor": "white", **kwargs})
            self._title = self._line("", TITLE, INK, weight="bold")
            self._facts = self._line("", LABEL, MUTED)
            self._alarms = self._line("", LABEL, ALARM)
            self._foot = self._line("", SMALL, MUTED)
        self._words = {self._title: "", self._facts: "", self._alarms: "", self._foot: ""}

    def _line(self, text: str, size: float, color: str, **more: Any) -> Text:
        return self.text(0, 0, text, size=size, color=color, ha="left", va="top", linespacing=1.35, **more)

    def head(self, title: str, facts: str = "", *alarms: str) -> None:
        """What this is (bold), the facts that belong to it, and what is wrong; all wrap to the figure's width."""
        self._words |= {self._title: title, self._facts: facts, self._alarms: "\n".join(alarms)}
        self._arrange()

    def foot(self, *notes: str) -> None:
        """Adds notes at the bottom, such as the scale that the colours share."""
        self._words[self._foot] = "\n".join(filter(None, [self._words[self._foot], *notes]))
        self._arrange()

    @property
    def words(self) -> str:
        """Head and foot as they were given, before they are wrapped."""
        return "\n".join(filter(None, self._words.values()))

    @property
    def shrink(self) -> float:
        """How much smaller the figure is than what its words were set for; 1 where it is not."""
        if self._natural is None:
            return 1.0
        return float(min(1.0, *(self.get_size_inches() / np.array(self._natural))))

    @contextmanager
    def _shrunk(self) -> Iterator[None]:
        """Words, lines and marks as small as the figure asks, for the time of a drawing."""
        k = self.shrink
        if k > 0.98:
            yield
            return
        for ax in self.axes:
            for axis in (ax.xaxis, ax.yaxis):
                axis.get_majorticklabels()  # makes the ticks, so that they are found below
        sizes = [(text, float(text.get_fontsize())) for text in self.findobj(Text)]
        widths = [(line, line.get_linewidth(), line.get_markersize()) for line in self.findobj(Line2D)]
        _resize(sizes, widths, k)
        try:
            yield
        finally:
            known = {id(text) for text, _ in sizes}
            late = [(text, float(text.get_fontsize()) / k) for text in self.findobj(Text) if id(text) not in known]
            _resize([*sizes, *late], widths, 1.0)

    def get_tightbbox(self, *args: Any, **kwargs: Any) -> Any:
        """As in matplotlib, of the words at the size in which they are drawn."""
        with self._shrunk():
            return super().get_tightbbox(*args, **kwargs)

    def _arrange(self) -> None:
        """Wrap head and foot to the present width and leave the axes what remains."""
        width, height = self.get_size_inches()
        margin = _MARGIN * self.shrink
        for text, words in self._words.items():
            bold = text is self._title
            text.set_text(wrap(words, width - 2 * margin, float(text.get_fontsize()), bold=bold))
        top = margin if self._words[self._title] else 0.0
        for text in (self._title, self._facts, self._alarms):
            text.set_position((margin / width, 1 - top / height))
            top += _tall(text)
        top += 0.6 * margin if top else 0.0
        bottom = _tall(self._foot)
        self._foot.set_position((margin / width, (bottom + 0.4 * margin) / height))
        below = (bottom + 0.5 * margin) / height if bottom else 0.0
        room = max(1 - below - top / height, 0.05)
        engine = self.get_layout_engine()
        if isinstance(engine, ConstrainedLayoutEngine):
            engine.set(rect=(0, below, 1 - 0.5 * margin / width, room), w_pad=0.5 * margin, h_pad=0.5 * margin)

    def draw(self, renderer: Any) -> None:
        """Draw in the one style; glyphs that no font here has are boxes, not warnings."""
        with styled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            with self._shrunk():
                self._arrange()
                super().draw(renderer)

    def savefig(self, fname: Any, **options: Any) -> None:
        """As in matplotlib; 200 dots an inch unless told, text stays text in PDF and SVG."""
        with styled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
            super().savefig(fname, **{"dpi": 200, **options})

    def _repr_png_(self) -> bytes:
        return self.png(dpi=130)

    def png(self, *, dpi: float = 110) -> bytes:
        """The picture as the bytes of a PNG file."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()


def canvas(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The axes to draw on: the given ones, or those of a new figure of ``size`` inches."""
    return Figure(figsize=size).add_subplot() if ax is None else ax


def bare(ax: Axes) -> Axes:
    """No ticks and no frame, for pictures."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


_DECADES = 12  # further down than so many powers of ten below the largest nothing is told apart


def symlog(ax: Axes, which: Literal["x", "y"], sizes: Any) -> None:
    """A symmetric log scale around 0 that keeps the smallest of ``sizes`` (positive numbers) apart, with few ticks."""
    low, high = (int(np.floor(np.log10(end))) for end in (np.min(sizes), np.max(sizes)))
    low = max(low, high - _DECADES)
    set_scale, axis = (ax.set_xscale, ax.xaxis) if which == "x" else (ax.set_yscale, ax.yaxis)
    set_scale("symlog", linthresh=10.0**low)
    every = max(1, -(-(high - low + 1) // 3))
    powers = [10.0**k for k in range(low, high + 2, every)]
    ticks = [*(-p for p in reversed(powers)), 0.0, *powers]
    axis.set_ticks(ticks, labels=[f"{tick:g}".replace("-", "−") for tick in ticks])


def log_axis(ax: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """A log scale from ``low`` to ``high`` (both above 0) with few plain numbers: powers of ten, and where these are too
    few, threes or twos and fives between them."""
    set_scale, set_limits, axis = (
        (ax.set_xscale, ax.set_xlim, ax.xaxis) if which == "x" else (ax.set_yscale, ax.set_ylim, ax.yaxis)
    )
    set_scale("log")
    set_limits(low, high)
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    every = max(1, -(-(last - first) // 8))
    steps = (1, 2, 5) if high / low < 20 else (1, 3) if high / low < 100 else (1,)
    ticks = [step * 10.0**k for k in range(first, last + 1, every) for step in steps]
    kept = [tick for tick in ticks if low <= tick <= high] or [float(np.sqrt(low * high))]
    axis.set_ticks(kept, labels=[f"{tick:.3g}".replace("-", "−") for tick in kept])
    axis.set_minor_formatter(NullFormatter())


def shorten(name: str, length: int = 34) -> str:
    """Long names keep their beginning and their end, which tell siblings apart."""
    name = name.replace("\n", " ")
    keep = length - 1
    return name if len(name) <= length else f"{name[: keep // 2]}…{name[-(keep - keep // 2) :]}"


def _resize(sizes: list[tuple[Text, float]], widths: list[tuple[Line2D, float, float]], k: float) -> None:
    for text, size in sizes:
        text.set_fontsize(size * k)
    for line, width, marker in widths:
        line.set(linewidth=width * k, markersize=marker * k)


def _tall(text: Text) -> float:
    """Height in inches of what ``text`` holds."""
    lines = text.get_text().count("\n") + 1 if text.get_text() else 0
    return lines * float(text.get_fontsize()) * 1.42 / 72
