"""Several targets share their forward passes, and answer exactly what each answers alone."""

import warnings

import pytest
import torch
from torch import nn

from inspector import METHODS, Neuron, attribute, attribute_layers, attribute_targets


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(54, 5))


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 12, 12)


TARGETS = {
    "class": 1,
    "per sample": torch.tensor([0, 1, 4]),
    "function": lambda output: output.softmax(1)[:, 2],
    "writes": lambda output: output.mul_(2)[:, 3],
}
SHARING = [name for name, row in METHODS.items() if not row.alone and name != "temporal_saliency_rescaling"]


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)


@pytest.mark.parametrize("budget", [2**30, 20_000])
@pytest.mark.parametrize("method", SHARING)
def test_each_target_is_answered_as_it_is_alone(method, budget, model, images):
    row = METHODS[method]
    options = {"method": method, "budget": budget, "layer": "3" if row.explains == "layer" or row.helped else None}
    options |= {"n_samples": 6} if "n_samples" in row.options else {}
    options |= {"feature_mask": "grid"} if "feature_mask" in row.options else {}
    alone = {name: quietly(attribute, model, images, target=target, **options) for name, target in TARGETS.items()}
    together = quietly(attribute_targets, model, images, TARGETS, **options)
    for name, answer in alone.items():
        assert torch.equal(answer.values, together[name].values)
        assert answer.delta is None or torch.equal(answer.delta, together[name].delta)
    cost = together["class"].cost
    assert cost.backwards == sum(answer.cost.backwards for answer in alone.values())
    if budget == 2**30:
        assert cost.forwards == alone["class"].cost.forwards


@pytest.mark.parametrize("method", ["grad_cam", "conductance", "internal_influence", "deep_lift", ("grad_cam", "layer_cam")])
def test_all_layers_and_several_targets_come_from_the_same_passes(method, model, images):
    together = attribute_layers(model, images, targets=TARGETS, method=method)
    for name, target in TARGETS.items():
        alone = attribute_layers(model, images, target=target, method=method)
        assert {f"{name}@{layer}" for layer in alone} <= together.keys()
        for layer, answer in alone.items():
            assert torch.equal(answer.values, together[f"{name}@{layer}"].values)
    cost = next(iter(together.values())).cost
    assert (cost.forwards, cost.backwards) == (next(iter(alone.values())).cost.forwards, len(TARGETS))


def test_targets_are_keyed_by_themselves_or_by_their_place(model, images):
    assert list(attribute_targets(model, images, [1, 3], method="saliency")) == [1, 3]
    assert list(attribute_targets(model, images, torch.tensor([1, 3]), method="saliency")) == [1, 3]
    neurons = [Neuron("0", (1, 2, 2)), Neuron("3", (0, 1, 1))]
    found = attribute_targets(model, images, neurons, method="saliency")
    for neuron in neurons:
        assert torch.equal(found[neuron].values, attribute(model, images, target=neuron, method="saliency").values)
    each = attribute_targets(model, images, [torch.tensor([0, 1, 2]), 3], method="saliency")
    assert list(each) == [0, 3]


def test_what_cannot_share_is_run_for_each_target(model, images):
    def own(score, values):
        return torch.autograd.grad(score(values).sum(), values)[0]

    for method in ("lrp", own):
        found = attribute_targets(model, images, [1, 2], method=method)
        assert torch.equal(found[2].values, attribute(model, images, target=2, method=method).values)


def test_one_target_or_none_is_refused_as_several(model, images):
    for targets in (3, lambda output: output[:, 0]):
        with pytest.raises(TypeError, match="is not several"):
            attribute_targets(model, images, targets)
    with pytest.raises(ValueError, match="at least one"):
        attribute_targets(model, images, [])
    with pytest.raises(ValueError, match="twice"):
        attribute_targets(model, images, [1, 1])
    with pytest.raises(TypeError, match="not both"):
        attribute_layers(model, images, target=1, targets=[1])
