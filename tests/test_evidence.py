"""Evidence per channel and of several inputs: scored as one position at a time says, and refused where it fits nothing."""

from dataclasses import replace

import numpy as np
import pytest
import slow_metrics as slow
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from inspector import Attribution, Samples, attribute, describe, report, show
from inspector.metrics import METRICS, compare, score
from inspector.metrics.surface import surface

N = 4
EVIDENCE = [name for name, row in METRICS.items() if row.needs == "evidence"]
FAITHFUL = ("deletion", "insertion", "infidelity", "sparseness")


class Both(nn.Module):
    """An image (2, 6, 5) or a series (9, 3) with a row of 4 or 9 features beside it."""

    def __init__(self, first, row):
        super().__init__()
        self.out = nn.Linear(first + row, 3)

    def forward(self, first, row, valid=None):
        kept = first if valid is None else first * valid[..., None]
        return self.out(torch.cat([kept.flatten(1), row], 1).tanh())


class Words(slow.TokenModel):
    """Ids (batch, 8) and a row of 4 features."""

    def __init__(self):
        super().__init__()
        self.row = nn.Linear(4, 3)

    def forward(self, ids, row):
        return super().forward(ids) + self.row(row)


def masks(*shapes):
    """Each with a position that is evidence and one that is not."""
    found = [torch.rand(N, *shape) > 0.6 for shape in shapes]
    for mask in found:
        mask.view(N, -1)[:, 0], mask.view(N, -1)[:, -1] = True, False
    return found


def channels():
    samples = Samples(torch.randn(N, 2, 6, 5), evidence=masks((2, 6, 5))[0])
    return slow.pixel_model(), samples, {(): (1, 2, 3)}


def features_of_steps():
    samples = Samples(torch.randn(N, 2, 4), evidence=masks((2, 4))[0])
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), samples, {(): (1, 2)}


def image_and_row():
    samples = Samples((torch.randn(N, 2, 6, 5), torch.randn(N, 4)), evidence=tuple(masks((6, 5), (4,))))
    return Both(60, 4), samples, {(0,): (2, 3), (1,): (1,)}


def channels_and_row_by_name():
    inputs = {"first": torch.randn(N, 2, 6, 5), "row": torch.randn(N, 4)}
    samples = Samples(inputs, evidence=dict(zip(inputs, masks((2, 6, 5), (4,)), strict=True)))
    return Both(60, 4), samples, {("first",): (1, 2, 3), ("row",): (1,)}


def padded_series_and_a_row_as_long():
    valid = torch.arange(9) < torch.tensor([9, 5, 7, 1])[:, None]
    inputs = (torch.randn(N, 9, 3), torch.randn(N, 9), valid)
    samples = Samples(inputs, evidence=(*masks((9,), (9,)), None), valid=valid)
    return Both(27, 9), samples, {(0,): (1,), (1,): (1,)}


def words_and_row():
    samples = Samples((torch.randint(1, 11, (N, 8)), torch.randn(N, 4)), evidence=tuple(masks((8,), (4,))))
    return Words(), samples, {(0,): (1,), (1,): (1,)}


def only_the_row_is_known():
    model, samples, axes = image_and_row()
    return model, replace(samples, evidence=(None, samples.evidence[1])), axes


CASES = [
    channels,
    features_of_steps,
    image_and_row,
    channels_and_row_by_name,
    padded_series_and_a_row_as_long,
    words_and_row,
    only_the_row_is_known,
]


@pytest.fixture(params=CASES, ids=lambda make: make.__name__)
def case(request):
    model, samples, axes = request.param()
    return model.eval(), attribute(model, samples, target=1, method="input_x_gradient"), axes


def one_at_a_time(attribution, axes):
    """For each sample the absolute map and the truth, read position by position and input by input."""
    samples = attribution.samples
    inputs = dict(enumerate(samples.inputs)) if isinstance(samples.inputs, tuple) else samples.inputs
    for i in range(N):
        heights, truth = [], []
        for leaf, own in axes.items():
            values, mask, given = attribution.values, samples.evidence, inputs
            for key in leaf:
                values, mask, given = values[key], mask[key], given[key]
            if mask is None:
                continue
            series = samples.valid is not None and given.dim() == 3
            for place in np.ndindex(*[values.shape[axis] for axis in own]):
                if series and not samples.valid[i, place[0]]:
                    continue
                index = [slice(None)] * (values.dim() - 1)
                for axis, at in zip(own, place, strict=True):
                    index[axis - 1] = at
                heights.append(abs(values[i][tuple(index)].double().sum().item()))
                truth.append(bool(mask[(i, *place)]))
        yield np.array(heights), np.array(truth)


