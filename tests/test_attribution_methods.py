"""Each method against Captum where Captum is right, against a closed form where there is one, and refused where invalid."""

import itertools
import math
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inspector import METHODS, Samples, attribute, attribute_layers, models
from inspector.attribution.features import Features


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribute(*args, **options)


def captum(name, model, *args, **options):
    import captum.attr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(captum.attr, name)(model, *args).attribute(**options).detach()


def cnn():
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10)),
    )


@pytest.fixture
def images():
    return torch.randn(3, 2, 8, 8)


# DeepLift, where Captum's own is wrong or refuses


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.dense = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 9, 10)

    def forward(self, x):
        hidden = F.relu(self.a(x), inplace=True)
        hidden = hidden + F.gelu(self.b(hidden))
        return self.dense(F.max_pool2d(hidden, 2).flatten(1)).softmax(1)


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.dense = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(16, 10)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 1)

    def forward(self, x):
        return self.dense(self.pool(self.relu(self.b(self.relu(self.a(x))))).flatten(1))


class Sequence(nn.Module):
    def __init__(self, layer, width, batch_first=True):
        super().__init__()
        self.layer, self.dense, self.batch_first = layer, nn.Linear(width, 10), batch_first

    def forward(self, x):
        out = self.layer(x if self.batch_first else x.transpose(0, 1))
        out = out[0] if isinstance(out, tuple) else out
        return self.dense(out.amax(1 if self.batch_first else 0))


def encoder(batch_first, norm_first=False):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=batch_first, norm_first=norm_first, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class OwnCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru, self.dense = nn.LSTMCell(4, 5), nn.GRUCell(5, 4), nn.Linear(4, 10)

    def forward(self, x):
        state, h = (x.new_zeros(len(x), 5), x.new_zeros(len(x), 5)), x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            state = self.lstm(step, state)
            h = self.gru(state[0], h)
        return self.dense(h / (1 + h.abs().sum(1, keepdim=True)))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.dense = nn.LayerNorm(4), nn.Linear(4, 10)

    def forward(self, x):
        x = self.norm(x)
        x = F.scaled_dot_product_attention(x, x, x, is_causal=True) * F.silu(x)
        return self.dense(torch.einsum("btf,btf->bf", x, x) + x.max(1).values)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.dense = nn.LSTM(4, 5, bidirectional=True, batch_first=True), nn.Linear(10, 10)

    def forward(self, x):
        lengths = torch.tensor([6, 2, 4])[: len(x)] if len(x) == 3 else torch.full((len(x),), 2)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.dense(self.lstm(packed)[1][0].movedim(0, 1).flatten(1))


HARD = {
    "functional": (Functional, (3, 2, 8, 8)),
    "reused, in place": (Reused, (3, 2, 8, 8)),
    "relu then overlapping pool": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(36, 10)),
        (3, 2, 8, 8),
    ),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(144, 10)),
        (3, 2, 8, 8),
    ),
    "lstm": (lambda: Sequence(nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), 10), (3, 6, 4)),
    "lstm, time first": (lambda: Sequence(nn.LSTM(4, 5), 5, False), (3, 3, 4)),
    "lstm, packed": (Packed, (3, 6, 4)),
    "gru": (lambda: Sequence(nn.GRU(4, 5, bias=False, batch_first=True), 5), (3, 6, 4)),
    "rnn": (lambda: Sequence(nn.RNN(4, 5, nonlinearity="relu", batch_first=True), 5), (3, 6, 4)),
    "transformer": (lambda: Sequence(encoder(True, True), 4), (3, 6, 4)),
    "transformer, time first": (lambda: Sequence(encoder(False), 4, False), (3, 3, 4)),
    "cells": (OwnCell, (3, 6, 4)),
    "attention": (Attending, (3, 6, 4)),
}


@pytest.mark.parametrize("name", list(HARD))
def test_deep_lift_is_complete_also_where_captums_is_not(name):
    make, shape = HARD[name]
    model, x, base = make().double().eval(), torch.randn(shape).double(), torch.randn(shape).double()
    answer = attribute(model, x, target=3, method="deep_lift", baselines=base)
    with torch.no_grad():
        difference = (model(x) - model(base))[:, 3]
    torch.testing.assert_close(answer.values.flatten(1).sum(1), difference, atol=1e-10, rtol=1e-8)
    assert answer.delta.abs().max() < 1e-10


