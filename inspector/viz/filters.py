"""The filters of a convolution: what the first layer looks for as colours, deeper ones as signed maps."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from inspector.viz.figure import bare, canvas
from inspector.viz.images import default_columns, plot_mosaic, tile
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
        return plot_mosaic(maps, ax=ax, scale=scale, order="index", limit=limit, title=title)
    kept, high = values[:limit], signed(values).high
    columns = default_columns(len(kept), *kept.shape[2:])
    boards = [tile(kept[:, channel], columns)[0] for channel in range(3)]
    picture = np.nan_to_num(np.clip(0.5 + 0.5 * np.stack(boards, axis=-1) / high, 0, 1), nan=1.0)
    ax = canvas(ax, (5, 5 * picture.shape[0] / picture.shape[1] + 0.4))
    drawn = bare(ax).imshow(picture, interpolation="nearest")
    ax.set_title(title + (f" · {len(kept)} of {len(values)} shown" if len(kept) < len(values) else ""))
    return drawn
