"""Looking: one picture for every noun through ``show``, and the single panels as functions that take ``ax=``.

Figures live outside pyplot: nothing is shown twice, nothing pops up, no setting of the user's is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from inspector.records import Assessment, Attribution, Call, Comparison, History, Store, Summary
from inspector.viz.anything import plot_tensor, tensor_figure
from inspector.viz.assessment import plot_classes, plot_confusion, plot_groups, show_assessment
from inspector.viz.attribution import show_attribution
from inspector.viz.bars import plot_features, plot_intervals
from inspector.viz.comparison import plot_agreement, plot_cost, plot_scores, show_comparison
from inspector.viz.curves import plot_curves, plot_scalars
from inspector.viz.figure import Figure
from inspector.viz.history import show_history
from inspector.viz.images import plot_heat, plot_image, plot_mosaic, plot_overlay
from inspector.viz.layers import plot_layers
from inspector.viz.sequences import plot_series, plot_steps
from inspector.viz.store import plot_spreads, plot_thumbnails, show_call, show_store
from inspector.viz.structure import plot_amounts, plot_tree, show_summary
from inspector.viz.tokens import plot_tokens, tokens_html

__all__ = [
    "Figure",
    "plot_agreement",
    "plot_amounts",
    "plot_classes",
    "plot_confusion",
    "plot_cost",
    "plot_curves",
    "plot_features",
    "plot_groups",
    "plot_heat",
    "plot_image",
    "plot_intervals",
    "plot_layers",
    "plot_mosaic",
    "plot_overlay",
    "plot_scalars",
    "plot_scores",
    "plot_series",
    "plot_spreads",
    "plot_steps",
    "plot_tensor",
    "plot_thumbnails",
    "plot_tokens",
    "plot_tree",
    "show",
    "tokens_html",
]

_PICTURES: dict[type, Callable[..., Figure]] = {
    Assessment: show_assessment,
    Attribution: show_attribution,
    Call: show_call,
    Comparison: show_comparison,
    History: show_history,
    Store: show_store,
    Summary: show_summary,
    Tensor: tensor_figure,
}


def show(record: Any, *more: Any, **options: Any) -> Figure:
    """The picture of a record, as a Figure that shows itself in a notebook and is saved with ``.savefig``.

    ``more``: others of the same kind on shared axes; for two stores, their difference. ``options``: ``figsize``, and
    what the record's own picture takes, such as ``samples=4``. Raises TypeError for what has no picture.
    """
    kind = next((kind for kind in _PICTURES if isinstance(record, kind)), None)
    if kind is None:
        raise TypeError(f"a {type(record).__name__} has no picture; show takes {', '.join(k.__name__ for k in _PICTURES)}")
    wrong = [type(other).__name__ for other in more if not isinstance(other, kind)]
    if wrong:
        raise TypeError(f"a {kind.__name__} and a {wrong[0]} do not share axes; show each by itself")
    return _PICTURES[kind](record, *more, **options)