@pytest.mark.parametrize("name", list(HARD))
def test_deep_lift_of_a_sample_does_not_depend_on_its_batch_mates(name):
    make, shape = HARD[name]
    model, x = make().double().eval(), torch.randn(shape).double()
    whole = attribute(model, x, target=3, method="deep_lift", baselines=0.1)
    alone = attribute(model, x[1:2], target=3, method="deep_lift", baselines=0.1)
    torch.testing.assert_close(alone.values, whole.values[1:2])


def test_deep_lift_equals_captum_where_captum_is_right(images):
    model, base = cnn(), torch.randn(3, 2, 8, 8)
    expected = captum("DeepLift", model, inputs=images, baselines=base, target=4)
    answer = attribute(model, images, target=4, method="deep_lift", baselines=base)
    torch.testing.assert_close(answer.values, expected, atol=1e-6, rtol=1e-4)


def test_deep_lift_at_every_layer_equals_captum_one_at_a_time(images):
    model, base = cnn(), torch.randn(3, 2, 8, 8)
    answers = attribute_layers(model, images, target=4, method="deep_lift", baselines=base)
    for name in "01234678":
        expected = captum("LayerDeepLift", model, model[int(name)], inputs=images, baselines=base, target=4)
        torch.testing.assert_close(answers[name].values, expected, atol=1e-6, rtol=1e-4)
        alone = attribute(model, images, target=4, method="deep_lift", baselines=base, layer=name)
        torch.testing.assert_close(alone.values, answers[name].values)
        assert alone.delta.abs().max() < 1e-5


def test_deep_lift_shap_equals_captum_and_is_cut_to_the_budget(images):
    model, base = cnn(), torch.randn(7, 2, 8, 8)
    expected = captum("DeepLiftShap", model, inputs=images, baselines=base, target=4)
    for budget in (2**30, 1):
        answer = attribute(model, images, target=4, method="deep_lift_shap", baselines=base, budget=budget)
        torch.testing.assert_close(answer.values, expected, atol=1e-6, rtol=1e-4)
    assert answer.delta.abs().max() < 1e-5


def test_a_model_that_takes_another_path_for_the_baseline_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return torch.tanh(x).sum(1) if x.abs().sum() > 0 else torch.relu(x).sum(1)

    with pytest.raises(ValueError, match="another path"):
        attribute(Branching(), torch.randn(2, 3), method="deep_lift")


# guided rules


@pytest.mark.parametrize(("method", "name"), [("guided_backprop", "GuidedBackprop"), ("deconvolution", "Deconvolution")])
def test_guided_rules_equal_captum_and_hold_for_functional_relus_too(method, name, images):
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    expected = captum(name, plain, inputs=images, target=2)

    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = plain

        def forward(self, x):
            x = F.relu(self.layers[2](torch.relu(self.layers[0](x))), inplace=True)
            return self.layers[5](x.flatten(1))

    for model in (plain, Same()):
        answer = attribute(model, images, target=2, method=method)
        torch.testing.assert_close(answer.values, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvolution"])
def test_guided_rules_are_refused_where_they_would_be_the_plain_gradient(method):
    with pytest.raises(ValueError, match="plain gradient; take saliency"):
        attribute(nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)), torch.randn(2, 3), target=1, method=method)


def test_guided_grad_cam_equals_captum(images):
    model = cnn()
    expected = captum("GuidedGradCam", model, model[3], inputs=images, target=2)
    answer = attribute(model, images, target=2, method="guided_grad_cam", layer="3")
    torch.testing.assert_close(answer.values, expected, atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match="needs a layer"):
        attribute(model, images, target=2, method="guided_grad_cam")


@pytest.mark.parametrize("inplace", [False, True])
def test_lrp_equals_captum_and_passes_a_flatten(inplace, images):
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=False), nn.MaxPool2d(2))
    dense = nn.Linear(36, 10)

    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.dense = body, dense

        def forward(self, x):
            return self.dense(self.body(x).view(len(x), -1))

    expected = captum("LRP", View(), inputs=images, target=2)
    body[1].inplace = inplace
    answer = attribute(nn.Sequential(body, nn.Flatten(), dense), images, target=2, method="lrp")
    torch.testing.assert_close(answer.values, expected, atol=1e-6, rtol=1e-4)
    assert body[1].inplace is inplace
    assert not hasattr(dense, "rule")


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (Functional(), torch.randn(2, 2, 8, 8), "outside of modules"),
        (nn.Sequential(nn.Linear(3, 3), nn.GELU()), torch.randn(2, 3), "no rule for GELU"),
        (Reused(), torch.randn(2, 2, 8, 8), "runs several times"),
        (Sequence(nn.LSTM(4, 5, batch_first=True), 5), torch.randn(2, 3, 4), "no rule for LSTM"),
    ],
)
def test_lrp_is_refused_where_a_step_has_no_rule(model, x, says):
    with pytest.raises(ValueError, match=says + r".*take deep_lift"):
        attribute(model, x, target=1, method="lrp")