def near(found, wanted, tolerance=2e-5):
    torch.testing.assert_close(found.double(), torch.tensor(wanted).double(), rtol=1e-4, atol=tolerance, equal_nan=True)


def test_the_positions_are_those_of_the_evidence(case):
    _, attribution, axes = case
    assert {area.leaf: area.axes for area in surface(attribution).areas} == axes


def test_scores_equal_their_definitions_one_position_at_a_time(case):
    model, attribution, axes = case
    none, pairs = float("nan"), list(one_at_a_time(attribution, axes))
    found = score(model, [attribution], EVIDENCE)["input_x_gradient"]
    near(found["auroc"], [slow.auroc(v, t) if 0 < t.sum() < len(t) else none for v, t in pairs])
    near(found["auprc"], [average_precision_score(t, v) if t.any() else none for v, t in pairs])
    near(found["relevance_mass"], [v[t].sum() / v.sum() if t.any() else none for v, t in pairs])
    near(found["pointing_game"], [t[v == v.max()].mean() if t.any() else none for v, t in pairs])
    rank = [slow.relevance_rank(v, t) if t.any() else none for v, t in pairs]
    near(found["relevance_rank"], rank, tolerance=0.06)
    enough = [i for i, (v, t) in enumerate(pairs) if t.any() and len(np.unique(v)) > 1]
    for number, name in enumerate(("aup", "aur")):
        near(found[name][enough], [slow.threshold_areas(*pairs[i])[number] for i in enough])


def test_all_inputs_are_removed_in_one_order(case):
    model, attribution, _ = case
    laid = surface(attribution)
    curve = METRICS["deletion"](model, attribution, steps=5, baseline="zero")
    wanted = []
    for keep in (laid.rank >= 0, laid.rank >= laid.count[:, None]):  # nothing removed, everything removed
        base = {area.leaf: torch.zeros(()) for area in laid.areas}
        inputs = laid.changed(keep, torch.arange(N), {k: v.to(_at(laid.inputs, k).dtype) for k, v in base.items()})
        given = inputs if isinstance(inputs, (tuple, dict)) else (inputs,)
        wanted.append((model(**given) if isinstance(given, dict) else model(*given))[:, 1].detach())
    torch.testing.assert_close(curve.y[:, [0, -1]], torch.stack(wanted, 1), atol=1e-5, rtol=1e-4)


def _at(inputs, leaf):
    return inputs[leaf[0]] if leaf else inputs


def test_a_comparison_scores_methods_and_controls(case):
    model, attribution, _ = case
    found = compare(
        model, attribution.samples, target=1, methods=("saliency", "input_x_gradient"), metrics=(*EVIDENCE, *FAITHFUL)
    )
    alone = score(model, [attribution], EVIDENCE)["input_x_gradient"]
    for name in EVIDENCE:
        torch.testing.assert_close(found.scores["input_x_gradient"][name], alone[name], equal_nan=True)
        assert found.scores["random"][name].shape == (N,)


def test_samples_carry_the_masks_where_they_go(case, tmp_path):
    model, attribution, _ = case
    path = attribution.samples.save(tmp_path / "samples.safetensors")
    for samples in (Samples.load(path), attribution.samples.to("cpu")):
        again = replace(attribution, samples=samples)
        for name in EVIDENCE:
            torch.testing.assert_close(METRICS[name](model, again), METRICS[name](model, attribution), equal_nan=True)
    two = attribute(model, attribution.samples[1:3], target=1, method="input_x_gradient")
    wanted = METRICS["auroc"](model, attribution)[1:3]
    torch.testing.assert_close(METRICS["auroc"](model, two), wanted, equal_nan=True)


