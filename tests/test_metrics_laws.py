"""What holds for every metric: odd maps are defined, padding counts for nothing, and nothing of the model changes."""

from dataclasses import replace

import pytest
import slow_metrics as slow
import torch
from torch import nn

from inspector import METHODS, Attribution, Neuron, Samples, attribute
from inspector.metrics import METRICS, compare, forward, score
from inspector.metrics.baselines import base_tensors
from inspector.metrics.explaining import explainer
from inspector.metrics.surface import surface
from inspector.records import Curve

N = 4
ALONE = [name for name, row in METRICS.items() if row.needs != "explain" and name != "completeness"]
AGAIN = [name for name, row in METRICS.items() if row.needs == "explain"]


def made(values, samples, axes, **more):
    return Attribution(values, samples, torch.zeros(N, dtype=torch.long), "by hand", axes=axes, **more)


def pixels(values=None):
    values = torch.randn(N, 2, 6, 5) if values is None else values
    samples = Samples(torch.randn(N, 2, 6, 5), evidence=torch.rand(N, 6, 5) > 0.6)
    return slow.pixel_model().eval(), made(values, samples, (2, 3))


def one(found):
    return found.area if isinstance(found, Curve) else found


@pytest.mark.parametrize("name", ALONE)
def test_a_map_with_a_nan_scores_nan_and_its_batch_mates_as_they_would_alone(name):
    model, attribution = pixels()
    whole = one(METRICS[name](model, attribution))
    broken = attribution.values.clone()
    broken[1, 0, 2, 2] = torch.nan
    found = one(METRICS[name](model, replace(attribution, values=broken)))
    assert found[1].isnan()
    assert torch.equal(found[[0, 2, 3]], whole[[0, 2, 3]])


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("height", [0.0, 3.0, -1e-30])
def test_a_constant_map_is_defined_and_a_zero_map_is_judged_as_one(name, height):
    model, attribution = pixels()
    flat = one(METRICS[name](model, replace(attribution, values=torch.full((N, 2, 6, 5), height))))
    assert flat.isfinite().all()
    if METRICS[name].reads != "signed":
        torch.testing.assert_close(flat, one(METRICS[name](model, replace(attribution, values=torch.ones(N, 2, 6, 5)))))


@pytest.mark.parametrize("name", ALONE)
def test_a_map_of_one_position_is_defined(name):
    class Single(nn.Module):
        def forward(self, x):
            return x * torch.tensor([1.0, 2.0])

    samples = Samples(torch.randn(N, 1), evidence=torch.ones(N, 1, dtype=torch.bool))
    found = one(METRICS[name](Single(), made(torch.randn(N, 1), samples, (1,))))
    assert found.shape == (N,)
    assert not torch.isinf(found).any()


@pytest.mark.parametrize("name", ALONE)
def test_what_lies_in_padding_counts_for_nothing(name):
    valid = torch.arange(9) < torch.tensor([9, 5, 7, 2])[:, None]
    steps, evidence, values = torch.randn(N, 9, 3), torch.rand(N, 9) > 0.5, torch.randn(N, 9, 3)
    evidence[:, 0] = True
    model, found = slow.StepModel().eval(), []
    for filling in (0.0, 7.0):
        x, v = (t.masked_fill(~valid[..., None], filling) for t in (steps, values))
        truth = evidence.masked_fill(~valid, filling > 0)
        found.append(one(METRICS[name](model, made(v, Samples((x, valid), valid=valid, evidence=truth), (1,)))))
    torch.testing.assert_close(found[0], found[1], equal_nan=True)


BOUNDS = {"0 to 1": (0, 1), "-1 to 1": (-1, 1), "0 or more": (0, float("inf")), "-1 or more": (-1, float("inf"))}


@pytest.mark.parametrize("name", [n for n in METRICS if METRICS[n].range != "the output's"])
def test_a_metric_keeps_to_the_range_that_its_row_states(name):
    low, high = BOUNDS.get(METRICS[name].range, (0, torch.tensor(30.0).log().item()))
    for seed in range(5):
        torch.manual_seed(seed)
        model, x = slow.pixel_model().eval(), torch.randn(N, 2, 6, 5)
        samples = Samples(x, torch.randint(0, 3, (N,)), evidence=torch.rand(N, 6, 5) > 0.6)
        found = one(METRICS[name](model, attribute(model, samples, method="integrated_gradients")))
        assert (found >= low - 1e-9).all()
        assert (found <= high + 1e-9).all()