# layers


@pytest.mark.parametrize(
    ("method", "name"), [("conductance", "LayerConductance"), ("internal_influence", "InternalInfluence")]
)
def test_path_methods_of_all_layers_equal_captum_one_at_a_time(method, name, images):
    model, base = cnn(), torch.randn(3, 2, 8, 8)
    answers = attribute_layers(model, images, target=4, method=method, baselines=base, n_steps=20)
    pieces = attribute_layers(model, images, target=4, method=method, baselines=base, n_steps=20, budget=200_000)
    assert pieces["0"].cost.forwards > answers["0"].cost.forwards == 2
    for layer in "01234678":
        expected = captum(name, model, model[int(layer)], inputs=images, baselines=base, target=4, n_steps=20)
        torch.testing.assert_close(answers[layer].values, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(pieces[layer].values, expected, atol=1e-6, rtol=1e-5)


def test_conductance_is_complete_where_everything_crosses_the_layer(images):
    answers = attribute_layers(cnn().double(), images.double(), target=4, method="conductance", n_steps=400)
    for layer in "01234678":
        assert answers[layer].delta.abs().max() < 0.01 * answers[layer].values.flatten(1).sum(1).abs().mean()


def test_conductance_works_on_an_lstm_and_on_tokens():
    model = nn.Sequential(nn.Embedding(9, 4), Sequence(nn.LSTM(4, 5, batch_first=True), 5))
    ids = torch.randint(0, 9, (3, 6))
    answers = attribute_layers(model, ids, target=1, method="conductance", n_steps=300)
    assert answers["1.layer:output[0]"].values.shape == (3, 6, 5)
    assert answers["0"].delta.abs().max() < 0.01
    assert answers["1.layer:output[0]"].delta.abs().max() < 0.01


def slow_cam(method, activation, gradient):
    """One sample (channels, height, width), written as in the papers."""
    total, (channels, height, width) = 0.0, activation.shape
    for k in range(channels):
        a, g = activation[k], gradient[k]
        if method == "grad_cam":
            total = total + g.mean() * a
        if method == "hires_cam":
            total = total + g * a
        if method == "layer_cam":
            total = total + g.clamp(min=0) * a
        if method == "x_grad_cam":
            total = total + (g * a / (a.sum() + 1e-7)).sum() * a
        if method == "grad_cam_plus_plus":
            weight = sum(
                (g[i, j] ** 2 / (2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3 + 1e-6)) * g[i, j].clamp(min=0)
                for i, j in itertools.product(range(height), range(width))
            )
            total = total + weight * a
    return total


@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "layer_cam", "x_grad_cam", "grad_cam_plus_plus"])
def test_cams_are_what_their_papers_say(method, images):
    model = cnn().double()
    activation = model[:5](images.double()).detach().requires_grad_()
    gradient = torch.autograd.grad(model[5:](activation)[:, 2].sum(), activation)[0]
    answer = attribute(model, images.double(), target=2, method=method, layer="4")
    expected = torch.stack([slow_cam(method, a, g) for a, g in zip(activation.detach(), gradient, strict=True)])
    torch.testing.assert_close(answer.values[:, 0], expected)
    positive = attribute(model, images.double(), target=2, method=method, layer="4", relu_attributions=True)
    torch.testing.assert_close(positive.values[:, 0], expected.clamp(min=0))


@pytest.mark.parametrize("method", ["eigen_cam", "eigen_grad_cam"])
def test_eigen_cams_are_the_first_principal_component(method, images):
    model = cnn().double()
    activation = model[:5](images.double()).detach().requires_grad_()
    gradient = torch.autograd.grad(model[5:](activation)[:, 2].sum(), activation)[0]
    activation = activation.detach() * (gradient if method == "eigen_grad_cam" else 1)
    answer = attribute(model, images.double(), target=2, method=method, layer="4")
    for sample, heat in zip(activation, answer.values, strict=True):
        points = sample.reshape(6, -1).T
        centred = points - points.mean(0)
        first = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
        correlation = torch.corrcoef(torch.stack([centred @ first, heat.flatten()]))[0, 1]
        assert correlation.abs() > 1 - 1e-6