def test_it_is_shown_described_and_reported(case, tmp_path):
    _, attribution, _ = case
    for record in (attribution, attribution.samples):
        assert show(record) is not None
        assert describe(record)
    assert report(tmp_path / "page.html", attribution, attribution.samples).exists()


def test_the_perfect_map_of_each_channel_is_perfect():
    model, samples, _ = channels()
    truth = samples.evidence.double()
    perfect = Attribution(truth, samples, 1, "by hand", axes=(1, 2, 3))
    assert score(model, [perfect], ["auroc"])["by hand"]["auroc"].eq(1).all()
    flipped = Attribution(truth.flip(1), samples, 1, "by hand", axes=(1, 2, 3))
    assert (score(model, [flipped], ["auroc"])["by hand"]["auroc"] < 1).all()  # the right pixels in the wrong channel


def test_an_input_of_which_nothing_is_known_changes_no_score():
    model, samples, _ = only_the_row_is_known()
    made = attribute(model, samples, target=1, method="input_x_gradient")
    image, row = made.values
    for other in (torch.zeros_like(image), 1000 * image):
        changed = replace(made, values=(other, row))
        for name in EVIDENCE:
            torch.testing.assert_close(METRICS[name](model, changed), METRICS[name](model, made))


def test_one_explained_input_of_several_is_held_against_its_own_mask():
    model, samples, _ = image_and_row()
    row = attribute(model, samples, target=1, method="input_x_gradient", explain=1)
    pairs = zip(row.values.double().abs().numpy(), samples.evidence[1].numpy(), strict=True)
    near(score(model, [row], ["auroc"])["input_x_gradient"]["auroc"], [slow.auroc(v, t) for v, t in pairs])
    unknown = replace(samples, evidence=(samples.evidence[0], None))
    with pytest.raises(ValueError, match=r"the evidence is that of \[0\], but the map is about \[1\]"):
        score(model, [attribute(model, unknown, target=1, explain=1)], ["auroc"])


def test_a_layers_map_and_the_default_methods_make_do_without_channels():
    model, samples, _ = channels()
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).eval()
    assert "grad_cam" not in compare(model, samples, target=1, metrics=("auroc",)).labels
    coarse = attribute(model, samples, target=1, method="grad_cam", layer="0")
    assert surface(coarse).heat.shape == (N, 30)
    assert score(model, [coarse], ["deletion"])["grad_cam"]["deletion"].isfinite().all()
    guided = attribute(model, samples, target=1, method="guided_grad_cam", layer="0")
    assert score(model, [guided], ["auroc"])["guided_grad_cam"]["auroc"].isfinite().all()


def test_a_map_of_channels_is_judged_by_removal_whatever_the_evidence():
    model, samples, _ = channels()
    flat = attribute(model, replace(samples, evidence=samples.evidence.any(1)), target=1, axes=(1, 2, 3))
    bare = attribute(model, replace(samples, evidence=None), target=1, axes=(1, 2, 3))
    for name in ("deletion", "sparseness"):
        found, wanted = (score(model, [a], [name])["integrated_gradients"][name] for a in (flat, bare))
        torch.testing.assert_close(found, wanted)


def asks(model, samples, **options):
    return lambda: compare(model, samples, target=1, metrics=("auroc",), **options)


def scores(model, samples, metric="auroc", **options):
    made = attribute(model, samples, target=1, **options)
    return lambda: score(model, [made], [metric])


def refused():
    model, samples, _ = channels()
    flat = replace(samples, evidence=samples.evidence.any(1))
    wide = "evidence 4x2x6x5 does not fit the map's positions 4x6x5, which count no channels; give evidence.any"
    narrow = "evidence 4x6x5 does not fit the map's positions 4x2x6x5, which count channels; leave axes out"
    yield model, asks(model, samples, methods=("saliency",), axes=(2, 3)), wide
    yield model, scores(model, samples, axes=(2, 3)), wide
    yield model, asks(model, flat, methods=("saliency",), axes=(1, 2, 3)), narrow
    yield model, scores(model, flat, axes=(1, 2, 3)), narrow
    cam = "counts the channels of the input, which grad_cam's map of a layer does not have; give .*evidence.any"
    yield model, asks(model, samples, methods=("saliency", "grad_cam"), layer="0"), cam
    both, two, _ = image_and_row()
    image, row = two.evidence
    swapped = r"evidence\[0\] 4x4 does not lie on the input 4x2x6x5"
    yield both, asks(both, replace(two, evidence=(row, row)), methods=("saliency",)), swapped
    which = r"evidence 4x6x5 does not say which of the inputs it is of: \[0\] 4x6x5, \[1\] 4x4; give one mask for each"
    yield both, scores(both, replace(two, evidence=image)), which


