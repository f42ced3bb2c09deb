"""The filters of a convolution: what the first layer looks for as colours, deeper ones as signed maps."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from inspector.viz.figure import bare, canvas
from inspector.viz.images import broken_paint, default_columns, plot_mosaic, tile
from inspector.viz.scales import Array, array, signed
from inspector.viz.style import panel


@panel
def plot_filters(weight: Tensor | Array, *, ax: Axes | None = None, limit: int = 256, title: str = "") -> AxesImage:
    """Filters (out, in, height, width) as one mosaic. Of three input channels each filter is a colour picture with 0 in
    mid grey; otherwise every input channel is a signed map on one scale. At most ``limit`` are drawn."""
    values = array(weight)
    if values.ndim != 4:
        raise ValueError(f"filters are (out, in, height, width); these have shape {values.shape}")
    if values.shape[1] != 3:
        maps = values.reshape(-1, *values.shape[2:])
        scale = signed(maps, over=f"{len(maps)} filters")
        title = " · ".join(filter(None, [title, scale.range_text]))
        return plot_mosaic(maps, ax=ax, scale=scale, order="index", limit=limit, title=title)
    kept, high = values[:limit], signed(values).high
    columns = default_columns(len(kept), *kept.shape[2:])
    boards, corners = zip(*(tile(kept[:, channel], columns) for channel in range(3)), strict=True)
    picture = np.nan_to_num(np.clip(0.5 + 0.5 * np.stack(boards, axis=-1) / high, 0, 1), nan=1.0)
    ax = canvas(ax, (5, 5 * picture.shape[0] / picture.shape[1] + 0.4))
    drawn = bare(ax).imshow(picture, interpolation="nearest")
    paint = broken_paint(sum(boards), list(corners[0]), kept.shape[2:])
    if paint is not None:
        ax.imshow(paint, interpolation="nearest")
    shown = f"{len(kept)} of {len(values)} shown" if len(kept) < len(values) else ""
    ax.set_title(" · ".join(filter(None, [title, shown, f"mid grey is 0, full colour ±{high:.3g}"])))
    return drawn
