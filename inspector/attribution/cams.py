"""Layer methods that are functions of a layer's activation and gradient. They share one pass, however many there are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from inspector.attribution.seen import Seen


def activation(seen: Seen) -> Tensor:
    """What the layer answered."""
    return seen.activation


def gradient_x_activation(seen: Seen) -> Tensor:
    """Activation times gradient."""
    return seen.activation * seen.grad


def grad_cam(seen: Seen, *, relu_attributions: bool = False) -> Tensor:
    """Activations weighted by each channel's mean gradient over the positions, summed over channels (Selvaraju et al. 2017).

    One map per sample, with the layer's axes of positions and 1 in place of the channels; signed unless relu_attributions.
    """
    weights = seen.grad.mean(dim=seen.positions, keepdim=True) if _spatial(seen) else seen.grad
    return _summed(seen, weights * seen.activation, relu_attributions)


def _spatial(seen: Seen) -> bool:
    return bool(seen.positions) and seen.activation.dim() > 2


def _summed(seen: Seen, weighted: Tensor, relu: bool) -> Tensor:
    """Summed over the axes that are no positions; of units without positions, over all of them, as in Captum."""
    kept = seen.positions or () if _spatial(seen) else ()
    channels = [axis for axis in range(1, weighted.dim()) if axis not in kept]
    summed = weighted.sum(dim=channels, keepdim=True)
    return F.relu(summed) if relu else summed
