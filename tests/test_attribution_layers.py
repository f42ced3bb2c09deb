"""Layers: any address, all layers from one pass, equal to Captum one layer at a time where Captum is right."""

import warnings

import pytest
import torch
from torch import nn

from inspector import Samples, Site, attribute, attribute_layers


class Reused(nn.Module):
    """One ReLU used twice, in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.c(self.relu(self.b(self.relu(self.a(x)))))

    def tail(self, hidden):
        return self.c(self.relu(self.b(hidden)))


class Recurrent(nn.Module):
    """An LSTM in either batch order, whose output sequence and final state are both used."""

    def __init__(self, batch_first):
        super().__init__()
        self.lstm, self.batch_first = nn.LSTM(4, 5, batch_first=batch_first), batch_first
        self.dense = nn.Linear(10, 3)

    def forward(self, x):
        out, (h, _) = self.lstm(x if self.batch_first else x.transpose(0, 1))
        mean = out.mean(1 if self.batch_first else 0)
        return self.dense(torch.cat([mean**2, h[-1] ** 2], 1))


class Heads(nn.Module):
    def forward(self, x):
        return {"double": 2 * x, "square": x**2}


class Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.dense = Heads(), nn.Linear(4, 3)

    def forward(self, x):
        heads = self.heads(x)
        return self.dense(heads["double"]) + heads["square"][:, :3]


def cnn(*, inplace=False):
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=inplace), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 6, 3), nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(6 * 4, 10)),
    )


@pytest.fixture
def images():
    return torch.randn(3, 2, 8, 8)


def captum_layer(name, model, layer, inputs, **options):
    import captum.attr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = getattr(captum.attr, name)(model, layer).attribute(inputs, **options)
    return tuple(f.detach() for f in found) if isinstance(found, tuple) else found.detach()


ONE_PASS = {"activation": "LayerActivation", "gradient_x_activation": "LayerGradientXActivation", "grad_cam": "LayerGradCam"}


@pytest.mark.parametrize("method", list(ONE_PASS))
def test_all_layers_from_one_pass_equal_captum_one_at_a_time(method, images):
    model, target = cnn(), torch.tensor([1, 2, 3])
    answers = attribute_layers(model, images, target=target, method=method, where=[str(i) for i in range(7)])
    assert list(answers) == [str(i) for i in range(7)]
    for name, answer in answers.items():
        extra = {} if method == "activation" else {"target": target}
        expected = captum_layer(ONE_PASS[method], model, model[int(name)], images, **extra)
        torch.testing.assert_close(answer.values, expected, atol=0, rtol=0)
        assert answer.cost.forwards == 1
        assert answer.cost.backwards == (method != "activation")


@pytest.mark.parametrize("method", list(ONE_PASS))
def test_one_layer_and_all_layers_agree(method, images):
    model = cnn(inplace=True)
    answers = attribute_layers(model, images, target=3, method=method)
    for name in ("0", "1", "3", "6"):
        alone = attribute(model, images, target=3, method=method, layer=name)
        torch.testing.assert_close(alone.values, answers[name].values, atol=0, rtol=0)
        assert alone.axes == answers[name].axes
        assert alone.layer == name


def test_an_in_place_operation_behind_a_layer_changes_nothing(images):
    torch.manual_seed(1)
    plain = attribute_layers(cnn(), images, target=3, method="gradient_x_activation")
    torch.manual_seed(1)
    in_place = attribute_layers(cnn(inplace=True), images, target=3, method="gradient_x_activation")
    for name in plain:
        torch.testing.assert_close(in_place[name].values, plain[name].values)


@pytest.mark.parametrize("name", ["0", "1", "2", "3"])
def test_layer_integrated_gradients_equal_captum_and_are_complete(name, images):
    model = cnn().double()
    answer = attribute(model, images.double(), target=3, layer=name, n_steps=50)
    expected = captum_layer("LayerIntegratedGradients", model, model[int(name)], images.double(), target=3, n_steps=50)
    torch.testing.assert_close(answer.values, expected)
    assert answer.heat.dim() == 3


def test_layer_integrated_gradients_before_an_in_place_relu(images):
    torch.manual_seed(1)
    plain = attribute(cnn(), images, target=3, layer="0", n_steps=300)
    torch.manual_seed(1)
    in_place = attribute(cnn(inplace=True), images, target=3, layer="0", n_steps=300)
    torch.testing.assert_close(in_place.values, plain.values)


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("method", ["integrated_gradients", "saliency", "gradient_x_activation"])
def test_one_call_of_a_reused_module_is_a_layer(call, method):
    model, x = Reused().double(), torch.randn(4, 5).double()
    answer = attribute(model, x, target=1, method=method, layer=f"relu@{call}")
    hidden = torch.relu(model.a(x))
    tail = model.tail
    if call == 1:
        hidden, tail = torch.relu(model.b(hidden)), model.c
    hidden = hidden.detach().requires_grad_()
    gradient = torch.autograd.grad(tail(hidden.clone())[:, 1].sum(), hidden)[0]
    if method != "integrated_gradients":
        expected = gradient.abs() if method == "saliency" else gradient * hidden
        torch.testing.assert_close(answer.values, expected.detach())
    assert answer.values.shape == (4, 6)
    assert answer.delta is None or answer.delta.abs().max() < 0.05


def test_a_reused_module_without_a_call_is_refused_with_its_calls_named():
    model, x = Reused(), torch.randn(4, 5)
    for method in ("integrated_gradients", "gradient_x_activation"):
        with pytest.raises(LookupError, match="relu@0, relu@1"):
            attribute(model, x, target=1, method=method, layer="relu")
    with pytest.raises(LookupError, match=r"did not happen|ran 2 times|calls"):
        attribute(model, x, target=1, layer="relu@2")


def test_every_call_of_a_reused_module_is_among_all_layers():
    answers = attribute_layers(Reused(), torch.randn(4, 5), target=1, method="gradient_x_activation", where="relu")
    assert list(answers) == ["relu@0", "relu@1"]


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_activation", "saliency", "occlusion"])
@pytest.mark.parametrize("leaf", ["[0]", "[1][0]"])
@pytest.mark.parametrize("steps", [3, 6])
def test_time_major_layers_are_explained_sample_by_sample(method, leaf, steps):
    """A batch of 3, also where the sequence has 3 steps: the axes cannot be told apart by their length."""
    first, major = Recurrent(True), Recurrent(False)
    major.load_state_dict(first.state_dict())
    x = torch.randn(3, steps, 4)
    expected = attribute(first, x, target=1, method=method, layer=f"lstm:output{leaf}")
    answer = attribute(major, x, target=1, method=method, layer=f"lstm:output{leaf}")
    torch.testing.assert_close(answer.values, expected.values, atol=1e-6, rtol=1e-5)
    assert answer.values.shape[0] == 3
    if leaf == "[0]":
        assert answer.heat.shape == (3, steps)
    alone = attribute(major, x[1:2], target=1, method=method, layer=f"lstm:output{leaf}")
    torch.testing.assert_close(alone.values, answer.values[1:2], atol=1e-6, rtol=1e-5)


def test_integrated_gradients_on_an_lstm_output_are_complete():
    model = Recurrent(False).double()
    answer = attribute(model, torch.randn(3, 6, 4).double(), target=1, layer="lstm:output[0]")
    assert answer.delta.abs().max() < 1e-9


def test_all_leaves_of_a_nested_output_are_layers():
    answers = attribute_layers(Recurrent(False), torch.randn(3, 6, 4), target=1, where="lstm")
    assert list(answers) == ["lstm:output[0]", "lstm:output[1][0]"]  # the cell state is not used
    assert answers["lstm:output[0]"].heat.shape == (3, 6)


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_activation"])
def test_leaves_of_a_dict_output_have_a_closed_form(method):
    model, x = Dictionary().double(), torch.randn(4, 4).double()
    answer = attribute(model, x, target=1, method=method, layer="heads:output[double]")
    torch.testing.assert_close(answer.values, (model.dense.weight[1] * 2 * x).detach())
    with pytest.raises(LookupError, match="double"):
        attribute(model, x, target=1, method=method, layer="heads")


@pytest.mark.parametrize("method", ["integrated_gradients", "gradient_x_activation", "saliency"])
def test_the_input_of_a_module_is_a_layer(method, images):
    model = cnn()
    at_input = attribute(model, images, target=1, method=method, layer="3:input[0]")
    at_output = attribute(model, images, target=1, method=method, layer="2")
    torch.testing.assert_close(at_input.values, at_output.values)


def test_a_site_and_its_text_are_the_same_layer():
    x = torch.randn(3, 6, 4)
    model = Recurrent(True)
    by_text = attribute(model, x, target=1, method="gradient_x_activation", layer="lstm:output[0]")
    by_site = attribute(model, x, target=1, method="gradient_x_activation", layer=Site("lstm", leaf=(0,)))
    assert torch.equal(by_text.values, by_site.values)
    assert by_text.layer == by_site.layer


def test_grad_cam_of_a_sequence_weighs_features_and_keeps_steps():
    model, x = Recurrent(True), torch.randn(3, 6, 4)
    answer = attribute(model, x, target=1, method="grad_cam", layer="lstm:output[0]")
    assert answer.values.shape == (3, 6, 1)
    assert answer.heat.shape == (3, 6)


def test_what_explains_inputs_only_refuses_a_layer_that_does_not_run(images):
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.used(x)

    for method in ("integrated_gradients", "gradient_x_activation"):
        with pytest.raises(LookupError, match=r"did not run|does not depend"):
            attribute(Unused(), torch.randn(2, 3), target=1, method=method, layer="unused")


def test_frozen_models_and_token_models_have_layers_too():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)).requires_grad_(
        False
    )
    answers = attribute_layers(model, torch.randint(0, 9, (4, 3)), target=1, method="gradient_x_activation")
    assert set(answers) >= {"0", "2", "3", "4"}
    torch.testing.assert_close(answers["4"].values.sum(1), model(answers["4"].samples.inputs)[:, 1])


def test_a_method_without_a_common_pass_says_which_have_one(images):
    with pytest.raises(ValueError, match="grad_cam"):
        attribute_layers(cnn(), images, target=1, method="saliency")


def test_axes_given_by_name_overrule_what_is_guessed(images):
    answer = attribute(cnn(), images, target=1, method="gradient_x_activation", layer="0", axes=(1,))
    assert answer.heat.shape == (3, 4)


@pytest.mark.slow
@pytest.mark.parametrize("method", list(ONE_PASS))
def test_all_layers_of_resnet18_equal_captum(method):
    from torchvision.models import resnet18

    model, x = resnet18().eval(), torch.randn(2, 3, 64, 64)
    answers = attribute_layers(model, x, target=5, method=method)
    for name, module in model.named_modules():
        if any(module.children()) or f"{name}@0" in answers:
            continue  # Captum keeps the last of several calls
        extra = {} if method == "activation" else {"target": 5}
        expected = captum_layer(ONE_PASS[method], model, module, x, **extra)
        torch.testing.assert_close(answers[name].values, expected, atol=0, rtol=0)


def test_several_methods_share_their_passes(images):
    model, names = cnn(), ("grad_cam", "hires_cam", "layer_cam", "gradient_x_activation")
    together = attribute_layers(model, images, target=3, method=names, where=["0", "3"])
    assert list(together) == [f"{name}@{layer}" for name in names for layer in ("0", "3")]
    assert together["grad_cam@0"].cost[:2] == (1, 1)
    for label, answer in together.items():
        assert answer.layer in ("0", "3")
        assert f"{answer.method}@{answer.layer}" == label
        alone = attribute(model, images, target=3, method=answer.method, layer=answer.layer)
        torch.testing.assert_close(answer.values, alone.values)


def test_layers_of_a_model_whose_input_has_no_gradient():
    class OneHot(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense, self.out = nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, ids):
            return self.out(self.dense(nn.functional.one_hot(ids, 5).float()))

    model, ids = OneHot(), torch.tensor([1, 2, 3])
    answer = attribute(model, ids, target=1, method="gradient_x_activation", layer="dense")
    torch.testing.assert_close(answer.values.sum(1), (model(ids)[:, 1] - model.out.bias[1]).detach())
    with pytest.raises(ValueError, match="nothing to explain"):
        attribute(model, ids, target=1, method="saliency")


def test_noise_is_refused_for_layer_methods(images):
    with pytest.raises(ValueError, match="noise= goes with"):
        attribute(cnn(), images, target=1, method="grad_cam", layer="0", noise=0.1)
    with pytest.raises(ValueError, match="noise= goes with"):
        attribute_layers(cnn(), images, target=1, noise=0.1)


class Padded(nn.Module):
    """A stock encoder with padding, which torch runs on nested tensors where no gradient is wanted."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.out = nn.Linear(8, 3)

    def forward(self, ids):
        there = (ids != 0)[..., None].float()
        return self.out((self.encoder(self.embed(ids), src_key_padding_mask=ids == 0) * there).sum(1) / there.sum(1))


