"""attribute(): what it answers, what it refuses, and that it leaves everything as it was."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from inspector import METHODS, Attribution, Neuron, Samples, attribute

# of images: all that explain inputs, but attention's, which needs some, and the sequences' own
INPUT_METHODS = [
    name
    for name, row in METHODS.items()
    if row.explains != "layer" and not row.helped and not row.tokens and name != "temporal_saliency_rescaling"
]
LAYER_METHODS = [name for name, row in METHODS.items() if row.explains == "layer"]


class Linear(nn.Module):
    """score = weights . x, whose every complete attribution is known: weights * (x - baseline)."""

    def __init__(self, features=6, classes=3):
        super().__init__()
        self.dense = nn.Linear(features, classes)

    def forward(self, x):
        return self.dense(x)


class Tokens(nn.Module):
    """Positive embeddings, so that the ReLU changes nothing and every attribution is known."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=0)
        self.embedding.weight.data.abs_()
        self.dense = nn.Linear(6, 3)

    def forward(self, ids):
        return self.dense(torch.relu(self.embedding(ids).mean(1)))


class Recommender(nn.Module):
    """A user, an item, numbers, and two columns of categories."""

    def __init__(self):
        super().__init__()
        self.user, self.item = nn.Embedding(5, 4), nn.Embedding(7, 4)
        self.columns = nn.ModuleList([nn.Embedding(3, 2), nn.Embedding(4, 3)])
        self.dense = nn.Linear(4 + 4 + 3 + 2 + 3, 1)

    def forward(self, user, item, numbers, columns):
        parts = [self.columns[i](columns[:, i]) for i in range(2)]
        return self.dense(torch.cat([self.user(user), self.item(item), numbers, *parts], 1))[:, 0]


