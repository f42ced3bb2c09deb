"""The rows of METHODS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from inspector.attribution import (
    attend,
    cams,
    games,
    gradients,
    guided,
    lrp,
    masked_cams,
    noise,
    paths,
    perturb,
    rules,
    temporal,
    zeroing,
)
from inspector.attribution.methods import Method, Methods
from inspector.attribution.seen import once

_look = partial(once, gradient=False)


def _layer(function: Callable[..., Tensor], see: Callable[..., Any] = once, **about: Any) -> Method:
    """A method that is a function of what one pass over all layers saw."""
    about = {"needs": "activation + gradient", "passes": "1 + 1"} | about
    return Method(at_layer=function, see=see, explains="layer", **about)


METHODS = Methods(
    {
        "saliency": Method(
            gradients.saliency, explains="both", signed=False, passes="1 + 1", captum="Saliency", paper="Simonyan 2014"
        ),
        "input_x_gradient": Method(
            gradients.input_x_gradient, explains="both", passes="1 + 1", captum="InputXGradient", paper="Shrikumar 2017"
        ),
        "integrated_gradients": Method(
            gradients.integrated_gradients,
            explains="both",
            needs="path",
            complete=True,
            baselines=True,
            passes="2 + 1",
            captum="IntegratedGradients",
            limits="More n_steps help; deep_lift is exact also where the path bends sharply, as at a LayerNorm near zero",
            paper="Sundararajan 2017",
        ),
        "smooth_grad": Method(
            noise.smooth_grad, explains="both", passes="2 + 1", captum="NoiseTunnel", paper="Smilkov 2017"
        ),
        "gradient_shap": Method(
            noise.gradient_shap,
            explains="both",
            needs="path",
            baselines="distribution",
            passes="2 + 1",
            captum="GradientShap",
            paper="Lundberg 2017",
            limits="complete in the limit of many samples only",
        ),
        "expected_gradients": Method(
            noise.expected_gradients,
            explains="both",
            needs="path",
            baselines="data",
            passes="2 + 1",
            paper="Erion 2021",
            limits="complete in the limit of many samples only; without baselines, they are drawn from the batch",
        ),
        "deep_lift": Method(
            rules.deep_lift,
            at_layer=cams.gradient_x_activation,
            see=rules.layers_deep_lift,
            explains="both",
            needs="changed rules",
            complete=True,
            baselines=True,
            passes="2 + 1",
            captum="DeepLift",
            paper="Shrikumar 2017",
        ),
        "deep_lift_shap": Method(
            rules.deep_lift_shap,
            needs="changed rules",
            complete=True,
            baselines="distribution",
            passes="2 + 1",
            captum="DeepLiftShap",
            paper="Lundberg 2017",
        ),
        "guided_backprop": Method(
            rules.guided_backprop, needs="changed rules", passes="1 + 1", captum="GuidedBackprop", paper="Springenberg 2015"
        ),
        "deconvolution": Method(
            rules.deconvolution, needs="changed rules", passes="1 + 1", captum="Deconvolution", paper="Zeiler 2014"
        ),
        "guided_grad_cam": Method(
            guided.guided_grad_cam,
            helped=True,
            needs="changed rules",
            passes="2 + 2",
            captum="GuidedGradCam",
            paper="Selvaraju 2017",
        ),
        "lrp": Method(
            lrp.lrp,
            at_layer=paths.flown,
            see=lrp.layers_lrp,
            explains="both",
            alone=True,
            needs="changed rules",
            passes="batched",
            captum="LRP",
            paper="Bach 2015",
            limits="refused for residual additions, embeddings, recurrent and attention layers",
        ),
        "temporal_saliency_rescaling": Method(
            temporal.temporal_saliency_rescaling,
            needs="perturbation",
            signed=False,
            passes="batched",
            paper="Ismail 2020",
            limits="(batch, time, features) only",
        ),
        "occlusion": Method(
            perturb.occlusion,
            explains="both",
            needs="perturbation",
            baselines=True,
            passes="batched",
            captum="Occlusion",
            paper="Zeiler 2014",
        ),
        "feature_ablation": Method(
            games.feature_ablation,
            explains="both",
            needs="perturbation",
            baselines=True,
            passes="batched",
            captum="FeatureAblation",
        ),
        "feature_permutation": Method(
            games.feature_permutation,
            explains="both",
            needs="perturbation",
            passes="batched",
            captum="FeaturePermutation",
            paper="Fisher 2019",
            limits="needs a batch of at least 2",
        ),
        "shapley_value_sampling": Method(
            games.shapley_value_sampling,
            explains="both",
            needs="perturbation",
            complete=True,
            baselines=True,
            passes="batched",
            captum="ShapleyValueSampling",
            paper="Castro 2009",
        ),
        "kernel_shap": Method(
            games.kernel_shap,
            explains="both",
            needs="perturbation",
            complete=True,
            baselines=True,
            passes="batched",
            captum="KernelShap",
            paper="Lundberg 2017",
        ),
        "lime": Method(
            games.lime,
            explains="both",
            needs="perturbation",
            baselines=True,
            passes="batched",
            captum="Lime",
            paper="Ribeiro 2016",
        ),
        "rise": Method(
            games.rise,
            explains="both",
            needs="perturbation",
            baselines=True,
            passes="batched",
            paper="Petsiuk 2018",
        ),
        "attention": Method(attend.attention, tokens=True, alone=True, needs="attention", signed=False, passes="1 + 0"),
        "attention_rollout": Method(
            attend.attention_rollout,
            tokens=True,
            alone=True,
            needs="attention",
            signed=False,
            passes="1 + 0",
            paper="Abnar 2020",
        ),
        "grad_x_attention": Method(
            attend.grad_x_attention,
            tokens=True,
            alone=True,
            needs="attention",
            signed=False,
            passes="1 + 1",
            paper="Chefer 2021",
        ),
        "value_zeroing": Method(
            zeroing.value_zeroing,
            helped=True,
            tokens=True,
            alone=True,
            needs="attention",
            signed=False,
            passes="batched",
            paper="Mohebbi 2023",
        ),
        "activation": _layer(cams.activation, _look, needs="activation", passes="1 + 0", captum="LayerActivation"),
        "gradient_x_activation": _layer(cams.gradient_x_activation, captum="LayerGradientXActivation"),
        "grad_cam": _layer(cams.grad_cam, captum="LayerGradCam", paper="Selvaraju 2017"),
        "grad_cam_plus_plus": _layer(cams.grad_cam_plus_plus, paper="Chattopadhyay 2018"),
        "hires_cam": _layer(cams.hires_cam, paper="Draelos 2020"),
        "layer_cam": _layer(cams.layer_cam, paper="Jiang 2021"),
        "x_grad_cam": _layer(cams.x_grad_cam, paper="Fu 2020"),
        "eigen_cam": _layer(cams.eigen_cam, _look, needs="activation", passes="1 + 0", paper="Muhammad 2020"),
        "eigen_grad_cam": _layer(cams.eigen_grad_cam, paper="Gildenblat 2021"),
        "score_cam": _layer(paths.flown, masked_cams.score_cam, needs="perturbation", passes="batched", paper="Wang 2020"),
        "ablation_cam": _layer(
            paths.flown, masked_cams.ablation_cam, needs="perturbation", passes="batched", paper="Desai 2020"
        ),
        "conductance": _layer(
            paths.flown,
            paths.conductance,
            needs="path",
            baselines=True,
            passes="2 + 1",
            captum="LayerConductance",
            paper="Dhamdhere 2018",
        ),
        "internal_influence": _layer(
            paths.flown,
            paths.internal_influence,
            needs="path",
            baselines=True,
            passes="2 + 1",
            captum="InternalInfluence",
            paper="Leino 2018",
        ),
    }
)