def test_evidence_of_other_positions_is_refused_before_any_work():
    for model, ask, says in refused():
        ran = []
        handle = model.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        with pytest.raises(ValueError, match=says):
            ask()
        handle.remove()
        assert not ran


@pytest.mark.parametrize(
    ("evidence", "error", "says"),
    [
        (lambda image, row: (image,), ValueError, r"evidence has 1 entries, but the inputs are \[0\], \[1\]"),
        (
            lambda image, row: {"image": image},
            ValueError,
            r"evidence has a mask for \[image\], but the inputs are \[0\], \[1\]",
        ),
        (lambda image, row: (None, None), TypeError, "evidence is a tuple without any tensor"),
        (lambda image, row: (image, row.float()), ValueError, r"evidence\[1\] must be a bool mask, not torch.float32"),
        (lambda image, row: (image, row[:2]), ValueError, r"evidence\[1\] has 2 samples but inputs have 4"),
        (lambda image, row: image.numpy(), TypeError, "evidence is a ndarray; give a bool tensor"),
        (lambda image, row: image.tolist(), TypeError, "evidence is a list without any tensor"),
    ],
)
def test_evidence_nested_otherwise_than_the_inputs_is_refused_at_once(evidence, error, says):
    _, samples, _ = image_and_row()
    with pytest.raises(error, match=says):
        Samples(samples.inputs, evidence=evidence(*samples.evidence))


def test_a_single_input_has_no_nested_evidence_and_valid_is_a_tensor():
    x, mask = torch.randn(N, 4), torch.ones(N, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"a mask for \[0\], but the inputs are a single tensor"):
        Samples(x, evidence=(mask,))
    with pytest.raises(TypeError, match="valid is of type ndarray; give a bool tensor"):
        Samples(x, valid=mask.numpy())


def test_one_channel_of_one_of_several_images_is_left_out():
    inputs = (torch.randn(N, 1, 6, 5), torch.randn(N, 3, 6, 5))
    samples = Samples(inputs, evidence=tuple(masks((1, 6, 5), (3, 6, 5))))
    assert [mask.shape[1:] for mask in samples.evidence] == [(6, 5), (3, 6, 5)]


def test_maps_of_other_positions_are_not_compared():
    model, samples, _ = channels()
    methods = {"fine": {"method": "saliency", "axes": (1, 2, 3)}, "plain": "saliency"}
    with pytest.raises(ValueError, match=r"plain has other positions \(\[6, 5\]\) than fine \(\[2, 6, 5\]\)"):
        compare(model, samples.inputs, target=1, methods=methods)


def test_steps_of_a_convolution_are_told_from_its_channels():
    for size in (4, 12):  # as many steps as channels, and more
        model = nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * size, 2)).eval()
        x = torch.randn(N, 4, size)
        for made in (attribute(model, x, target=1), attribute(model, x, target=1, method="grad_cam", layer="0")):
            [area] = surface(made).areas
            assert (area.axes, area.shape) == ((2,), (size,))


@pytest.mark.parametrize("axes", [(-2, -1), (2, 3)])
def test_axes_may_be_counted_from_the_end(axes):
    model, samples, _ = channels()
    made = attribute(model, samples.inputs, target=1, axes=axes)
    torch.testing.assert_close(made.heat, made.values.sum(1))
    assert surface(made).areas[0].axes == (2, 3)


def test_axes_that_are_none_are_refused():
    model, samples, _ = channels()
    for axes, wrong in (((0, 1), 0), ((2, 4), 4)):
        with pytest.raises(ValueError, match=f"{wrong} is no axis of 4x2x6x5 after the batch axis"):
            _ = attribute(model, samples.inputs, target=1, axes=axes).heat