class Padded(nn.Module):
    """An LSTM with lengths: padded steps do not count."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.dense = nn.Linear(5, 3)

    def forward(self, x, lengths):
        states, _ = self.lstm(x)
        return self.dense(states[torch.arange(len(x)), lengths - 1])


def cnn(*, inplace=False):
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=inplace), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 10))


@pytest.fixture
def images():
    return torch.randn(3, 2, 8, 8)


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attribute(*args, **options)


@pytest.mark.parametrize("method", INPUT_METHODS)
def test_every_input_attribution_has_the_shape_of_the_input(method, images):
    answer = quietly(cnn(), images, target=3, method=method)
    assert answer.values.shape == images.shape
    assert answer.heat.shape == (3, 8, 8)
    assert answer.method == method
    assert answer.cost.forwards >= 1


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.complete and row.explains != "layer"])
def test_complete_methods_on_a_linear_model_give_weight_times_difference(method):
    model, x, baseline = Linear().double(), torch.randn(4, 6).double(), torch.randn(1, 6).double()
    answer = attribute(model, x, target=1, method=method, baselines=baseline)
    expected = model.dense.weight[1] * (x - baseline)
    torch.testing.assert_close(answer.values, expected.detach(), atol=1e-6, rtol=1e-6)
    assert answer.delta.abs().max() < 1e-6


def test_integrated_gradients_of_a_sum_of_squares_is_the_square():
    x = torch.randn(4, 7).double()
    answer = attribute(Squares(), x, method="integrated_gradients")
    torch.testing.assert_close(answer.values, x**2, atol=1e-6, rtol=1e-6)


class Squares(nn.Module):
    def forward(self, x):
        return (x**2).sum(1)


def test_delta_is_the_sum_minus_the_difference_of_outputs(images):
    model = cnn().double()
    answer = quietly(model, images.double(), target=3, n_steps=7)
    with torch.no_grad():
        difference = (model(images.double()) - model(0 * images.double()))[:, 3]
    torch.testing.assert_close(answer.delta, answer.values.flatten(1).sum(1) - difference, atol=1e-6, rtol=1e-6)


def test_a_method_that_is_off_by_more_than_five_percent_warns(images):
    with pytest.warns(UserWarning, match="does not sum|do not sum"):
        attribute(cnn(), images, target=3, n_steps=2, rule="riemann_left")


@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "IntegratedGradients", "DeepLift"])
def test_gradient_methods_equal_captum(name, images):
    import captum.attr

    model, target = cnn(), torch.tensor([1, 2, 3])
    ours = {"Saliency": "saliency", "InputXGradient": "input_x_gradient", "DeepLift": "deep_lift"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(captum.attr, name)(model).attribute(images, target=target)
    answer = quietly(model, images, target=target, method=ours.get(name, "integrated_gradients"))
    torch.testing.assert_close(answer.values, theirs.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [((2, 3, 5), (2, 2, 3)), ((1, 2, 2), (1, 1, 1)), ((2, 8, 8), (1, 8, 8))])
def test_occlusion_equals_captum_in_fewer_passes(window, stride, images):
    from captum.attr import Occlusion

    model = cnn()
    theirs = Occlusion(model).attribute(images, sliding_window_shapes=window, strides=stride, target=4, baselines=0.5)
    options = {"sliding_window_shapes": window, "strides": stride}
    answer = attribute(model, images, target=4, method="occlusion", baselines=0.5, **options)
    torch.testing.assert_close(answer.values, theirs, atol=1e-6, rtol=1e-5)
    assert answer.cost.forwards == 2
    few = attribute(model, images, target=4, method="occlusion", baselines=0.5, budget=1, **options)
    torch.testing.assert_close(few.values, theirs, atol=1e-6, rtol=1e-5)
    assert few.cost.forwards > 2 or window == (2, 8, 8)


class Flat(torch.nn.Module):
    """Takes a view of images, which those that lie channels last do not allow."""

    def forward(self, images):
        return images.view(len(images), -1)[:, :3] * 2


@pytest.mark.parametrize("make", [cnn, Flat])
def test_occlusion_in_many_passes_is_that_of_one_whatever_layout_the_model_takes(make, images):
    model = make()
    options = {"sliding_window_shapes": (1, 2, 2), "strides": 1, "target": 1, "method": "occlusion"}
    one, many = (attribute(model, images, budget=budget, **options) for budget in ("1 GiB", 1))
    torch.testing.assert_close(many.values, one.values, atol=1e-6, rtol=1e-5)
    assert many.cost.forwards > 32
    assert one.cost.forwards == 2


def test_on_a_cpu_no_pass_keeps_a_graph_larger_than_its_caches(images):
    wide = torch.nn.Sequential(torch.nn.Conv2d(2, 2048, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(5))
    wide(images)
    by_default, in_small = (attribute(wide, images, target=1, n_steps=200, **own) for own in ({}, {"budget": "8 MiB"}))
    assert 2 < by_default.cost.forwards < in_small.cost.forwards
    torch.testing.assert_close(by_default.values, in_small.values, atol=1e-5, rtol=1e-4)


def test_feature_ablation_equals_captum_with_a_mask(images):
    from captum.attr import FeatureAblation

    model, mask = cnn(), torch.arange(64).reshape(1, 8, 8).div(9, rounding_mode="floor")
    theirs = FeatureAblation(model).attribute(images, target=4, feature_mask=mask[None])
    answer = attribute(model, images, target=4, method="feature_ablation", feature_mask=mask)
    torch.testing.assert_close(answer.values, theirs, atol=1e-6, rtol=1e-5)


def test_the_path_is_cut_to_the_memory_budget_and_the_answer_stays(images):
    model = cnn().double()
    whole = quietly(model, images.double(), target=3)
    parts = quietly(model, images.double(), target=3, budget=100_000)
    assert whole.cost.forwards == 2
    assert parts.cost.forwards > 3
    torch.testing.assert_close(whole.values, parts.values)


# targets


def test_a_target_can_be_an_int_a_tensor_samples_or_a_function(images):
    model = cnn()
    by_int = quietly(model, images, target=2).values
    by_tensor = quietly(model, images, target=torch.full((3,), 2)).values
    by_list = quietly(model, images, target=[2, 2, 2]).values
    by_samples = quietly(model, Samples(images, torch.full((3,), 2))).values
    by_function = quietly(model, images, target=lambda output: output[:, 2]).values
    for other in (by_tensor, by_list, by_samples, by_function):
        torch.testing.assert_close(other, by_int)


@pytest.mark.parametrize("method", INPUT_METHODS)
def test_a_target_function_always_sees_the_batch_that_was_given(method, images):
    seen = []

    def target(output):
        seen.append(output.shape[0])
        return output[torch.arange(3), torch.tensor([1, 2, 3])]

    by_function = quietly(cnn_with_seed(), images, target=target, method=method)
    by_tensor = quietly(cnn_with_seed(), images, target=torch.tensor([1, 2, 3]), method=method)
    assert set(seen) == {3}
    torch.testing.assert_close(by_function.values, by_tensor.values, atol=1e-6, rtol=1e-5)


def cnn_with_seed():
    torch.manual_seed(5)
    return cnn()


def test_a_neuron_inside_the_model_is_explained(images):
    model = cnn()
    answer = attribute(model, images, target=Neuron("0", (1, 2, 3)), method="saliency", abs=False)
    expected = torch.zeros_like(images)
    expected[:, :, 2:5, 3:6] = model[0].weight[1].detach()
    torch.testing.assert_close(answer.values, expected)


def test_steps_of_a_sequence_are_summed_over_the_valid_ones():
    class PerStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(4, 3)

        def forward(self, x):
            return self.dense(x)

    model, x = PerStep(), torch.randn(2, 5, 4)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    target = torch.randint(0, 3, (2, 5))
    answer = attribute(model, Samples(x, target, valid=valid), method="saliency", abs=False)
    expected = model.dense.weight.detach()[target] * valid[..., None]
    torch.testing.assert_close(answer.values, expected)
    assert (answer.heat[~valid] == 0).all()


@pytest.mark.parametrize(
    ("target", "error", "says"),
    [
        (10, IndexError, "0 to 9"),
        (-1, IndexError, "out of range"),
        (torch.tensor([1, 2]), ValueError, "3 samples"),
        (torch.tensor([1, 2, 12]), IndexError, "12"),
        (torch.tensor([0.5, 1, 2]), TypeError, "class indices"),
        (None, ValueError, "say which"),
        ("cat", TypeError, "no target"),
        (True, TypeError, "no class"),
        ((1, 2), ValueError, "2 places"),
        (lambda output: output.sum(), ValueError, "one number per sample"),
        (Neuron("9", 0), LookupError, "matches no module"),
        (Neuron("0", (4, 0, 0)), IndexError, "out of range"),
    ],
)
def test_a_wrong_target_is_refused_in_words(target, error, says, images):
    with pytest.raises(error, match=says):
        attribute(cnn(), images, target=target)


def test_a_regression_model_needs_no_target_and_refuses_a_class():
    x = torch.randn(3, 7)
    assert attribute(Squares(), x).values.shape == (3, 7)
    assert attribute(Squares(), Samples(x, torch.randn(3))).target is None
    with pytest.raises(ValueError, match="no class to choose"):
        attribute(Squares(), x, target=1)


# inputs


def test_tokens_are_explained_at_the_embedding_that_receives_them():
    model, ids = Tokens(), torch.randint(1, 20, (4, 5))
    answer = attribute(model, ids, target=1)
    assert answer.values.shape == (4, 5, 6)
    assert answer.heat.shape == (4, 5)
    expected = model.embedding(ids) * model.dense.weight[1] / 5
    torch.testing.assert_close(answer.values, expected.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("method", INPUT_METHODS)
def test_every_input_method_works_on_tokens(method):
    model, ids = Tokens(), torch.randint(1, 20, (4, 5))
    if method == "lrp":
        with pytest.raises(ValueError, match="no rule for Embedding"):
            attribute(model, ids, target=1, method=method)
    else:
        assert quietly(model, ids, target=1, method=method).heat.shape == (4, 5)


def test_a_baseline_of_token_ids_is_embedded():
    model, ids = Tokens(), torch.randint(1, 20, (4, 5))
    answer = attribute(model, ids, target=1, baselines=7)
    torch.testing.assert_close(answer.baselines, model.embedding(torch.full((4, 5), 7)).detach())


def test_numbers_and_categories_end_in_one_heat_over_features():
    model = Recommender()
    inputs = {
        "user": torch.tensor([1, 2]),
        "item": torch.tensor([3, 4]),
        "numbers": torch.randn(2, 3),
        "columns": torch.tensor([[1, 2], [0, 3]]),
    }
    answer = attribute(model, inputs)
    assert answer.heat.shape == (2, 1 + 1 + 3 + 2)
    torch.testing.assert_close(answer.heat.sum(1), (model(**inputs) - model.dense.bias).detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("explain", ["numbers", ["numbers"]])
def test_explain_picks_one_of_several_inputs(explain):
    inputs = {
        "user": torch.tensor([1, 2]),
        "item": torch.tensor([3, 4]),
        "numbers": torch.randn(2, 3),
        "columns": torch.tensor([[1, 2], [0, 3]]),
    }
    answer = attribute(Recommender(), inputs, explain=explain)
    assert answer.values.shape == (2, 3)
    with pytest.raises(LookupError, match="names no input"):
        attribute(Recommender(), inputs, explain="price")


def test_lengths_travel_with_their_samples_and_padding_is_cold():
    model, x, lengths = Padded(), torch.randn(3, 6, 4), torch.tensor([6, 2, 4])
    valid = torch.arange(6) < lengths[:, None]
    answer = quietly(model, Samples((x, lengths), torch.tensor([0, 1, 2]), valid=valid))
    assert answer.heat.shape == (3, 6)
    assert (answer.heat[~valid] == 0).all()
    alone = quietly(model, (x[1:2], lengths[1:2]), target=1)
    torch.testing.assert_close(answer.values[1:2], alone.values, atol=1e-6, rtol=1e-5)


def test_several_floating_inputs_are_explained_jointly_and_nested_as_given():
    class Product(nn.Module):
        def forward(self, a, b):
            return (a * b).sum(1)

    a, b = torch.randn(2, 3).double(), torch.randn(2, 3).double()
    as_tuple = attribute(Product(), (a, b))
    as_dict = attribute(Product(), {"a": a, "b": b})
    assert isinstance(as_tuple.values, tuple)
    assert set(as_dict.values) == {"a", "b"}
    for values in (as_tuple.values[0], as_tuple.values[1], as_dict.values["a"]):
        torch.testing.assert_close(values, a * b / 2, atol=1e-6, rtol=1e-6)
    assert as_dict.heat.shape == (2, 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_floating_types_keep_their_type(dtype, images):
    answer = quietly(cnn().to(dtype), images.to(dtype), target=1, method="input_x_gradient")
    assert answer.values.dtype == dtype


def test_channels_last_and_a_batch_of_one(images):
    model = cnn()
    expected = attribute(model, images[:1], target=1, method="saliency").values
    got = attribute(model, images[:1].to(memory_format=torch.channels_last), target=1, method="saliency").values
    torch.testing.assert_close(got, expected)


def test_a_batch_of_none_is_refused():
    with pytest.raises(ValueError, match="no sample"):
        attribute(cnn(), torch.empty(0, 2, 8, 8), target=1)


def test_gradients_are_asked_for_also_where_they_are_off(images):
    model = cnn()
    expected = attribute(model, images, target=1, method="saliency").values
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            torch.testing.assert_close(attribute(model, images, target=1, method="saliency").values, expected)


def test_an_input_that_no_gradient_reaches_is_refused_with_the_reason():
    class Rounded(nn.Module):
        def forward(self, a, b):
            return (a + b.round().long()).sum(1)

    with pytest.raises(ValueError, match=r"no gradient reaches input \[b\].*occlusion"):
        attribute(Rounded(), {"a": torch.randn(2, 3), "b": torch.randn(2, 3)}, method="saliency")


# methods


def test_a_function_is_a_method():
    def squared_gradient(score, values, *, power=2):
        return torch.autograd.grad(score(values).sum(), values)[0] ** power

    model, x = Linear(), torch.randn(2, 6)
    answer = attribute(model, x, target=1, method=squared_gradient, power=4)
    torch.testing.assert_close(answer.values, (model.dense.weight[1] ** 4).detach().expand(2, 6))
    assert answer.method == "squared_gradient"
    assert answer.options == {"power": 4}
    assert answer.cost[:3] == (1, 1, 2)


def test_a_function_may_ask_for_many_copies_of_the_batch_in_one_pass():
    def by_deletion(score, values):
        copies = values.detach()[None] * (1 - torch.eye(6))[:, None]
        return (score(values) - score(copies.flatten(0, 1)).reshape(6, -1)).T.detach()

    model, x = Linear(), torch.randn(2, 6)
    answer = attribute(model, x, target=torch.tensor([0, 1]), method=by_deletion)
    torch.testing.assert_close(answer.values, (model.dense.weight[:2] * x).detach(), atol=1e-6, rtol=1e-5)


def test_a_new_row_is_a_method_by_name():
    METHODS["nothing"] = lambda score, values: torch.zeros_like(values)
    try:
        assert attribute(Linear(), torch.randn(2, 6), target=0, method="nothing").values.abs().sum() == 0
    finally:
        del METHODS["nothing"]


def test_unknown_methods_and_options_are_refused_with_what_there_is(images):
    with pytest.raises(KeyError, match="Did you mean 'saliency'"):
        attribute(cnn(), images, target=1, method="salience")
    with pytest.raises(TypeError, match="no option 'steps'; it has n_steps"):
        attribute(cnn(), images, target=1, steps=3)
    with pytest.raises(ValueError, match="layer='0'"):
        attribute(cnn(), images, target=1, method="grad_cam")
    with pytest.raises(LookupError, match="matches no module"):
        attribute(cnn(), images, target=1, method="grad_cam", layer="conv")


def test_a_wrong_baseline_is_refused_in_words(images):
    with pytest.raises(ValueError, match="shape"):
        attribute(cnn(), images, target=1, baselines=torch.zeros(3, 2, 7, 8))
    with pytest.raises(ValueError, match="no word"):
        attribute(cnn(), images, target=1, baselines="grey")


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", "noise", 0.5, lambda values: values * 0.1])
def test_baselines_in_every_form_are_kept_as_what_was_used(baseline, images):
    answer = quietly(cnn(), images, target=1, baselines=baseline)
    assert answer.baselines.shape == images.shape


def test_the_table_prints_every_method():
    text = repr(METHODS)
    assert all(name in text for name in METHODS)
    assert len(METHODS) >= 9


# nothing is changed


class Fragile(nn.Module):
    """A model that changes itself whenever it runs."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.dense = nn.Linear(4 * 36, 10)
        self.register_buffer("runs", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.runs += 1
        self.replaced = self.replaced + 1
        self.latest = x
        return self.dense(self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1))


