"""Captum's own basic models, which ship inside its wheel: the same numbers through ``attribute``."""

import warnings

import pytest
import torch

from inspector import Neuron, attribute

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


def multi():
    return basic.BasicModel_MultiLayer()


def one_conv():
    return basic.BasicModel_ConvNet_One_Conv()


PICTURE = torch.arange(16.0).reshape(1, 1, 4, 4)
MIDDLE = {"target": 0, "n_steps": 500}
NUMBERS = {  # as in Captum's own tests: model, inputs, options of attribute, values
    "saliency": (basic.BasicModel, torch.tensor([[1.0, 2.0, 3.0, 0.0, -1.0, 7.0]]).T, {}, [[0, 0, 0, 1, 1, 0]]),
    "input_x_gradient": (multi, row(0, 100.0, 0), {"target": 0}, [[0, 400, 0]]),
    "integrated_gradients": (basic.BasicModel2, (torch.tensor([3.0]), torch.tensor([1.0])), {"n_steps": 500}, [[1.5, -0.5]]),
    "deep_lift": (basic.ReLUDeepLiftModel, (torch.tensor([1.0]), torch.tensor([2.0])), {}, [[2, 1]]),
    "deep_lift_shap": (basic.ReLULinearModel, (row(-10.0, 1, -5), row(3.0, 3, 1)), {}, [[0, 0, 0, 6, 9, 0]]),
    "deconvolution": (one_conv, PICTURE, {"target": 0}, [[2, 3, 3, 1, 3, 5, 5, 2, 3, 5, 5, 2, 1, 2, 2, 1]]),
    "guided_grad_cam": (
        one_conv,
        PICTURE,
        {"target": 0, "layer": "relu1"},
        [[0, 0, 4, 4, 0, 0, 12, 8, 28, 84, 97.5, 65, 28, 56, 65, 32.5]],
    ),
    "lrp": (lambda: basic.SimpleLRPModel(inplace=False), row(1.0, 2, 3), {}, [[18, 36, 54]]),
    "feature_ablation": (multi, row(20.0, 50, 30), {"target": 0}, [[80, 200, 120]]),
    "occlusion": (multi, row(20.0, 50, 30), {"target": 0, "sliding_window_shapes": (1,)}, [[80, 200, 120]]),
    "kernel_shap": (multi, row(20.0, 50, 30), {"target": 0}, [[76.66666, 196.66666, 116.66666]]),
    "activation": (multi, row(0, 100.0, 0), {"layer": "linear1"}, [[90, 101, 101, 101]]),
    "gradient_x_activation": (multi, row(0, 100.0, 0), {"target": 0, "layer": "linear0"}, [[0, 400, 0]]),
    "grad_cam": (one_conv, PICTURE, {"target": 0, "layer": "conv1"}, [[11.25, 13.5, 20.25, 22.5]]),
    "conductance": (multi, row(0, 100.0, 0), {"layer": "linear1", **MIDDLE}, [[90, 100, 100, 100]]),
    "internal_influence": (multi, row(0, 100.0, 0), {"layer": "linear1", **MIDDLE}, [[0.9, 1, 1, 1]]),
}


@pytest.mark.parametrize("method", list(NUMBERS))
def test_the_numbers_of_captums_own_tests(method):
    make, inputs, options, expected = NUMBERS[method]
    answer = quietly(make(), inputs, method=method, **options)
    values = answer.values if isinstance(answer.values, tuple) else (answer.values,)
    found = torch.cat([value.reshape(-1) for value in values])
    torch.testing.assert_close(
        found, torch.tensor(expected).float().reshape(-1), atol=0.1 if "n_steps" in options else 1e-3, rtol=0
    )


def test_the_numbers_of_captums_own_tests_with_features():
    net = basic.BasicModel_MultiLayer()
    inputs = row(20.0, 50.0, 30.0)
    answer = attribute(net, inputs, target=0, method="feature_ablation", feature_mask=torch.tensor([[0, 0, 1]]))
    torch.testing.assert_close(answer.values, row(280.0, 280.0, 120.0))
    answer = attribute(net, inputs, target=0, method="shapley_value_sampling", n_samples=2000)
    torch.testing.assert_close(answer.values, row(76.66666, 196.66666, 116.66666), atol=2.0, rtol=0)


def test_the_largest_of_a_pool_is_compared_with_the_baselines():
    baselines = torch.tensor([[1.0, 2, 3, 9], [4, 8, 6, 7]])
    answer = attribute(basic.LinearMaxPoolLinearModel(), torch.ones(2, 4), method="deep_lift", baselines=baselines)
    torch.testing.assert_close(answer.values, torch.tensor([[0, 0, 0, -8.0], [0, -7, 0, 0]]))


def test_neurons_have_the_numbers_of_captums_own_tests():
    neuron = Neuron("linear2", 0)
    for method, expected in {"saliency": (4.0, 4.0, 4.0), "input_x_gradient": (0.0, 400.0, 0.0)}.items():
        answer = attribute(multi(), row(0, 100.0, 0), target=neuron, method=method)
        torch.testing.assert_close(answer.values, row(*expected))
    answer = attribute(multi(), row(0, 20.0, 0), target=neuron, n_steps=500)
    torch.testing.assert_close(answer.values, row(0, 70.0, 0), atol=0.2, rtol=0)
    ablated = attribute(multi(), row(20.0, 50, 30), target=neuron, method="feature_ablation")
    torch.testing.assert_close(ablated.values, row(80.0, 200, 120))


def test_relevance_at_a_layer_has_the_number_of_captums_own_test():
    net = basic.SimpleLRPModel(inplace=True)
    answer = attribute(net, row(1.0, 2, 3), method="lrp", layer="linear2:input")
    torch.testing.assert_close(answer.values, row(36.0, 36, 36))
    torch.testing.assert_close(attribute(net, row(1.0, 2, 3), method="lrp", rule="gamma").values, row(18.0, 36, 54))
