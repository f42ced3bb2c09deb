"""The rows of METHODS."""

from __future__ import annotations

from functools import partial

from inspector.attribution import cams, gradients, perturb, rules
from inspector.attribution.methods import Method, Methods
from inspector.attribution.seen import once

_look = partial(once, gradient=False)

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
            paper="Sundararajan 2017",
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
            perturb.feature_ablation,
            explains="both",
            needs="perturbation",
            baselines=True,
            passes="batched",
            captum="FeatureAblation",
        ),
        "activation": Method(
            at_layer=cams.activation,
            see=_look,
            explains="layer",
            needs="activation",
            passes="1 + 0",
            captum="LayerActivation",
        ),
        "gradient_x_activation": Method(
            at_layer=cams.gradient_x_activation,
            see=once,
            explains="layer",
            needs="activation + gradient",
            passes="1 + 1",
            captum="LayerGradientXActivation",
        ),
        "grad_cam": Method(
            at_layer=cams.grad_cam,
            see=once,
            explains="layer",
            needs="activation + gradient",
            passes="1 + 1",
            captum="LayerGradCam",
            paper="Selvaraju 2017",
        ),
    }
)