def state(model, x):
    modules = {
        name: (m.training, dict(m.__dict__), {k: dict(v) for k, v in hooks(m).items()}) for name, m in model.named_modules()
    }
    tensors = {name: (t.clone(), t.requires_grad, t.grad) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    return (
        modules,
        tensors,
        (x.clone(), x.requires_grad, x.grad),
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
    )


def hooks(module):
    return {name: value for name, value in module.__dict__.items() if "hooks" in name and value}


def assert_same(before, after):
    modules, tensors, inputs, *generators = before
    now_modules, now_tensors, now_inputs, *now_generators = after
    for name, (training, attributes, hooked) in modules.items():
        assert now_modules[name][0] == training
        assert set(now_modules[name][1]) == set(attributes)
        assert now_modules[name][1].get("calls") == attributes.get("calls")
        assert now_modules[name][2] == hooked
    for name, (value, wanted, grad) in tensors.items():
        assert torch.equal(now_tensors[name][0], value), name
        assert now_tensors[name][1] == wanted
        assert now_tensors[name][2] is grad
    assert torch.equal(inputs[0], now_inputs[0])
    assert inputs[1:] == now_inputs[1:]
    assert torch.equal(generators[0], now_generators[0])
    assert (generators[1] == now_generators[1]).all()
    assert generators[2] == now_generators[2]


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_users_is_changed(method, training, images):
    model = Fragile().train(training)
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    images.requires_grad_()
    before = state(model, images)
    layer = "conv" if method in LAYER_METHODS or METHODS[method].helped else None
    if method == "temporal_saliency_rescaling" or METHODS[method].tokens or method == "lrp":
        with pytest.raises(ValueError):
            quietly(model, images, target=1, method=method)
    else:
        quietly(model, images, target=1, method=method, layer=layer)
    assert_same(before, state(model, images))


@pytest.mark.parametrize("method", list(METHODS))
def test_nothing_is_changed_after_an_error_either(method, images):
    model = Fragile().train()
    before = state(model, images)
    layer = "conv" if method in LAYER_METHODS or METHODS[method].helped else None
    if method not in ("activation", "eigen_cam"):
        with pytest.raises((RuntimeError, ValueError)):
            quietly(model, images, target=fail, method=method, layer=layer)
    assert_same(before, state(model, images))


def fail(output):
    raise RuntimeError("mine")


def test_the_same_seed_gives_the_same_answer_and_dropout_is_off(images):
    model = Fragile().train()
    first = quietly(model, images, target=1, baselines="noise", seed=3)
    second = quietly(model, images, target=1, baselines="noise", seed=3)
    other = quietly(model, images, target=1, baselines="noise", seed=4)
    assert torch.equal(first.values, second.values)
    assert not torch.equal(first.values, other.values)


# the record


def test_an_attribution_can_be_saved_and_loaded(tmp_path, images):
    answer = quietly(cnn(), Samples(images, torch.tensor([1, 2, 3])))
    loaded = Attribution.load(answer.save(tmp_path / "answer"))
    torch.testing.assert_close(loaded.values, answer.values)
    torch.testing.assert_close(loaded.heat, answer.heat)
    assert loaded.cost == answer.cost
    assert loaded.model["checksum"] == answer.model["checksum"]


def test_cost_counts_every_pass(images):
    runs = []
    model = cnn()
    model.register_forward_hook(lambda module, args, output: runs.append(len(output)))
    for method in INPUT_METHODS:
        runs.clear()
        answer = quietly(model, images, target=1, method=method)
        assert answer.cost.forwards == len(runs), method
        assert answer.cost.examples == sum(runs), method


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if "+" in row.passes and not row.tokens])
def test_the_passes_are_those_of_the_table(method, images):
    row = METHODS[method]
    layer = "0" if row.explains == "layer" or row.helped else None
    cost = quietly(cnn(), images, target=1, method=method, layer=layer).cost
    assert f"{cost.forwards} + {cost.backwards}" == row.passes


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        (nn.Sequential(nn.LazyLinear(3)), ValueError, "run the model once"),
        (nn.Linear(6, 3, device="meta"), ValueError, "meta device"),
        (lambda x: x.sum(1), TypeError, "nn.Module"),
    ],
)
def test_what_cannot_be_explained_is_refused_before_any_work(model, error, says):
    with pytest.raises(error, match=says):
        attribute(model, torch.randn(2, 6), target=1)