def test_ablation_cam_weighs_channels_by_what_is_lost_without_them(images):
    model = cnn().double()
    activation = model[:5](images.double()).detach()
    expected = 0.0
    for k in range(6):
        without = activation.clone()
        without[:, k] = 0
        lost = (model[5:](activation) - model[5:](without))[:, 2].detach()
        expected = expected + lost[:, None, None] * activation[:, k]
    for budget in (2**30, 1):
        answer = attribute(model, images.double(), target=2, method="ablation_cam", layer="4", budget=budget)
        torch.testing.assert_close(answer.values[:, 0], expected)


def test_score_cam_weighs_channels_by_the_score_of_what_they_show(images):
    model = cnn().double()
    activation = model[:5](images.double()).detach()
    maps = F.interpolate(activation, size=(8, 8), mode="bilinear")
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    masks = (maps - low) / (high - low + 1e-8)
    scores = torch.stack([model(images.double() * masks[:, k : k + 1])[:, 2] for k in range(6)], 1).detach()
    expected = (scores.softmax(1)[:, :, None, None] * activation).sum(1)
    answer = attribute(model, images.double(), target=2, method="score_cam", layer="4")
    torch.testing.assert_close(answer.values[:, 0], expected, atol=1e-6, rtol=1e-5)


# features


def exact_shapley(model, x, base, target):
    n, worth = x.shape[1], torch.zeros_like(x)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for chosen in itertools.combinations(others, size):
                without, on = base.clone(), torch.tensor(chosen, dtype=torch.long)
                without[:, on] = x[:, on]
                having = without.clone()
                having[:, i] = x[:, i]
                worth[:, i] += weight * (model(having) - model(without))[:, target].detach()
    return worth


def mlp():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def test_kernel_shap_of_few_features_is_exact():
    model, x, base = mlp(), torch.randn(4, 5).double(), torch.randn(4, 5).double()
    answer = attribute(model, x, target=1, method="kernel_shap", baselines=base)
    torch.testing.assert_close(answer.values, exact_shapley(model, x, base, 1))
    assert answer.cost.forwards == 2


def test_shapley_sampling_converges_and_is_always_complete():
    model, x, base = mlp(), torch.randn(4, 5).double(), torch.randn(4, 5).double()
    answer = attribute(model, x, target=1, method="shapley_value_sampling", baselines=base, n_samples=3000)
    torch.testing.assert_close(answer.values, exact_shapley(model, x, base, 1), atol=0.02, rtol=0)
    few = attribute(model, x, target=1, method="shapley_value_sampling", baselines=base, n_samples=2, budget=1)
    assert few.delta.abs().max() < 1e-12


class Additive(nn.Module):
    def forward(self, x):
        return torch.stack([(x**3).sum(1), x.sin().sum(1)], 1)


@pytest.mark.parametrize("method", ["shapley_value_sampling", "kernel_shap", "feature_ablation", "integrated_gradients"])
def test_an_additive_model_is_explained_term_by_term(method):
    x = torch.randn(4, 6).double()
    answer = attribute(Additive(), x, target=1, method=method)
    torch.testing.assert_close(answer.values, x.sin(), atol=1e-6, rtol=1e-5)


def test_lime_finds_the_slopes_of_a_linear_model():
    model, x, base = nn.Linear(5, 3).double(), torch.randn(4, 5).double(), torch.randn(4, 5).double()
    answer = attribute(model, x, target=1, method="lime", baselines=base, alpha=1e-9)
    torch.testing.assert_close(answer.values, (model.weight[1] * (x - base)).detach(), atol=1e-5, rtol=1e-5)


def test_a_mask_shows_each_features_whole_value_as_in_captum():
    model, x = mlp(), torch.randn(4, 5).double()
    mask = torch.tensor([[0, 0, 1, 1, 2]])
    expected = captum("FeatureAblation", model, inputs=x, target=1, feature_mask=mask)
    answer = attribute(model, x, target=1, method="feature_ablation", feature_mask=mask)
    torch.testing.assert_close(answer.values, expected)
    exact = captum("ShapleyValues", model, inputs=x, target=1, feature_mask=mask)
    answer = attribute(model, x, target=1, method="kernel_shap", feature_mask=mask)
    torch.testing.assert_close(answer.values.float(), exact)
    assert answer.delta.abs().max() < 1e-10


