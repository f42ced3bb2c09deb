"""Looking: one picture for every noun through ``show``, and the single panels as functions that take ``ax=``.

Figures live outside pyplot: nothing is shown twice, nothing pops up, no setting of the user's is changed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from inspector.records import (
    Assessment,
    Attribution,
    Call,
    Comparison,
    Coverage,
    Curve,
    Finding,
    History,
    Samples,
    Scores,
    Store,
    Summary,
    Task,
)
from inspector.viz import several
from inspector.viz.anything import plot_tensor, tensor_figure
from inspector.viz.assessment import plot_classes, plot_confusion, plot_groups, show_assessment
from inspector.viz.attention import plot_attention, plot_heads, plot_patches, rollout
from inspector.viz.attribution import show_attribution
from inspector.viz.bars import plot_features, plot_intervals
from inspector.viz.call import show_call
from inspector.viz.comparison import plot_agreement, plot_cost, plot_scores, show_comparison
from inspector.viz.curves import plot_curves, plot_scalars
from inspector.viz.figure import Figure
from inspector.viz.filters import plot_filters
from inspector.viz.flow import plot_gradient_flow, plot_histogram, plot_update_ratio
from inspector.viz.gates import plot_gate, plot_saturation
from inspector.viz.grid import show_attributions
from inspector.viz.history import show_history
from inspector.viz.images import plot_heat, plot_image, plot_mosaic, plot_overlay
from inspector.viz.layers import plot_layers
from inspector.viz.nouns import plot_findings, show_coverage, show_curve, show_findings, show_samples, show_scores, show_task
from inspector.viz.runs import plot_gradient_flows, plot_update_ratios
from inspector.viz.sequences import plot_series, plot_steps
from inspector.viz.several import plot_bars
from inspector.viz.spreads import plot_spreads
from inspector.viz.store import plot_thumbnails, show_store
from inspector.viz.structure import plot_amounts, plot_tree, show_summary
from inspector.viz.tokens import plot_tokens, tokens_html

__all__ = [
    "Figure",
    "plot_agreement",
    "plot_amounts",
    "plot_attention",
    "plot_bars",
    "plot_classes",
    "plot_confusion",
    "plot_cost",
    "plot_curves",
    "plot_features",
    "plot_filters",
    "plot_findings",
    "plot_gate",
    "plot_gradient_flow",
    "plot_gradient_flows",
    "plot_groups",
    "plot_heads",
    "plot_heat",
    "plot_histogram",
    "plot_image",
    "plot_intervals",
    "plot_layers",
    "plot_mosaic",
    "plot_overlay",
    "plot_patches",
    "plot_saturation",
    "plot_scalars",
    "plot_scores",
    "plot_series",
    "plot_spreads",
    "plot_steps",
    "plot_tensor",
    "plot_thumbnails",
    "plot_tokens",
    "plot_tree",
    "plot_update_ratio",
    "plot_update_ratios",
    "rollout",
    "show",
    "tokens_html",
]

_PICTURES: dict[type, Callable[..., Figure]] = {
    Assessment: show_assessment,
    Attribution: show_attribution,
    Call: show_call,
    Comparison: show_comparison,
    Coverage: show_coverage,
    Curve: show_curve,
    Finding: lambda *findings, **options: show_findings(findings, **options),
    History: show_history,
    Samples: show_samples,
    Scores: show_scores,
    Store: show_store,
    Summary: show_summary,
    Task: show_task,
    Tensor: tensor_figure,
}
_SEVERAL: dict[type, Callable[..., Figure]] = {  # kinds whose common picture is another than that of one
    Call: several.several_calls,
    Comparison: several.several_comparisons,
    Coverage: several.several_coverages,
    Samples: several.several_samples,
    Scores: several.several_scores,
    Summary: several.several_summaries,
    Task: several.several_tasks,
    Tensor: several.several_tensors,
}


def show(record: Any, *more: Any, **options: Any) -> Figure:
    """The picture of a record, as a Figure that shows itself in a notebook and is saved with ``.savefig``.

    ``more``: others of the same kind on shared axes; for stores their difference. A list of findings or of
    attributions, or a dict of attributions such as ``attribute_layers`` gives, is one picture. ``options``: ``figsize``,
    and what the record's own picture takes, such as ``samples=4``. Raises TypeError for what has no picture.
    """
    if isinstance(record, (list, tuple)) and not more and _all_are(record, (Finding, Attribution, History)):
        return show(*record, **options) if record else show_findings([], **options)
    if isinstance(record, dict) and not more and _all_are(record.values(), (Attribution,)):
        return show_attributions(record, **options)
    kind = next((kind for kind in _PICTURES if isinstance(record, kind)), None)
    if kind is None:
        known = ", ".join(k.__name__ for k in _PICTURES)
        raise TypeError(
            f"{type(record).__name__} has no picture; show takes {known}, lists of attributions, histories or findings and "
            "dicts of attributions; make a tensor of other numbers"
        )
    wrong = [type(other).__name__ for other in more if not isinstance(other, kind)]
    if wrong:
        raise TypeError(f"a {kind.__name__} and a {wrong[0]} do not share axes; show each by itself")
    picture = _SEVERAL.get(kind, _PICTURES[kind]) if more else _PICTURES[kind]
    try:
        return picture(record, *more, **options)
    except (AttributeError, TypeError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        raise TypeError(f"{unknown[1]!r} is no option of the picture of {kind.__name__}; {_options(picture)}") from error


def _options(picture: Callable[..., Figure]) -> str:
    known = [p.name for p in inspect.signature(picture).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return f"it takes {', '.join([*known, 'figsize'])}"


def _all_are(items: Iterable[Any], kinds: tuple[type, ...]) -> bool:
    return all(isinstance(item, kinds) for item in items)