@pytest.mark.parametrize("name", [n for n in ALONE if METRICS[n].reads != "order"])
def test_the_unit_of_a_map_does_not_count(name):
    model, attribution = pixels()
    scaled = replace(attribution, values=attribution.values * 1000)
    torch.testing.assert_close(one(METRICS[name](model, scaled)), one(METRICS[name](model, attribution)))


def test_the_same_scores_whether_many_steps_share_a_pass_or_none(monkeypatch):
    model, attribution = pixels()
    together = {name: one(METRICS[name](model, attribution)) for name in ALONE}
    monkeypatch.setattr(forward, "ON_CPU", (1, 1))
    for name in ALONE:
        torch.testing.assert_close(one(METRICS[name](model, attribution)), together[name])


def test_a_deletion_curve_of_one_pixel_steps_is_a_few_passes():
    model, attribution = pixels()
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    METRICS["deletion"](model, attribution, steps=30)
    assert len(passes) <= 3  # of 31 steps; the first are to find out how many examples fit


def test_a_step_that_changes_nothing_is_not_run_again():
    model, attribution = pixels()
    x = attribution.samples.inputs * (torch.arange(30).reshape(6, 5) < 3)  # 27 of 30 pixels are zero in both channels
    examples = []
    handle = model.register_forward_hook(lambda _, inputs, __: examples.append(len(inputs[0])))
    curve = METRICS["deletion"](model, replace(attribution, samples=Samples(x)), steps=30, baseline="zero")
    handle.remove()
    assert sum(examples) <= 4 * N + 2 * N
    case = slow.Case(model, replace(attribution, samples=Samples(x)), x, (2, 3), torch.zeros_like(x))
    torch.testing.assert_close(curve.y.double(), torch.from_numpy(slow.removal_curve(case, 30)), atol=1e-5, rtol=1e-4)


class Views(nn.Module):
    """Takes a view that only one layout allows, or reads memory in the order that only one layout has."""

    def __init__(self, strided=False):
        super().__init__()
        self.conv, self.strided = nn.Conv2d(2, 4, 3), strided

    def forward(self, x):
        if self.strided:
            return torch.as_strided(x, (len(x), 3), (120, 1), 1)
        return self.conv(x).view(len(x), -1)


@pytest.mark.parametrize("strided", [False, True])
def test_a_model_that_needs_its_images_in_one_layout_gets_them_so(strided):
    model, x = Views(strided).eval(), torch.randn(N, 2, 12, 5)
    attribution = made(torch.randn(N, 2, 12, 5), Samples(x), (2, 3))
    curve = METRICS["deletion"](model, attribution, steps=60)
    case = slow.Case(model, attribution, x, (2, 3), x.mean((0, 2, 3), keepdim=True).expand_as(x))
    torch.testing.assert_close(curve.y.double(), torch.from_numpy(slow.removal_curve(case, 60)), atol=1e-5, rtol=1e-4)


def test_ties_are_broken_the_same_way_for_every_map_and_not_from_the_top_left():
    first, second = (surface(pixels(torch.zeros(N, 2, 6, 5))[1]).rank for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], torch.arange(30))


def test_the_channels_of_a_pixel_go_together():
    model, attribution = pixels()
    laid = surface(attribution)
    keep = torch.rand(3, N, 30) > 0.5
    base = base_tensors(model, laid, -99.0)
    gone = laid.changed(keep.flatten(0, 1), torch.arange(N).repeat(3), base) == -99
    assert torch.equal(gone[:, 0], gone[:, 1])
    assert torch.equal(gone[:, 0].reshape(3, N, 30), ~keep)