@pytest.mark.parametrize("method", ["shapley_value_sampling", "kernel_shap"])
def test_features_of_several_inputs_are_numbered_together(method):
    class Product(nn.Module):
        def forward(self, a, b):
            return (a * b[:, :2]).sum(1)

    a, b = torch.randn(3, 2).double(), torch.randn(3, 3).double()
    answer = attribute(Product(), (a, b), method=method, **({"n_samples": 4000} if "sampling" in method else {}))
    torch.testing.assert_close(answer.values[0], a * b[:, :2] / 2, atol=0.03, rtol=0)
    torch.testing.assert_close(answer.values[1][:, 2], torch.zeros(3).double(), atol=1e-6, rtol=0)


def test_large_images_are_cut_into_a_grid_whose_values_sum_to_the_difference():
    model = nn.Sequential(nn.Conv2d(3, 4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 5)).double()
    x = torch.randn(2, 3, 32, 32).double()
    answer = attribute(model, x, target=1, method="kernel_shap")
    difference = (model(x) - model(0 * x))[:, 1].detach()
    torch.testing.assert_close(answer.values.flatten(1).sum(1), difference)
    assert len(answer.heat[0].unique()) <= 49


def test_rise_finds_the_one_position_that_matters():
    class Corner(nn.Module):
        def forward(self, x):
            return x[:, :, :4, :4].mean((1, 2, 3))

    answer = attribute(Corner(), torch.ones(2, 1, 28, 28), method="rise", n_samples=800)
    corner, rest = answer.heat[:, :4, :4].mean((1, 2)), answer.heat[:, 12:, 12:].mean((1, 2))
    assert (corner > 0.15).all()
    assert (rest.abs() < 0.05).all()


def test_permutation_needs_several_samples_and_changes_only_among_them():
    model, x = mlp(), torch.randn(6, 5).double()
    answer = attribute(model, x, target=1, method="feature_permutation")
    assert answer.values.abs().sum() > 0
    constant = x.clone()
    constant[:, 2] = 1.0
    assert attribute(model, constant, target=1, method="feature_permutation").values[:, 2].abs().max() == 0
    with pytest.raises(ValueError, match="at least 2"):
        attribute(model, x[:1], target=1, method="feature_permutation")


# noise


def test_averages_over_drawn_baselines_converge_to_integrated_gradients():
    model, x, base = mlp(), torch.randn(3, 5).double(), torch.randn(1, 5).double()
    expected = attribute(model, x, target=1, baselines=base, n_steps=200).values
    for method in ("gradient_shap", "expected_gradients"):
        answer = attribute(model, x, target=1, method=method, baselines=base, n_samples=20_000)
        torch.testing.assert_close(answer.values, expected, atol=0.02, rtol=0.02)


def test_smooth_grad_of_a_linear_model_is_its_weight_and_has_no_variance():
    model, x = nn.Linear(5, 3), torch.randn(4, 5)
    weight = model.weight[1].detach().expand(4, 5)
    torch.testing.assert_close(attribute(model, x, target=1, method="smooth_grad").values, weight)
    square = attribute(model, x, target=1, method="smooth_grad", form="square").values
    torch.testing.assert_close(square, weight**2)
    spread = attribute(model, x, target=1, method="smooth_grad", form="variance").values
    torch.testing.assert_close(spread, torch.zeros(4, 5), atol=1e-6, rtol=0)


def test_noise_smooths_any_method():
    model, x = nn.Linear(5, 3), torch.randn(4, 5)
    answer = attribute(model, x, target=1, method="input_x_gradient", noise=0.01, noise_samples=20)
    torch.testing.assert_close(answer.values, (x * model.weight[1]).detach(), atol=0.02, rtol=0)
    assert answer.cost.forwards == 20
    assert answer.delta is None


# sequences and attention


def test_temporal_saliency_rescaling_multiplies_what_time_and_feature_change():
    model, x = Sequence(nn.LSTM(4, 5, batch_first=True), 5).double(), torch.randn(2, 6, 4).double()

    def saliency(inputs):
        return attribute(model, inputs, target=1, method="saliency").values

    expected, plain = torch.zeros(2, 6, 4).double(), saliency(x)
    for t, f in itertools.product(range(6), range(4)):
        without_t, without_f = x.clone(), x.clone()
        without_t[:, t], without_f[:, :, f] = 0, 0
        time, feature = ((saliency(other) - plain).abs().sum((1, 2)) for other in (without_t, without_f))
        expected[:, t, f] = time * feature
    answer = attribute(model, x, target=1, method="temporal_saliency_rescaling")
    torch.testing.assert_close(answer.values, expected)
    assert answer.cost.forwards == 1 + 6 + 4


