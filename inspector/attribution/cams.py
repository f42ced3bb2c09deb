"""Layer methods that are functions of a layer's activation and gradient. They share one pass, however many there are.

A map keeps the layer's axes of positions and has 1 in place of the channels. Maps are signed unless relu_attributions.
"""

from __future__ import annotations

import torch
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
    """Activations weighted by each channel's mean gradient (Selvaraju et al. 2017)."""
    return _map(seen, _mean(seen, seen.grad) * seen.activation, relu_attributions)


def hires_cam(seen: Seen, *, relu_attributions: bool = False) -> Tensor:
    """Activations weighted position by position by the gradient (Draelos and Carin 2020)."""
    return _map(seen, seen.grad * seen.activation, relu_attributions)


def layer_cam(seen: Seen, *, relu_attributions: bool = False) -> Tensor:
    """Activations weighted position by position by the positive gradient (Jiang et al. 2021)."""
    return _map(seen, seen.grad.clamp(min=0) * seen.activation, relu_attributions)


def grad_cam_plus_plus(seen: Seen, *, relu_attributions: bool = False) -> Tensor:
    """Grad-CAM with positive gradients weighted by their share of higher derivatives (Chattopadhyay et al. 2018)."""
    gradient = seen.grad
    share = gradient**2 / (2 * gradient**2 + _sum(seen, seen.activation) * gradient**3 + 1e-6)
    share = torch.where(gradient != 0, share, 0.0)
    return _map(seen, _sum(seen, gradient.clamp(min=0) * share) * seen.activation, relu_attributions)


def x_grad_cam(seen: Seen, *, relu_attributions: bool = False) -> Tensor:
    """Activations weighted by each channel's mean gradient, taken where the activation is (Fu et al. 2020)."""
    weights = _sum(seen, seen.grad * seen.activation / (_sum(seen, seen.activation) + 1e-7))
    return _map(seen, weights * seen.activation, relu_attributions)


def eigen_cam(seen: Seen, *, relu_attributions: bool = False) -> Tensor:
    """The first principal component of the activations over positions (Muhammad and Yeasin 2020). It knows no target;
    its sign, which is arbitrary, is chosen to agree with the mean activation."""
    return _first_component(seen, seen.activation, relu_attributions)


def eigen_grad_cam(seen: Seen, *, relu_attributions: bool = False) -> Tensor:
    """The first principal component over positions of activation times gradient (Gildenblat 2021); its sign as in
    eigen_cam."""
    return _first_component(seen, seen.activation * seen.grad, relu_attributions)


def _first_component(seen: Seen, value: Tensor, relu: bool) -> Tensor:
    flat = _channels_last(seen, value)
    centred = flat - flat.mean(1, keepdim=True)
    centred = centred.to(torch.promote_types(centred.dtype, torch.float32))  # half types have no SVD
    component = torch.linalg.svd(centred, full_matrices=False).Vh[:, :1]
    projected = (centred @ component.mT).to(flat.dtype)
    mean = flat.mean(2, keepdim=True)
    agree = (projected * (mean - mean.mean(1, keepdim=True))).sum(1, keepdim=True)
    found = _back(seen, projected * _sign(agree))
    return F.relu(found) if relu else found


def _sign(x: Tensor) -> Tensor:
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def _spatial(seen: Seen) -> tuple[int, ...]:
    return seen.positions if seen.positions and seen.activation.dim() > 2 else ()


def _mean(seen: Seen, x: Tensor) -> Tensor:
    return x.mean(_spatial(seen), keepdim=True) if _spatial(seen) else x


def _sum(seen: Seen, x: Tensor) -> Tensor:
    return x.sum(_spatial(seen), keepdim=True) if _spatial(seen) else x


def _map(seen: Seen, weighted: Tensor, relu: bool) -> Tensor:
    """Summed over the axes that are no positions; of units without positions, over all of them, as in Captum."""
    channels = [axis for axis in range(1, weighted.dim()) if axis not in _spatial(seen)]
    summed = weighted.sum(dim=channels, keepdim=True)
    return F.relu(summed) if relu else summed


def _channels_last(seen: Seen, value: Tensor) -> Tensor:
    """(batch, positions, channels)"""
    kept = _spatial(seen)
    if not kept:
        raise ValueError(f"this compares positions, and {seen.site} has none; choose a layer with spatial or time axes")
    moved = value.movedim(kept, tuple(range(1, len(kept) + 1)))
    return moved.flatten(len(kept) + 1).flatten(1, len(kept))


def _back(seen: Seen, flat: Tensor) -> Tensor:
    shape = [n if axis in (0, *_spatial(seen)) else 1 for axis, n in enumerate(seen.activation.shape)]
    return flat.reshape(shape)
