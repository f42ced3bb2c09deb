"""Which axes of a value are positions (pixels, steps, tokens, features): the others are summed in a heat map.

Told by masks that came with the samples, by the type of the module, and by the number of axes; ``axes=`` overrules.
"""

from __future__ import annotations

from torch import Tensor, nn

from inspector.records import Samples
from inspector.sites import Site
from inspector.tensors import Leaf, walk

Axes = tuple[int, ...] | None

_FEATURES_LAST = (
    *(nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention, nn.Transformer),
    *(nn.TransformerEncoder, nn.TransformerDecoder, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
)
_CHANNELS_FIRST = (
    *(nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.modules.pooling._MaxPoolNd),
    *(nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.GroupNorm),
)


def only_input_axes(model: nn.Module, samples: Samples) -> Axes:
    """The positions of the input where there is one alone."""
    tensors = list(walk(samples.inputs))
    return input_axes(model, tensors[0][1], samples, tensors[0][0]) if len(tensors) == 1 else None


def input_axes(model: nn.Module, value: Tensor, samples: Samples, leaf: Leaf = ()) -> Axes:
    """The positions of an input: those of its mask, pixels of images, steps of sequences, features of rows."""
    marked = _like_mask(value, samples, leaf)
    if marked is not None or value.dim() < 2:
        return marked
    if value.dim() == 3:
        return _of_three(model, value)
    return (1,) if value.dim() == 2 else tuple(range(2, value.dim()))


def layer_axes(channels_first: bool, module: nn.Module, site: Site, value: Tensor) -> Axes:
    """The positions of a value inside a model, batch axis first; None where it has none. channels_first: of three axes,
    where the module does not tell, such as in a model of 1-D convolutions."""
    n = value.dim()
    if n < 2 or (isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and site.leaf[:1] == (1,)):
        return None
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return tuple(range(1, n - 1))
    if n == 2:
        return (1,)
    if isinstance(module, _FEATURES_LAST):
        return tuple(range(1, n - 1))
    if isinstance(module, _CHANNELS_FIRST) or n > 3:
        return tuple(range(2, n))
    return (2,) if channels_first else (1,)


def _like_mask(value: Tensor, samples: Samples, leaf: Leaf) -> Axes:
    for mask in (samples.evidence_at(leaf), samples.valid):
        if mask is None:
            continue
        shape = tuple(mask.shape[1:])
        for start in (2, 1) if value.dim() >= 4 else (1, 2):  # (batch, channels, height, width) or (batch, time, features)
            if shape and tuple(value.shape[start : start + len(shape)]) == shape:
                return tuple(range(start, start + len(shape)))
    return None


def _of_three(model: nn.Module, value: Tensor) -> Axes:
    first = next((m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.RNNBase))), None)
    if isinstance(first, nn.Conv1d) and first.in_channels == value.shape[1]:
        return (2,)
    return (1, 2) if isinstance(first, nn.Conv2d) else (1,)


def channels_first(model: nn.Module) -> bool:
    """Whether values of three axes have their channels before their steps."""
    return any(isinstance(module, nn.Conv1d) for module in model.modules())
