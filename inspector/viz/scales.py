"""Colour scales that cannot mislead: signed values lie on a diverging map with exactly 0 in its middle, the limits come
from the 99th percentile over a group that is named, and whatever is no number has a colour of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, Normalize
from torch import Tensor

BROKEN = "#e6b800"  # NaN and infinity: neither red, blue, grey nor on viridis at this lightness
ABSENT = "#eceff2"  # nothing was there: padding, a layer that did not run

Array = np.ndarray[Any, np.dtype[Any]]


@cache
def colour_map(name: str = "RdBu_r") -> Colormap:
    """A map with an odd number of colours, so that 0 gets the middle one exactly."""
    colours = matplotlib.colormaps[name].resampled(257)
    return colours.with_extremes(bad=BROKEN)


@dataclass(frozen=True)
class Scale:
    """Limits for one group of maps. low = -high for signed values; rule: how high was found; over: which group;
    beyond: the share of values that lie outside; broken: how many are NaN or infinite."""

    low: float
    high: float
    rule: str
    over: str = ""
    beyond: float = 0.0
    broken: int = 0

    @property
    def norm(self) -> Normalize:
        """For signed scales, ``norm(0)`` is exactly one half."""
        return Normalize(self.low, self.high)

    @property
    def cmap(self) -> Colormap:
        return colour_map("RdBu_r" if self.low < 0 else "viridis")

    @property
    def style(self) -> dict[str, Any]:
        """Keywords for imshow."""
        return {"norm": self.norm, "cmap": self.cmap, "interpolation": "nearest"}

    def colour(self, value: float) -> tuple[float, float, float, float]:
        """The colour of one value."""
        at = self.norm(value) if value == value else np.nan
        red, green, blue, alpha = self.cmap(np.ma.masked_invalid([at]))[0]
        return float(red), float(green), float(blue), float(alpha)

    @property
    def extend(self) -> str:
        """Which ends of the colour bar are arrows."""
        if not self.beyond:
            return "neither"
        return "both" if self.low < 0 else "max"

    @property
    def range_text(self) -> str:
        return f"±{self.high:.3g}" if self.low < 0 else f"{self.low:.3g} to {self.high:.3g}"

    def __str__(self) -> str:
        over = f" over {self.over}" if self.over else ""
        beyond = f"; {share(self.beyond)} of the values lie beyond" if self.beyond else ""
        broken = f"; {self.broken:,} not finite (yellow)" if self.broken else ""
        return f"{self.range_text} ({self.rule}{over}){beyond}{broken}"


def signed(values: Any, *, over: str = "", percentile: float = 99.0) -> Scale:
    """Symmetric limits around 0 for a group of arrays; where the percentile is 0 the maximum, where that is 0 one."""
    finite, broken = _finite(values)
    size = np.abs(finite)
    high, rule = _limit(size, percentile, "|a|")
    return Scale(-high, high, rule, over, _share(size > high), broken)


def sequential(values: Any, *, over: str = "", percentile: float = 99.0) -> Scale:
    """From 0 up for values that are never negative; where one is, the scale is ``signed`` after all."""
    finite, broken = _finite(values)
    if finite.size and finite.min() < 0:
        return signed(values, over=over, percentile=percentile)
    high, rule = _limit(finite, percentile, "the values")
    return Scale(0.0, high, rule, over, _share(finite > high), broken)


def _limit(size: Array, percentile: float, of: str) -> tuple[float, str]:
    if not size.size:
        return 1.0, "there is no finite value"
    top, high = float(size.max()), float(np.percentile(size, percentile))
    if high > 0 and high * 1e6 > top:
        return high, f"{percentile:g}th percentile of {of}" if percentile < 100 else f"maximum of {of}"
    return (top, f"maximum of {of}") if top > 0 else (1.0, "all values are 0")


def share(part: float) -> str:
    """A share as a percentage that never rounds to a false 0."""
    return "0%" if part == 0 else f"{100 * part:.1f}%" if part >= 0.0005 else "<0.1%"


def array(value: Any) -> Array:
    """Numbers as a float64 array on the CPU; whatever is infinite becomes NaN, so that it gets the colour of broken."""
    if isinstance(value, Tensor):
        dense = value.detach().to_dense() if value.layout != _strided() else value.detach()
        value = (dense.abs() if dense.is_complex() else dense).cpu().double().numpy()
    numbers = np.array(value, dtype=np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _strided() -> Any:
    import torch

    return torch.strided


def _finite(values: Any) -> tuple[Array, int]:
    single = isinstance(values, (Tensor, np.ndarray))
    arrays: Iterable[Any] = [values] if single else values
    flat = [array(v).reshape(-1) for v in arrays]
    joined = np.concatenate(flat) if flat else np.empty(0)
    finite = joined[np.isfinite(joined)]
    return finite, joined.size - finite.size


def _share(mask: Array) -> float:
    return float(mask.mean()) if mask.size else 0.0


def sides(values: Any) -> str:
    """What the ends of a signed scale mean; where nothing is negative, that the method gives no sign."""
    finite, _ = _finite(values)
    return "against  ←  0  →  for" if not finite.size or finite.min() < 0 else "how much it counts (no sign)"


def colour_bar(ax: Any, drawn: Any, scale: Scale, label: str = "", **options: Any) -> Any:
    """A colour bar with the limits and 0 as ticks, arrows where values lie beyond, and signs beside the numbers."""
    first = ax[0] if isinstance(ax, (list, tuple)) else ax
    if "shrink" not in options and first.figure.get_figheight() > 4.5:
        options = {"shrink": 0.35 + 1.8 / first.figure.get_figheight(), **options}
    settings = {"fraction": 0.04, "pad": 0.02, "aspect": 26, "shrink": 0.9, "extendfrac": 0.03, **options}
    bar = first.figure.colorbar(drawn, ax=ax, extend=scale.extend, **settings)
    ticks = [scale.low, 0.0, scale.high] if scale.low < 0 else [scale.low, scale.high]
    bar.set_ticks(ticks, labels=[number(t, sign=scale.low < 0) for t in ticks])
    bar.outline.set_visible(False)
    bar.set_label(label)
    return bar


def number(value: float, *, sign: bool = False) -> str:
    """Three digits, a true minus, and a plus where the sign matters."""
    text = f"{value:+.3g}" if sign and value else f"{value:.3g}"
    return text.replace("-", "−")
