"""The picture of one call: feature maps, states over time, attention or gates, whichever its values are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inspector.records import Call
from inspector.sites import Kind
from inspector.tensors import walk
from inspector.viz.anything import tensor_figure
from inspector.viz.figure import Figure


def call_figure(call: Call, *, kind: Kind | None = None, sample: int = 0, **figure: Any) -> Figure:
    """One ``sample`` of one ``kind`` of value (default: the first that holds a tensor)."""
    for chosen in [kind] if kind else call.kinds:
        tensors = list(walk(getattr(call, chosen)))
        if tensors:
            return _tensor(call, chosen, tensors[0][1], sample, figure)
    reasons = "; ".join(f"{k}: {call.why.get(k, 'no tensor')}" for k in call.kinds)
    raise LookupError(f"{call.site} holds no tensor to show ({reasons})")


def _tensor(call: Call, kind: Kind, tensor: Tensor, sample: int, options: dict[str, Any]) -> Figure:
    title = f"{call.site._replace(kind=kind)} ({call.module})"
    one = tensor[sample] if tensor.dim() > 2 and sample < len(tensor) else tensor
    return tensor_figure(one, title=title, **options)
