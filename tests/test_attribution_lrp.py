"""Layer-wise relevance propagation: Captum's rules by name, at inputs and at layers, and refused where it would be wrong."""

import copy

import pytest
import torch
from torch import nn

from inspector import Neuron, attribute, attribute_layers

lrp_rules = pytest.importorskip("captum.attr._utils.lrp_rules")
RULES = {
    "epsilon": lambda: lrp_rules.EpsilonRule(1e-9),
    "gamma": lambda: lrp_rules.GammaRule(0.25),
    "alpha1_beta0": lrp_rules.Alpha1_Beta0_Rule,
    "z_plus": lambda: lrp_rules.Alpha1_Beta0_Rule(set_bias_to_zero=True),
}


class View(nn.Module):
    """What Captum can explain: nothing but modules that have rules, and a view."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.dense, self.act, self.out = nn.Linear(36, 10), nn.ReLU(), nn.Linear(10, 4)

    def forward(self, x):
        return self.out(self.act(self.dense(self.body(x).view(len(x), -1))))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return View().eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 2, 8, 8)


def captum(name, model, x, *place, rules=None, **options):
    import captum.attr

    model = copy.deepcopy(model)
    for path, rule in (rules or {}).items():
        model.get_submodule(path).rule = rule
    at = [model.get_submodule(path) for path in place]
    return getattr(captum.attr, name)(model, *at).attribute(x.clone().requires_grad_(), target=2, **options).detach()


WEIGHTED = ("body.0", "dense", "out")


@pytest.mark.parametrize("rule", list(RULES))
def test_a_rule_by_name_is_captums_at_every_layer_with_weights(rule, net, images):
    expected = captum("LRP", net, images, rules={path: RULES[rule]() for path in WEIGHTED})
    answer = attribute(net, images, target=2, method="lrp", rule=rule)
    torch.testing.assert_close(answer.values, expected)


def test_rules_go_to_the_layers_that_a_mapping_names(net, images):
    expected = captum("LRP", net, images, rules={"body.0": RULES["gamma"](), "body.1": lrp_rules.IdentityRule()})
    for gamma in ("gamma", lrp_rules.GammaRule(0.25)):
        answer = attribute(net, images, target=2, method="lrp", rule={"body.0": gamma, "body.1": "identity"})
        torch.testing.assert_close(answer.values, expected)


def test_a_rule_of_the_modules_own_is_kept(images):
    model = View().eval()
    model.dense.rule = own = RULES["gamma"]()
    expected = captum("LRP", model, images)
    for _ in range(2):  # Captum deletes it the first time
        answer = attribute(model, images, target=2, method="lrp")
        torch.testing.assert_close(answer.values, expected)
        assert model.dense.rule is own


def test_parameters_keep_their_storage(net, images):
    before = [(p.data_ptr(), p.detach().clone()) for p in net.parameters()]
    attribute(net, images, target=2, method="lrp", rule="z_plus")
    for (place, values), parameter in zip(before, net.parameters(), strict=True):
        assert parameter.data_ptr() == place
        assert torch.equal(parameter, values)


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_layers_have_the_relevance_that_captum_finds_there(rule, net, images):
    rules = {path: RULES[rule]() for path in WEIGHTED}
    found = attribute_layers(net, images, target=2, method="lrp", rule=rule)
    for path in ("body.0", "body.1", "body.3", "dense", "out"):
        expected = captum("LayerLRP", net, images, path, rules=copy.deepcopy(rules))
        torch.testing.assert_close(found[path].values, expected)
        alone = attribute(net, images, target=2, method="lrp", layer=path, rule=rule)
        assert torch.equal(alone.values, found[path].values)
        entering = captum("LayerLRP", net, images, path, rules=copy.deepcopy(rules), attribute_to_layer_input=True)
        site = f"{path}:input"
        torch.testing.assert_close(attribute(net, images, target=2, method="lrp", layer=site, rule=rule).values, entering)
    for site in ("act", "act:input"):  # ReLU hands relevance on as it is
        answer = attribute(net, images, target=2, method="lrp", layer=site, rule=rule)
        torch.testing.assert_close(answer.values, found["dense"].values)
    torch.testing.assert_close(found["body"].values, found["body.3"].values)  # a container answers what its last one does


def test_without_biases_the_relevance_of_every_layer_sums_to_the_output(images):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 4, bias=False)]
    model = nn.Sequential(*layers).double()
    output = model(images.double())[:, 2].detach()
    found = attribute_layers(model, images.double(), target=2, method="lrp")
    assert len(found) == 6
    for answer in found.values():
        torch.testing.assert_close(answer.values.flatten(1).sum(1), output, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "gama"}, "no rule of lrp"),
        ({"rule": {"body.1": "gamma"}}, "BatchNorm"),
        ({"rule": "identity"}, "its ends differ"),
        ({"target": lambda output: output[:, 0] - output[:, 1]}, "give a class"),
        ({"target": lambda output: output.softmax(1)[:, 0]}, "give a class"),
        ({"target": Neuron("body.0", 1)}, "give a class"),
    ],
)
def test_what_would_be_wrong_is_refused(options, says, net, images):
    with pytest.raises(ValueError, match=says):
        attribute(net, images, **{"target": 2, "method": "lrp"} | options)


def test_one_unit_inside_is_a_target(net, images):
    part = nn.Sequential(net.body[0], net.body[1], net.body[2])
    unit = nn.Sequential(part, nn.Flatten())
    answer = attribute(net, images, target=Neuron("body.2", (1, 2, 3)), method="lrp")
    expected = attribute(unit, images, target=36 + 2 * 6 + 3, method="lrp")
    torch.testing.assert_close(answer.values, expected.values)