class Noisy(nn.Module):
    """Everything that evaluation mode is for, and a counter of its own calls."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
        self.out = nn.Linear(48, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.out(self.body(x))


def _state(model):
    flags = [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    tensors = [(id(p), p.data_ptr(), p.requires_grad, p.grad) for p in (*model.parameters(), *model.buffers())]
    return flags, hooks, tensors, torch.get_rng_state().tolist()


@pytest.mark.parametrize("name", list(METRICS))
def test_scoring_leaves_the_model_and_the_random_state_as_they_were(name):
    model, x = Noisy(), torch.randn(N, 2, 6, 5)
    model.body[1].eval()
    samples = Samples(x, evidence=torch.rand(N, 6, 5) > 0.5)
    attribution = attribute(model, samples, target=1, method="input_x_gradient")
    values = {k: v.clone() for k, v in model.state_dict().items()}
    before = _state(model)
    score(model, [attribution], [name])
    assert _state(model) == before
    assert all(torch.equal(values[k], v) for k, v in model.state_dict().items())


def test_a_metric_that_fails_leaves_the_model_as_it_was():
    model, x = Noisy(), torch.randn(N, 2, 6, 5)
    attribution = attribute(model, x, target=1, method="saliency")
    before, values = _state(model), {k: v.clone() for k, v in model.state_dict().items()}

    def fails(*_, **__):
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        METRICS["randomization"](model, attribution, explain=fails)
    with pytest.raises(RuntimeError, match="no luck"):
        score(model, [attribution], [fails])
    assert _state(model) == before
    assert all(torch.equal(values[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["deletion", "infidelity", "max_sensitivity", "randomization"])
def test_a_target_that_is_a_function_sees_the_users_batch_in_its_order(name):
    model, x, weights = slow.row_model().eval(), torch.randn(N, 7), torch.randn(N, 3)

    def target(output):
        assert len(output) == N
        return (output * weights).sum(1)

    classes = nn.Sequential(model, nn.Identity())
    by_function = score(model, [attribute(model, x, target=target)], [name])

    alone = []
    for i in range(N):

        def own(output, i=i):
            return (output * weights[i]).sum(1)

        copies = Samples(x)
        alone.append(score(classes, [attribute(classes, copies, target=own)], [name])["integrated_gradients"][name][i])
    torch.testing.assert_close(by_function["integrated_gradients"][name], torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_an_inner_unit_and_a_regression_can_be_judged():
    model, x = slow.row_model().eval(), torch.randn(N, 7)
    unit = attribute(model, x, target=Neuron("0", 3), method="integrated_gradients")
    assert score(model, [unit], ["sensitivity_n", "deletion"])["integrated_gradients"]["deletion"].isfinite().all()
    line = nn.Linear(7, 1)
    exact = attribute(line, Samples(x, target=torch.randn(N)), method="input_x_gradient")
    found = score(
        line, [exact], {"n": {"metric": "sensitivity_n", "baseline": 0.0}, "i": {"metric": "infidelity", "baseline": "zero"}}
    )
    torch.testing.assert_close(found["input_x_gradient"]["n"], torch.ones(N, dtype=torch.float64))
    torch.testing.assert_close(found["input_x_gradient"]["i"], torch.zeros(N, dtype=torch.float64), atol=1e-9, rtol=0)


def test_several_inputs_are_removed_each_by_its_own_positions():
    class Pair(nn.Module):
        def forward(self, a, b):
            return torch.stack([a.sum(1) + 2 * b.sum(1), a[:, 0]], 1)

    inputs = {"a": torch.rand(N, 3) + 1, "b": torch.rand(N, 4) + 1}
    values = {"a": inputs["a"], "b": 2 * inputs["b"]}
    both = made(values, Samples(inputs), {"a": (1,), "b": (1,)})
    curve = METRICS["deletion"](Pair(), both, steps=7, baseline="zero")
    ordered = torch.cat(list(values.values()), 1).sort(1, descending=True).values
    wanted = ordered.sum(1, keepdim=True) - torch.cat([torch.zeros(N, 1), ordered.cumsum(1)], 1)
    torch.testing.assert_close(curve.y, wanted, atol=1e-5, rtol=1e-5)


class Gate(nn.Module):
    """Three inputs of one shape, so that only what was asked for tells them apart."""

    def forward(self, a, b, c):
        return torch.stack([a.sum(1) + (3 * b * c).sum(1).tanh(), b.sum(1)], 1)


@pytest.mark.parametrize("explain", [0, 1, [1, 2]])
def test_the_input_that_was_asked_for_is_the_one_that_is_removed_and_moved(explain):
    model, inputs = Gate(), tuple(torch.randn(N, 3) for _ in range(3))
    attribution = attribute(model, inputs, target=0, method="input_x_gradient", explain=explain)
    wanted = explain if isinstance(explain, list) else [explain]
    assert [area.leaf for area in surface(attribution).areas] == [(key,) for key in wanted]
    base = [torch.zeros_like(x) if i in wanted else x for i, x in enumerate(inputs)]
    curve = METRICS["deletion"](model, attribution, baseline="zero")
    torch.testing.assert_close(curve.y[:, -1], model(*base)[:, 0])
    assert METRICS["max_sensitivity"](model, attribution).max() < 3
    found = compare(model, inputs, target=0, methods=("saliency",), metrics=("deletion",), explain=explain)
    for label in found.labels:
        assert [area.leaf for area in surface(found.attributions[label]).areas] == [(key,) for key in wanted]


def test_a_mask_of_integers_is_not_mistaken_for_the_ids():
    class Masked(slow.TokenModel):
        def forward(self, mask, ids):
            return super().forward(ids * mask)

    mask, ids = torch.ones(N, 8, dtype=torch.long), torch.randint(1, 11, (N, 8))
    ids[0, 0] = 7
    by_hand = made(torch.randn(N, 8, 6), Samples((mask, ids)), (1,))
    assert [area.leaf for area in surface(by_hand).areas] == [(1,)]


def test_a_layers_coarse_map_is_judged_on_the_inputs_pixels():
    model = slow.pixel_model()
    attribution = attribute(model, torch.randn(N, 2, 6, 5), target=0, method="grad_cam", layer="1")
    assert attribution.heat.shape == (N, 4, 3)
    laid = surface(attribution)
    assert laid.heat.shape == (N, 30)
    assert METRICS["deletion"](model, attribution, steps=30).y.shape == (N, 31)


@pytest.mark.parametrize("name", AGAIN)
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "grad_cam", "deep_lift"])
def test_every_named_method_can_be_asked_again_from_its_record(name, method):
    model, x = slow.pixel_model(), torch.randn(N, 2, 6, 5)
    layer = "1" if METHODS[method].explains == "layer" else None
    found = one(METRICS[name](model, attribute(model, x, target=torch.tensor([0, 1, 2, 0]), method=method, layer=layer)))
    assert found.shape == (N,)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", AGAIN)
def test_a_method_that_answers_nan_is_given_no_good_mark(name):
    model, x = slow.row_model(), torch.randn(N, 7)

    def broken(score, values):
        return torch.cat([values[:1] * torch.nan, values[1:]])

    attribution = attribute(model, x, target=1, method=broken)
    found = one(METRICS[name](model, attribution, explain=explainer(N, method=broken)))
    assert found[0].isnan()


def test_a_method_of_the_users_own_is_asked_again_when_it_is_handed_over():
    model, x = slow.row_model(), torch.randn(N, 7)

    def mine(score, values):
        return torch.autograd.grad(score(values).sum(), values)[0]

    attribution = attribute(model, x, target=1, method=mine)
    with pytest.raises(ValueError, match="'mine' is not in METHODS"):
        score(model, [attribution], ["max_sensitivity"])
    found = score(model, [attribution], ["max_sensitivity"], explain={"mine": explainer(N, method=mine)})
    plain = attribute(model, x, target=1, method="saliency", abs=False)
    torch.testing.assert_close(found["mine"]["max_sensitivity"], METRICS["max_sensitivity"](model, plain))


def test_a_map_that_ignores_the_model_fails_the_sanity_check_and_a_gradient_passes():
    model, x = slow.pixel_model(), torch.randn(N, 2, 6, 5)

    def edges(score, values):
        return values.abs()

    blind, sees = attribute(model, x, target=0, method=edges), attribute(model, x, target=0, method="saliency")
    found = score(model, [blind, sees], ["randomization"], explain={"edges": explainer(N, method=edges)})
    torch.testing.assert_close(found["edges"]["randomization"], torch.ones(N, dtype=torch.float64))
    assert found["saliency"]["randomization"].mean() < 0.8


@pytest.mark.parametrize("baseline", ["mean", "zero", "blur", "noise", 0.5, lambda x: x.flip(-1)])
def test_every_baseline_leaves_what_is_kept_alone(baseline):
    model, attribution = pixels()
    laid = surface(attribution)
    keep = torch.rand(2, N, 30) > 0.5
    rows, base = torch.arange(N).repeat(2), base_tensors(model, laid, baseline)
    changed = laid.changed(keep.flatten(0, 1), rows, base).reshape(2, N, 2, 30)
    there = keep[:, :, None].expand(-1, -1, 2, -1)
    assert torch.equal(changed[there], attribution.samples.inputs.reshape(N, 2, 30).expand(2, -1, -1, -1)[there])
    assert not torch.equal(changed[~there], attribution.samples.inputs.reshape(N, 2, 30).expand(2, -1, -1, -1)[~there])


def test_a_blur_of_a_constant_is_that_constant_and_a_blur_of_noise_is_smoother():
    model, attribution = pixels()
    flat = replace(attribution, samples=Samples(torch.full((N, 2, 6, 5), 3.0)))
    torch.testing.assert_close(base_tensors(model, surface(flat), "blur")[()], torch.full((N, 2, 6, 5), 3.0))
    rough = attribution.samples.inputs
    assert base_tensors(model, surface(attribution), "blur")[()].std() < rough.std()


def test_a_model_in_half_precision_is_judged_in_single():
    model, x = slow.row_model().bfloat16(), torch.randn(N, 7).bfloat16()
    attribution = attribute(model, x, target=1, method="input_x_gradient")
    curve = METRICS["deletion"](model, attribution)
    assert curve.y.dtype == torch.float32
    assert all(values.isfinite().all() for values in score(model, [attribution], ALONE[:7])["input_x_gradient"].values())