def test_temporal_saliency_rescaling_takes_any_input_method_with_its_options():
    model, x = Sequence(nn.LSTM(4, 5, batch_first=True), 5).double(), torch.randn(2, 6, 4).double()
    rescaled = {"target": 1, "method": "temporal_saliency_rescaling"}
    steps = {"of": "integrated_gradients", "of_options": {"n_steps": 7}}
    answer = attribute(model, x, **rescaled, **steps)
    plain = quietly(model, x, target=1, n_steps=7).values
    without = [torch.cat([x[:, :t], 0 * x[:, t : t + 1], x[:, t + 1 :]], 1) for t in range(6)]
    time = torch.stack([(quietly(model, w, target=1, n_steps=7).values - plain).abs().sum((1, 2)) for w in without], 1)
    assert torch.allclose(answer.values / answer.values[:, :1], (time / time[:, :1])[..., None])

    def gradient(score, values):
        return torch.autograd.grad(score(values).sum(), values)[0].abs()

    own = attribute(model, x, **rescaled, of=gradient).values
    torch.testing.assert_close(own, attribute(model, x, **rescaled).values)
    for wrong, error in (({"of": "grad_cam"}, ValueError), (steps | {"of_options": {"n": 1}}, TypeError)):
        with pytest.raises(error):
            attribute(model, x, **rescaled, **wrong)


def attending():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(40, 3))