@pytest.mark.parametrize("layer", ["embed", "encoder", "encoder.layers.0", "encoder.layers.1.linear1"])
@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion", "activation", "deep_lift"])
def test_layers_of_a_padded_encoder_have_their_positions_without_gradients_too(method, layer):
    ids = torch.randint(1, 20, (3, 7))
    ids[1, 4:] = 0
    before = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = attribute(Padded(), Samples(ids, valid=ids != 0), target=1, method=method, layer=layer)
    assert answer.heat.shape == (3, 7)
    assert answer.heat.isfinite().all()
    assert answer.heat[1, 4:].abs().max() == 0
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_a_value_without_a_batch_axis_hides_no_other():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            out, (h, _) = self.lstm(packed)
            return self.out(h[-1]) + out.data.sum()

    inputs = torch.randn(3, 6, 4), torch.tensor([6, 5, 3])
    for method in ("activation", "grad_cam", "conductance", "deep_lift"):
        state = attribute(Packed(), inputs, target=1, method=method, layer="lstm:output[1][0]")
        assert len(state.values) == 3
        assert {"lstm:output[1][0]", "out"} <= attribute_layers(Packed(), inputs, target=1, method=method).keys()
        with pytest.raises(ValueError, match=r"no axis of lstm.* is the batch"):
            attribute(Packed(), inputs, target=1, method=method, layer="lstm:output[0][data]")