def test_a_budget_may_be_written_with_a_unit(images):
    assert quietly(cnn(), images, target=1, budget="100 kB").cost.forwards > 2
    with pytest.raises(ValueError, match="no size"):
        attribute(cnn(), images, target=1, budget="much")


def test_numbers_that_are_not_finite_are_said_so():
    with pytest.warns(UserWarning, match="off by nan"):
        attribute(Linear(), torch.full((2, 6), float("nan")), target=1)


def test_an_inner_unit_of_a_time_major_module_is_that_of_each_sample():
    class TimeMajor(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 5)

        def forward(self, x):
            return self.lstm(x.transpose(0, 1))[0][-1]

    model = TimeMajor()
    for steps in (3, 6):
        x = torch.randn(3, steps, 4)
        unit = attribute(model, x, target=Neuron("lstm:output[0]", (steps - 1, 2)), method="saliency")
        torch.testing.assert_close(unit.values, attribute(model, x, target=2, method="saliency").values)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n_step": 5}, TypeError, "Did you mean 'n_steps'"),
        ({"rule": "simpson"}, ValueError, "no quadrature"),
        ({"method": "gradient_shap", "n_samples": 0}, ValueError, "draws nothing"),
        ({"method": "IntegratedGradients"}, KeyError, "Did you mean 'integrated_gradients'"),
        ({"method": "LayerGradCam"}, KeyError, "Did you mean 'grad_cam'"),
        ({"method": "grad_cam", "layer": "0@3"}, LookupError, "ran 1 time"),
    ],
)
def test_what_is_asked_wrongly_is_told_with_what_there_is(options, error, says):
    with pytest.raises(error, match=says):
        attribute(nn.Sequential(nn.Linear(5, 3)), torch.randn(2, 5), target=1, **options)


def test_a_model_made_under_inference_mode_is_refused_with_the_cure():
    with torch.inference_mode():
        model = nn.Linear(5, 3)
    with pytest.raises(ValueError, match="deepcopy"):
        attribute(model, torch.randn(2, 5), target=1)
    attribute(copy.deepcopy(model), torch.randn(2, 5), target=1)


@pytest.mark.parametrize("method", ["deep_lift", "lrp", "guided_backprop", "integrated_gradients", "occlusion"])
def test_wrapped_models_are_explained_as_what_they_wrap(method):
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 5)
    expected = attribute(model, x, target=1, method=method).values
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        torch.testing.assert_close(attribute(wrapped, x, target=1, method=method).values, expected)


def test_a_scripted_model_is_refused_where_rules_would_change():
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(model, x)
    expected = attribute(model, x, target=1, method="saliency").values
    torch.testing.assert_close(attribute(scripted, x, target=1, method="saliency").values, expected)
    for method in ("deep_lift", "guided_backprop", "lrp"):
        with pytest.raises(ValueError, match="scripted or traced"):
            attribute(scripted, x, target=1, method=method)
