"""Guided Grad-CAM: where Grad-CAM looks, with the detail of guided backpropagation."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from inspector.attribution import cams, rules
from inspector.attribution.gradients import Values
from inspector.attribution.question import Question
from inspector.attribution.seen import once
from inspector.tensors import shape_text


def guided_grad_cam(question: Question) -> Values:
    """Guided backpropagation times the positive Grad-CAM of a layer, brought to the input's size (Selvaraju et al. 2017)."""
    site = question.layer
    assert site is not None  # asked for at the door
    guided = rules.guided_backprop(question)
    seen = next(seen for s, seen in once(question, [site.path], kinds=(site.kind,)).items() if site.call in (None, s.call))
    cam = cams.grad_cam(seen, relu_attributions=True)
    return tuple(g * _like(cam, g, site) for g in guided)


def _like(cam: Tensor, value: Tensor, site: Any) -> Tensor:
    """The map at the input's positions: as it is where they are the same, otherwise repeated to the input's size."""
    if cam.dim() == value.dim() and all(n in (1, m) for n, m in zip(cam.shape, value.shape, strict=True)):
        return cam
    if cam.dim() != value.dim() or cam.dim() < 3 or cam.shape[1] != 1:
        raise ValueError(f"{site} ({shape_text(cam)}) has other positions than the input ({shape_text(value)})")
    return F.interpolate(cam, size=value.shape[2:], mode="nearest")
