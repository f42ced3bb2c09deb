"""Captum's own basic models, which ship inside its wheel: the same numbers through ``attribute``."""

import warnings

import pytest
import torch

from inspector import attribute

basic = pytest.importorskip("captum.testing.helpers.basic_models")


def captum(name, model, inputs, layer=None, **options):
    import captum.attr

    rest = tuple(x for x in inputs if not (isinstance(x, torch.Tensor) and x.is_floating_point()))
    values = inputs[: len(inputs) - len(rest)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = getattr(captum.attr, name)(model) if layer is None else getattr(captum.attr, name)(model, layer)
        values = tuple(v.clone() for v in values)
        return method.attribute(values, additional_forward_args=rest or None, **options)


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribute(*args, **options)


def row(*numbers):
    return torch.tensor([list(numbers)])


MODELS = {
    "two terms": (basic.BasicModel2, (torch.tensor([3.0]), torch.tensor([1.0])), None),
    "two terms, shifted": (basic.BasicModel3, (torch.tensor([3.0]), torch.tensor([1.0])), None),
    "three arguments": (basic.BasicModel4_MultiArgs, (row(0.0, 4.0), row(0.2, 0.7), 4), None),
    "two tensors": (basic.BasicModel6_MultiTensor, (row(0.5, 0.2), row(0.1, 0.4)), None),
    "linear": (basic.BasicLinearModel, (torch.randn(4, 3), torch.randn(4, 4)), None),
    "relu": (basic.ReLULinearModel, (torch.randn(4, 3), torch.randn(4, 3)), None),
    "relu, in place": (lambda: basic.ReLULinearModel(inplace=True), (torch.randn(4, 3), torch.randn(4, 3)), None),
    "max pool": (basic.LinearMaxPoolLinearModel, (torch.randn(4, 4),), None),
    "several layers": (basic.BasicModel_MultiLayer, (row(0.0, 100.0, 0.0),), 0),
    "several layers, in place": (lambda: basic.BasicModel_MultiLayer(inplace=True), (row(0.0, 100.0, 0.0),), 1),
    "several inputs and a number": (
        basic.BasicModel_MultiLayer_MultiInput,
        (row(0.0, 100.0, 0.0), row(20.0, 10.0, 20.0), row(5.0, 2.0, 1.0), 4),
        0,
    ),
    "convolutions": (basic.BasicModel_ConvNet, (torch.arange(100.0).reshape(1, 1, 10, 10),), 0),
    "functional": (basic.BasicModel, (torch.randn(4, 1),), None),
}
METHODS = {
    "Saliency": "saliency",
    "InputXGradient": "input_x_gradient",
    "IntegratedGradients": "integrated_gradients",
    "FeatureAblation": "feature_ablation",
    "DeepLift": "deep_lift",
}
CAPTUM_IS_WRONG = {  # DeepLift with functional ReLUs, which its hooks do not see, and with ReLU next to MaxPool
    *(("DeepLift", name) for name in ("two terms", "two terms, shifted", "three arguments", "two tensors", "functional")),
    *(("DeepLift", name) for name in ("convolutions",)),
}


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("method", list(METHODS))
def test_inputs_are_explained_as_by_captum(method, model):
    make, inputs, target = MODELS[model]
    torch.manual_seed(0)
    net = make()
    answer = quietly(net, inputs if len(inputs) > 1 else inputs[0], target=target, method=METHODS[method])
    found = answer.values if isinstance(answer.values, tuple) else (answer.values,)
    if (method, model) in CAPTUM_IS_WRONG:
        assert answer.delta.abs().max() < 1e-4
        return
    expected = captum(method, net, inputs, target=target)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-4, rtol=1e-4)


LAYERS = {
    "LayerGradientXActivation": "gradient_x_activation",
    "LayerConductance": "conductance",
    "InternalInfluence": "internal_influence",
    "LayerIntegratedGradients": "integrated_gradients",
    "LayerGradCam": "grad_cam",
}


@pytest.mark.parametrize("layer", ["linear0", "linear1", "linear2"])
@pytest.mark.parametrize("method", list(LAYERS))
@pytest.mark.parametrize("inplace", [False, True])
def test_layers_are_explained_as_by_captum(method, layer, inplace):
    net, inputs = basic.BasicModel_MultiLayer(inplace=inplace), row(1.0, 100.0, 3.0)
    answer = quietly(net, inputs, target=0, method=LAYERS[method], layer=layer)
    plain = basic.BasicModel_MultiLayer()  # Captum cannot explain a layer whose output is written over
    expected = captum(method, plain, (inputs,), layer=getattr(plain, layer), target=0)
    torch.testing.assert_close(answer.values, expected.detach(), atol=1e-4, rtol=1e-4)


def test_the_numbers_of_captums_own_tests():
    answer = attribute(basic.BasicModel2(), (torch.tensor([3.0]), torch.tensor([1.0])), n_steps=500)
    torch.testing.assert_close(torch.stack(answer.values)[:, 0], torch.tensor([1.5, -0.5]), atol=0.01, rtol=0)
    net = basic.BasicModel_MultiLayer()
    inputs = row(20.0, 50.0, 30.0)
    answer = attribute(net, inputs, target=0, method="feature_ablation", feature_mask=torch.tensor([[0, 0, 1]]))
    torch.testing.assert_close(answer.values, row(280.0, 280.0, 120.0))
    answer = attribute(net, inputs, target=0, method="kernel_shap")
    torch.testing.assert_close(answer.values, row(76.66666, 196.66666, 116.66666))
    answer = attribute(net, inputs, target=0, method="shapley_value_sampling", n_samples=2000)
    torch.testing.assert_close(answer.values, row(76.66666, 196.66666, 116.66666), atol=2.0, rtol=0)