def manual_attention(layer, x):
    attention = layer.self_attn
    q, k, _ = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).reshape(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return (q @ k.mT / 2).softmax(-1)


def test_attention_weights_of_a_stock_transformer_are_those_it_computes():
    model, x = attending().eval(), torch.randn(2, 5, 8)
    first = attribute(model, x, target=1, method="attention", which=0, query=2)
    expected = manual_attention(model[0].layers[0], x).mean(1)
    torch.testing.assert_close(first.values, expected[:, 2].detach())
    rollout = attribute(model, x, target=1, method="attention_rollout")
    eye = torch.eye(5)
    second = manual_attention(model[0].layers[1], model[0].layers[0](x)).mean(1)
    product = (0.5 * second + 0.5 * eye) @ (0.5 * expected + 0.5 * eye)
    torch.testing.assert_close(rollout.values, product.mean(1).detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rollout.heat.sum(1), torch.ones(2))


def test_grad_x_attention_uses_the_true_gradient_of_the_weights():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(4, 3)

        def forward(self, x, weights=None):
            weights = (x @ x.mT).softmax(-1) if weights is None else weights
            return self.dense((weights @ x).mean(1) ** 2)

    model, x = Own().double(), torch.randn(2, 5, 4).double()
    weights = (x @ x.mT).softmax(-1).requires_grad_()
    gradient = torch.autograd.grad(model(x, weights)[:, 1].sum(), weights)[0]
    answer = attribute(model, x, target=1, method="grad_x_attention")
    torch.testing.assert_close(answer.values, (weights * gradient).clamp(min=0).mean(1).detach())


def test_attention_of_the_reference_model_is_its_softmax_and_padding_is_cold():
    model = models.AttentionClassifier(vocabulary=20, features=6, classes=3)
    ids = torch.randint(1, 20, (4, 7))
    ids[1, 4:] = 0
    for method in ("attention", "attention_rollout", "grad_x_attention"):
        answer = attribute(model, Samples(ids, torch.tensor([0, 1, 2, 0]), valid=ids > 0), method=method)
        assert answer.heat.shape == (4, 7)
        assert answer.heat[1, 4:].abs().max() == 0


def test_a_model_without_attention_is_refused(images):
    with pytest.raises(ValueError, match="computes no attention"):
        attribute(cnn(), images, target=1, method="attention")


# every reference model and every method: an answer, or a reason


@pytest.fixture(scope="module")
def rooms():
    torch.manual_seed(0)
    return {
        "cnn": (models.CNN(), torch.randn(3, 1, 28, 28), "blocks"),
        "lstm": (models.LSTMClassifier(), torch.randn(3, 28, 28), "lstm:output[0]"),
        "attention": (models.AttentionClassifier(), torch.randn(3, 28, 28), "lstm:output[0]"),
        "tokens": (models.AttentionClassifier(vocabulary=30, features=8), torch.randint(1, 30, (3, 9)), "project"),
    }


@pytest.mark.parametrize("room", ["cnn", "lstm", "attention", "tokens"])
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_answers_or_says_why_not(method, room, rooms):
    model, x, layer = rooms[room]
    row = METHODS[method]
    options = {"n_samples": 20} if "n_samples" in row.options else {}
    at = layer if row.explains == "layer" or row.helped else None
    try:
        answer = quietly(model, x, target=torch.tensor([1, 2, 3]), method=method, layer=at, **options)
    except ValueError as error:
        assert len(str(error)) > 40  # a reason, in words
    else:
        assert torch.isfinite(answer.heat).all()
        assert answer.heat.shape[0] == 3


def test_value_zeroing_compares_the_block_with_and_without_a_value():
    model, x = attending().eval(), torch.randn(2, 5, 8)
    layer = model[0].layers[1]
    hidden = model[0].layers[0](x)

    def block(keep):
        attention = layer.self_attn
        q, k, v = F.linear(hidden, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        q, k, v = (t.reshape(2, 5, 2, 4).transpose(1, 2) for t in (q, k, v * keep[None, :, None]))
        mixed = ((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)
        middle = layer.norm1(hidden + attention.out_proj(mixed))
        return layer.norm2(middle + layer.linear2(torch.relu(layer.linear1(middle))))

    whole, expected = block(torch.ones(5)), []
    for token in range(5):
        keep = torch.ones(5)
        keep[token] = 0
        expected.append(1 - F.cosine_similarity(block(keep), whole, dim=-1))
    for budget in (2**30, 1):
        options = {"method": "value_zeroing", "layer": "0.layers.1", "budget": budget, "query": 3}
        answer = attribute(model, x, target=1, **options)
        torch.testing.assert_close(answer.values, torch.stack(expected, 2)[:, 3].detach(), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="nothing attends inside"):
        attribute(model, x, target=1, method="value_zeroing", layer="0.layers.1.linear1")


def test_value_zeroing_at_a_softmax_compares_what_its_weights_mix():
    model, x = models.AttentionClassifier(6, 8, 4).eval(), torch.randn(2, 5, 6)
    weights = (model.lstm(x)[0] @ model.project(x).mT / 8**0.5).softmax(-1)
    values, expected = model.project(x), []
    for token in range(5):
        keep = torch.ones(5, 1)
        keep[token] = 0
        expected.append(1 - F.cosine_similarity(weights @ (values * keep), weights @ values, dim=-1))
    answer = attribute(model, x, target=1, method="value_zeroing", layer="softmax", query=3)
    torch.testing.assert_close(answer.values, torch.stack(expected, 2)[:, 3].detach(), atol=1e-5, rtol=1e-4)


REFUSED = {  # on the models trained on planted evidence, and why
    ("temporal_saliency_rescaling", "patches"): "explains one input .batch, time, features.",
    ("guided_backprop", "steps"): "this model has none, so it would be the plain gradient",
    ("deconvolution", "steps"): "this model has none, so it would be the plain gradient",
    ("lrp", "steps"): "no rule for LSTM",
}
ON_EVIDENCE = [n for n, row in METHODS.items() if row.explains != "layer" and not row.helped and not row.tokens]
PLANTED = [(method, task) for method in ON_EVIDENCE for task in ("patches", "steps")]


def planted(task):
    return models.load(task), getattr(models.tasks, f"planted_{task}")().test[:8]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "task"), [pair for pair in PLANTED if pair not in REFUSED])
def test_every_method_finds_planted_evidence_better_than_chance(method, task):
    model, samples = planted(task)
    heat = quietly(model, samples, method=method).heat.abs()
    found = (heat * samples.evidence).sum() / heat.sum()
    assert found > 1.5 * samples.evidence.float().mean()


@pytest.mark.parametrize(("method", "task"), REFUSED)
def test_what_is_refused_on_planted_evidence_says_why(method, task):
    model, samples = planted(task)
    with pytest.raises(ValueError, match=REFUSED[method, task]):
        attribute(model, samples, method=method)


def test_occlusion_windows_at_the_edges_are_those_of_captum():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(2 * 7 * 9, 3)).double(), torch.randn(3, 2, 7, 9).double()
    window, strides = (1, 3, 4), (1, 2, 3)
    theirs = captum("Occlusion", model, inputs=x, target=1, sliding_window_shapes=window, strides=strides)
    for budget in (2**30, 1):
        options = {"sliding_window_shapes": window, "strides": strides, "budget": budget}
        ours = attribute(model, x, target=1, method="occlusion", **options)
        torch.testing.assert_close(ours.values.float(), theirs)  # Captum answers in single precision


