"""What the page needs to draw attention: each head of each layer as a matrix, one byte a weight."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from inspector.records import Store
from inspector.report.markup import Html, join
from inspector.report.packing import Packed, viewer
from inspector.tensors import walk

BUDGET = 40_000_000  # weights: 12 layers of 12 heads over 512 tokens, and a little


def attention_viewer(record: Store) -> Html:
    """All heads at a glance, one at a time large; nothing where no attention was captured."""
    layers = dict(_layers(record))
    if not layers:
        return join([])
    packed = Packed("u1")
    samples = min(len(weights) for weights in layers.values())
    each = sum(weights[0].numel() for weights in layers.values())
    shown = max(1, min(samples, 8, BUDGET // max(each, 1)))
    fitting = _fitting(layers)
    data = {
        "layers": list(fitting),
        "heads": [[[packed.add_share(head) for head in weights[i]] for i in range(shown)] for weights in fitting.values()],
        "samples": samples,
        "all": len(layers),
    }
    return viewer("attention", data, packed, "Attention, head by head")


def _layers(record: Store) -> Iterator[tuple[str, Tensor]]:
    """The calls that have attention weights (batch, heads, queries, sources)."""
    if "attention" not in record.kinds:
        return
    for name in record:
        found = [tensor for _, tensor in walk(record[name].attention) if tensor.dim() == 4 and len(tensor)]
        if found:
            yield name, found[0]


def _fitting(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first layers whose weights for one sample fit; at least one."""
    kept: dict[str, Tensor] = {}
    total = 0
    for name, weights in layers.items():
        total += weights[0].numel()
        if kept and total > BUDGET:
            break
        kept[name] = weights
    return kept
