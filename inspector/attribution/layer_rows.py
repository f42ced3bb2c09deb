"""The rows of METHODS that explain layers: functions of what one pass over all layers saw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from inspector.attribution import cams, masked_cams, paths
from inspector.attribution.methods import Method
from inspector.attribution.seen import once

_look = partial(once, gradient=False)


def _layer(function: Callable[..., Tensor], see: Callable[..., Any] = once, **about: Any) -> Method:
    """A method that is a function of what one pass over all layers saw."""
    about = {"needs": "activation + gradient", "passes": "1 + 1"} | about
    return Method(at_layer=function, see=see, explains="layer", **about)


LAYERS: dict[str, Method] = {
    "activation": _layer(
        cams.activation, _look, needs="activation", passes="1 + 0", captum="LayerActivation", limits="no target"
    ),
    "gradient_x_activation": _layer(cams.gradient_x_activation, captum="LayerGradientXActivation"),
    "grad_cam": _layer(cams.grad_cam, captum="LayerGradCam", paper="Selvaraju 2017"),
    "grad_cam_plus_plus": _layer(cams.grad_cam_plus_plus, paper="Chattopadhyay 2018"),
    "hires_cam": _layer(cams.hires_cam, paper="Draelos 2020"),
    "layer_cam": _layer(cams.layer_cam, paper="Jiang 2021"),
    "x_grad_cam": _layer(cams.x_grad_cam, paper="Fu 2020"),
    "eigen_cam": _layer(
        cams.eigen_cam,
        _look,
        needs="activation",
        passes="1 + 0",
        paper="Muhammad 2020",
        limits="no target; needs positions",
    ),
    "eigen_grad_cam": _layer(cams.eigen_grad_cam, paper="Gildenblat 2021", limits="needs positions"),
    "score_cam": _layer(
        paths.flown,
        masked_cams.score_cam,
        needs="perturbation",
        passes="batched",
        paper="Wang 2020",
        limits="needs maps that lie over one input",
    ),
    "ablation_cam": _layer(
        paths.flown,
        masked_cams.ablation_cam,
        needs="perturbation",
        passes="batched",
        paper="Desai 2020",
        limits="needs channels beside positions",
    ),
    "conductance": _layer(
        paths.flown,
        paths.conductance,
        needs="path",
        baselines=True,
        passes="2 + 1",
        captum="LayerConductance",
        paper="Dhamdhere 2018",
        limits="complete only where every path crosses the layer",
    ),
    "internal_influence": _layer(
        paths.flown,
        paths.internal_influence,
        needs="path",
        baselines=True,
        passes="2 + 1",
        captum="InternalInfluence",
        paper="Leino 2018",
        limits="the gradient's scale, no share of the output",
    ),
}