def test_occlusion_of_single_numbers_takes_each_away():
    answer = attribute(nn.Tanh(), torch.tensor([0.5, -2.0, 3.0]), method="occlusion")
    torch.testing.assert_close(answer.values, torch.tanh(torch.tensor([0.5, -2.0, 3.0])))


class Together(nn.Module):
    """The product of the first two elements, and the sum of the others."""

    def forward(self, x):
        return torch.stack([x[:, 0] * x[:, 1] + x[:, 2:].sum(1), x.sum(1)], 1)


@pytest.mark.parametrize("method", ["lime", "kernel_shap"])
def test_segments_that_a_sample_does_not_have_are_no_part_of_its_regression(method):
    """The first sample has two segments, the second thirty-two: the first is explained as it is alone."""
    x = torch.ones(2, 32).double()
    mask = torch.stack([(torch.arange(32) > 0).long(), torch.arange(32)])
    options = {"method": method, "target": 0, "n_samples": 20_000}
    alone = attribute(Together(), x[:1], feature_mask=mask[:1], **options).values[0]
    beside = attribute(Together(), x, feature_mask=mask, **options).values
    torch.testing.assert_close(beside[0], alone, atol=0.02, rtol=0)
    torch.testing.assert_close(beside[1, 2:], torch.ones(30).double(), atol=0.1, rtol=0)


def test_a_segment_that_a_sample_does_not_have_is_worth_exactly_nothing():
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3], [3, 3, 3, 3]])
    cut = Features(SimpleNamespace(size=3, values=[torch.zeros(3, 4)]), [mask], 4, shared=False)
    asked = []

    def solve(own, samples):
        asked.append((own.tolist(), samples.tolist()))
        return torch.ones(len(samples), len(own)).double()

    worth = cut.each_own(solve)
    assert sorted(asked) == [([0, 1], [0]), ([0, 1, 2, 3], [1]), ([3], [2])]
    assert worth.gt(0).tolist() == [[True, True, False, False], [True] * 4, [False] * 3 + [True]]


# superpixels


class Redness(nn.Module):
    def forward(self, x):
        return torch.stack([torch.tanh(8 * (x[:, 0] - x[:, 1]).clamp(min=0).mean((1, 2))), x.mean((1, 2, 3))], 1)


@pytest.fixture(scope="module")
def photographs():
    pytest.importorskip("skimage", reason='pip install "inspector[segments]" for superpixels')
    from sklearn.datasets import load_sample_image

    both = [torch.from_numpy(load_sample_image(name).copy()) for name in ("flower.jpg", "china.jpg")]
    return F.interpolate(torch.stack([b[:427, :640] for b in both]).permute(0, 3, 1, 2) / 255, size=(48, 72), mode="area")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["feature_ablation", "kernel_shap", "lime", "shapley_value_sampling"])
def test_superpixels_find_the_red_flower_as_one_image_alone_does(method, photographs):
    options = {"method": method, "feature_mask": "superpixels", "target": 0}
    heat = attribute(Redness(), photographs, **options).heat
    red = photographs[0, 0] - photographs[0, 1] > 0.2
    assert 0.1 < red.float().mean() < 0.3
    assert heat[0][red].mean() > 5 * heat[0][~red].mean().abs()
    alone = attribute(Redness(), photographs[:1], **options).heat[0]
    assert F.cosine_similarity(heat[0].flatten(), alone.flatten(), dim=0) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"method": "kernel_shap", "n_samples": 80}, {"method": "shapley_value_sampling"}])
def test_superpixels_sum_to_the_difference_though_images_have_different_ones(options, photographs):
    model = Redness()
    answer = attribute(model, photographs, target=0, feature_mask="superpixels", **options)
    difference = model(photographs)[:, 0] - model(0 * photographs)[:, 0]
    torch.testing.assert_close(answer.values.flatten(1).sum(1), difference, atol=1e-6, rtol=1e-4)


def test_superpixels_name_what_to_install_where_scikit_image_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"inspector\[segments\]"):
        attribute(Redness(), torch.rand(1, 3, 9, 9), target=0, method="kernel_shap", feature_mask="superpixels")
