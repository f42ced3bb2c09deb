"""Compare answers with evidence: controls, intervals, differences, ranks and warnings; and refuses at the door."""

import warnings

import pytest
import slow_metrics as slow
import torch
from matplotlib.text import Text
from torch import nn

from inspector import Comparison, Samples, Scores, attribute, compare, describe, models, show
from inspector.metrics import METRICS, Metric, score
from inspector.records.resampling import bootstrap
from inspector.sites import Site

N = 12
METHODS = ("saliency", "input_x_gradient", "integrated_gradients")


class Planted(nn.Module):
    """Only the first two of eight features count, so that what is true is known."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 2, bias=False)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.weight[1, :2] = torch.tensor([3.0, -2.0])

    def forward(self, x):
        return self.out(x)


def planted():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 8, generator=generator) + 0.5
    groups = {"city": ["north", "south"] * (N // 2), "age": list(range(2)) * (N // 2)}
    evidence = (torch.arange(8) < 2).expand(N, 8)
    return Planted(), Samples(
        x, torch.ones(N, dtype=torch.long), evidence, groups=groups, names={"features": list("abcdefgh")}
    )


@pytest.fixture(scope="module")
def whole():
    model, samples = planted()
    return compare(model, samples, methods=METHODS, metrics=("deletion", "completeness", "auroc", "sparseness"))


def test_each_cell_is_what_score_gives_for_the_same_attribution(whole):
    model, samples = planted()
    for method in METHODS:
        alone = score(model, [attribute(model, samples, method=method)], ("deletion", "completeness", "auroc", "sparseness"))
        for metric in alone.metrics:
            torch.testing.assert_close(whole.scores[method][metric], alone[method][metric], equal_nan=True)


def test_methods_come_first_and_controls_are_named(whole):
    assert whole.labels == [*METHODS, "random", "input"]
    assert whole.controls == ("random", "input")
    assert whole.methods == list(METHODS)
    assert whole.curves["saliency"]["deletion"].y.shape == (N, 9)


def test_methods_find_the_planted_evidence_and_luck_does_not(whole):
    assert (whole.scores["integrated_gradients"]["auroc"] > 0.95).all()
    assert 0.2 < whole.scores["random"]["auroc"].mean() < 0.8
    assert whole.rank("auroc")["integrated_gradients"] == 1
    assert not any("no better than the random" in w and "auroc" in w for w in whole.warnings)


def test_what_a_method_does_not_claim_is_not_scored(whole):
    assert whole.scores["saliency"]["completeness"].isnan().all()
    assert "not claimed" in repr(whole)
    assert whole.rank("completeness") == {"integrated_gradients": 1}


def test_a_method_no_better_than_luck_is_said_to_be_so():
    model, samples = planted()

    def luck(score, values):
        return torch.randn(values.shape, generator=torch.Generator().manual_seed(9))

    found = compare(model, samples, methods={"guess": luck, "true": "input_x_gradient"}, metrics=("auroc", "sensitivity_n"))
    assert any(w.startswith("guess is no better than the random") and "auroc" in w for w in found.warnings)
    assert not any(w.startswith("true is no better than the random") for w in found.warnings)


def test_controls_that_do_as_well_by_the_same_metrics_are_named_in_one_warning():
    model, samples = planted()

    def backwards(score, values):
        return torch.where(samples.evidence[: len(values)], 0.0, 1.0 + torch.arange(8))

    found = compare(model, samples, methods=[backwards, "input_x_gradient"], metrics=("deletion", "auroc"))
    said = [w for w in found.warnings if "no better" in w]
    assert said == ["backwards is no better than the random and input controls by deletion and auroc"]
    assert f"! {said[0]}" in repr(found)
    assert f"Careful: {said[0]}." in describe(found)
    pictured = [text.get_text() for text in show(found).findobj(Text)]
    assert sum(text.count("no better") for text in pictured) == 1


def test_the_same_baseline_in_explainer_and_deletion_is_said():
    model, samples = planted()
    methods = {"zero": "integrated_gradients", "mean": {"method": "integrated_gradients", "baselines": "mean"}}
    found = compare(model, samples, methods=methods, metrics=("deletion",))
    assert [w.split()[0] for w in found.warnings if "same baseline" in w] == ["mean"]
    metrics = {"deletion to zero": {"metric": "deletion", "baseline": "zero"}}
    found = compare(model, samples, methods=methods, metrics=metrics)
    assert [w.split()[0] for w in found.warnings if "same baseline" in w] == ["zero"]


def test_a_broken_claim_of_completeness_is_said():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    samples = planted()[1]
    one_step = {"coarse": {"method": "integrated_gradients", "n_steps": 2}}
    found = compare(model, samples, methods=one_step, metrics=("completeness",))
    [said] = [w for w in found.warnings if "off by" in w]
    assert found.scores["coarse"]["completeness"].max() > 0.05
    made = found.attributions["coarse"]
    total, weight = made.values.sum(1), made.values.abs().sum(1)
    scale = torch.stack([(total - made.delta).abs(), (total - made.delta).abs().mean().expand(N), weight / 10]).amax(0)
    worst = (made.delta.abs() / scale).max()
    assert said.startswith(f"coarse: integrated_gradients is off by {worst:.0%} in the worst sample: its values do not sum")
    assert "as a share of that difference, of its mean over samples or of a tenth of the absolute values" in said


def test_few_samples_and_flat_or_broken_maps_are_said():
    model, samples = planted()

    def flat(score, values):
        return torch.ones_like(values)

    def broken(score, values):
        return torch.full_like(values, torch.nan)

    found = compare(model, samples[:4], methods=(flat, broken), metrics=("deletion",))
    assert any(w.startswith("only 4 samples") for w in found.warnings)
    assert any(w.startswith("flat is the same at every position in 4 of 4") for w in found.warnings)
    assert any(w.startswith("broken has NaN or Inf in 4 of 4") for w in found.warnings)
    assert found.scores["broken"]["deletion"].isnan().all()


def test_a_coarse_map_whose_order_is_half_luck_is_said_to_be_so():
    model, samples = planted()

    def coarse(score, values):
        return values.sign()

    found = compare(model, samples, methods=(coarse, "input_x_gradient"), metrics=("sparseness",))
    assert [w.split()[0] for w in found.warnings if "few different values" in w] == ["coarse", "input_x_gradient"]


def test_layer_reaches_only_the_methods_that_need_one():
    model, x = slow.pixel_model(), torch.randn(N, 2, 6, 5)
    found = compare(model, x, target=1, methods=("saliency", "grad_cam"), layer="0", metrics=("deletion",))
    assert found.attributions["saliency"].layer is None
    assert found.attributions["grad_cam"].layer == "0"
    assert found.settings["layer"] == "0"
    found = compare(model, x, target=1, methods=("saliency",), layer="0", metrics=("deletion",))
    assert any("layer='0' was not used" in w for w in found.warnings)


def test_layer_methods_at_one_layer_share_a_pass_and_answer_as_they_do_alone():
    model, x, ran = slow.pixel_model(), torch.randn(N, 2, 6, 5), []
    names = ("grad_cam", "layer_cam", "hires_cam", "gradient_x_activation")
    handle = model.register_forward_hook(lambda *_: ran.append(1))
    found = compare(
        model, x, target=1, methods={"mine": "grad_cam"} | {n: n for n in names}, layer="0", metrics=("sparseness",)
    )
    handle.remove()
    assert len(ran) == 1
    assert found.methods == ["mine", *names]
    for name in names:
        alone = attribute(model, x, target=1, method=name, layer="0")
        torch.testing.assert_close(found.attributions[name].values, alone.values)
        assert found.attributions[name].layer == "0"
        assert found.attributions[name].axes == alone.axes


def test_what_each_method_took_is_told_with_its_memory():
    model, x = slow.pixel_model(), torch.randn(N, 2, 6, 5)
    runs = [compare(model, x, target=1, methods=("saliency", "integrated_gradients"), metrics=("sparseness",)) for _ in "ab"]
    cost = runs[0].cost
    assert (cost["saliency"].forwards, cost["saliency"].backwards) == (1, 1)
    assert cost["saliency"].seconds > 0
    for label in cost:
        assert cost[label].peak_bytes == runs[1].cost[label].peak_bytes  # the same every time
    activations = N * (2 * 30 + 4 * 12 * 2) * 4  # the input's own copy, and two layers
    assert activations < cost["saliency"].peak_bytes < 4 * activations
    assert cost["integrated_gradients"].peak_bytes > 20 * cost["saliency"].peak_bytes
    assert cost["random"].peak_bytes == 0
    assert "memory" in repr(runs[0])


@pytest.mark.parametrize("columns", [80, 120])
def test_a_comparison_prints_within_the_width_of_the_screen(whole, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = repr(whole)
    assert max(map(len, text.split("\n"))) <= columns
    assert text.count("integrated_gradients ") >= (2 if columns == 80 else 1)  # each part names its rows again
    for metric in whole.scores.metrics:
        assert metric in text


@pytest.mark.parametrize(
    ("model", "inputs", "layer"),
    [
        (slow.pixel_model, lambda: torch.randn(N, 2, 6, 5), "1"),
        (slow.StepModel, lambda: (torch.randn(N, 9, 3), torch.ones(N, 9, dtype=torch.bool)), "lstm:output[0]"),
        (slow.TokenModel, lambda: torch.randint(1, 11, (N, 8)), "mix"),
    ],
)
def test_without_a_layer_the_last_one_with_positions_is_found_and_stated(model, inputs, layer):
    found = compare(model(), inputs(), target=1, methods=("grad_cam",), metrics=("deletion",))
    assert found.settings["layer"] == found.attributions["grad_cam"].layer == layer


def test_a_model_without_positions_says_so():
    with pytest.raises(LookupError, match="Sequential has no layer with time axes; name one with layer="):
        compare(slow.row_model(), torch.randn(N, 7), target=1, methods=("grad_cam",))


def test_images_have_all_three_controls_and_tokens_only_luck():
    found = compare(
        slow.pixel_model(), torch.randn(N, 2, 6, 5), target=1, methods=("saliency",), metrics=("deletion", "randomization")
    )
    assert found.controls == ("random", "edges", "input")
    for control in found.controls:
        torch.testing.assert_close(found.scores[control]["randomization"], torch.ones(N, dtype=torch.float64))
    found = compare(slow.TokenModel(), torch.randint(1, 11, (N, 8)), target=1, methods=("saliency",), metrics=("deletion",))
    assert found.controls == ("random",)


def test_the_same_seed_gives_the_same_numbers_and_another_one_other_luck():
    model, samples = planted()
    runs = [
        compare(model, samples, methods=("saliency",), metrics=("infidelity", "max_sensitivity"), seed=s) for s in (3, 3, 4)
    ]
    for label in runs[0].labels:
        for metric in ("infidelity", "max_sensitivity"):
            assert torch.equal(runs[0].scores[label][metric], runs[1].scores[label][metric])
    assert not torch.equal(runs[0].scores["random"]["infidelity"], runs[2].scores["random"]["infidelity"])


def test_looking_changes_nothing_of_the_model_or_the_random_state():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, 3))
    x, state = torch.randn(N, 2, 6, 5), torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    compare(model, x, target=1, methods=("saliency", "grad_cam"), layer="0", metrics=("deletion", "randomization"))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_it_comes_back_whole_from_disk(whole, tmp_path):
    back = Comparison.load(whole.save(tmp_path / "comparison.insp"))
    assert repr(back) == repr(whole)
    assert back.settings == whole.settings
    assert back.settings["model"]["class"] == "Planted"
    assert back.rank("auroc") == whole.rank("auroc")
    assert back.gaps("auroc") == whole.gaps("auroc")
    assert torch.equal(back.agreement["spearman"], whole.agreement["spearman"])
    assert torch.equal(back.attributions["saliency"].heat, whole.attributions["saliency"].heat)


def test_progress_is_told_step_by_step():
    model, samples = planted()
    seen = []
    compare(model, samples, methods=("saliency",), metrics=("deletion",), progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen][:-1] == list(range(len(seen) - 1))
    assert seen[-1][0] == seen[-1][1]
    assert seen[0][2] == "saliency"
    assert len(seen) <= seen[0][1]


def test_metrics_and_methods_of_the_users_own_are_functions():
    model, samples = planted()

    def mine(score, values):
        return values * 0 + torch.arange(8.0)

    def first_feature(model, attribution):
        return attribution.heat[:, 0]

    first_feature.better = "high"
    found = compare(model, samples, methods=[mine, "saliency"], metrics=[first_feature, "sparseness"])
    assert found.scores["mine"]["first_feature"].tolist() == [0.0] * N
    assert found.rank("first_feature") == {"saliency": 1, "mine": 2}
    METRICS["first"] = first_feature
    try:
        assert score(model, [attribute(model, samples, method="saliency")], ["first"])["saliency"]["first"].shape == (N,)
    finally:
        del METRICS["first"]


def test_methods_of_one_kind_are_told_apart():
    model, samples = planted()
    made = [attribute(model, samples, method="integrated_gradients", n_steps=n) for n in (5, 9)]
    assert list(score(model, made, ["sparseness"])) == ["integrated_gradients", "integrated_gradients#2"]
    pixels, x = slow.pixel_model(), torch.randn(N, 2, 6, 5)
    made = [attribute(pixels, x, target=1, method="grad_cam", layer=layer) for layer in "01"]
    assert list(score(pixels, made, ["sparseness"])) == ["grad_cam@0", "grad_cam@1"]
    methods = {"at 0": {"method": "grad_cam", "layer": "0"}, "at 1": {"method": "grad_cam", "layer": Site.parse("1")}}
    found = compare(pixels, x, target=1, methods=methods, metrics=("sparseness",))
    assert found.methods == ["at 0", "at 1"]
    assert found.settings["layer"] is None


def test_paired_differences_are_finer_than_two_intervals(whole):
    good, luck = whole.scores["integrated_gradients"]["auroc"], whole.scores["random"]["auroc"]
    found = whole.difference("integrated_gradients", "random", "auroc")
    assert found == bootstrap(good - luck)
    assert found.excludes_zero
    assert whole.difference("saliency", "saliency", "auroc") == (0, 0, 0)
    pairs = whole.differences("auroc")
    assert len(pairs) == 3
    assert pairs["saliency", "integrated_gradients"] == whole.difference("saliency", "integrated_gradients", "auroc")


def test_pareto_marks_are_the_methods_that_no_other_beats_more_cheaply(whole):
    marked = whole.pareto("auroc")
    assert (
        "integrated_gradients" not in marked or whole.rank("auroc")["integrated_gradients"] < whole.rank("auroc")["saliency"]
    )
    assert marked


def test_gaps_between_groups_are_the_difference_of_group_means():
    model, samples = planted()
    north = torch.tensor([city == "north" for city in samples.groups["city"]])

    def knows_the_north(score, values):
        return torch.where(north[: len(values), None], torch.arange(8.0, 0, -1), torch.arange(8.0))

    found = compare(model, samples, methods=(knows_the_north, "saliency"), metrics=("auroc",))
    assert found.gaps("auroc")["city"]["knows_the_north"].mean == pytest.approx(1.0)
    assert found.gaps("auroc")["city"]["saliency"].mean == 0
    assert found.by_group("auroc")["city"]["south"]["knows_the_north"].mean == 0
    assert set(found.gaps("auroc")) == {"city", "age"}


def test_a_group_that_is_explained_worse_is_named_and_equal_groups_are_not():
    model, samples = planted()
    samples = Samples(
        samples.inputs.repeat(4, 1),
        samples.target.repeat(4),
        samples.evidence.repeat(4, 1),
        groups=samples.groups["city"] * 4,
    )
    north = torch.tensor([city == "north" for city in samples.groups])

    def north_only(score, values):
        right = values.detach() * torch.tensor([3.0, -2.0, 0, 0, 0, 0, 0, 0])
        return torch.where(north[: len(values), None], right, right.flip(1))

    found = compare(model, samples, methods=(north_only, "input_x_gradient"), metrics=("auroc", "deletion"))
    said = [w for w in found.warnings if "worse than the others" in w]
    assert said
    assert all(w.startswith("north_only explains group=south worse than the others by") for w in said)


def test_methods_by_default_suit_rows_and_images():
    assert compare(slow.row_model(), torch.randn(N, 7), target=1).methods == [
        "saliency",
        "input_x_gradient",
        "integrated_gradients",
    ]
    images = compare(slow.pixel_model(), torch.randn(N, 2, 6, 5), target=1)
    assert images.methods == ["saliency", "input_x_gradient", "integrated_gradients", "grad_cam"]


def test_the_share_on_named_features_is_of_the_absolute_map(whole):
    share = whole.share_on(["a", "b"])
    torch.testing.assert_close(share["saliency"], torch.ones(N, dtype=torch.float64))
    heat = whole.attributions["random"].heat.abs().double()
    torch.testing.assert_close(whole.share_on("c")["random"], heat[:, 2] / heat.sum(1))
    with pytest.raises(LookupError, match="no feature is named 'z'; there are a, b"):
        whole.share_on("z")
    with pytest.raises(LookupError, match="no feature was named"):
        whole.share_on()
    model, samples = planted()
    named = Samples(samples.inputs, samples.target, names={"features": list("abcdefgh"), "sensitive": ["b"]})
    found = compare(model, named, methods=("input_x_gradient",), metrics=("deletion",))
    torch.testing.assert_close(found.share_on()["input_x_gradient"], found.share_on("b")["input_x_gradient"])


def test_agreement_of_a_map_with_itself_is_whole(whole):
    for name in ("spearman", "top_k", "sign"):
        matrix = whole.agreement[name]
        assert matrix.shape == (5, 5)
        torch.testing.assert_close(matrix.diagonal(), torch.ones(5, dtype=torch.float64))
        torch.testing.assert_close(matrix, matrix.T)


def test_the_top_in_common_is_counted_position_by_position():
    from inspector.metrics.agreement import top_k_rows

    first, second, valid = torch.randn(N, 40), torch.randn(N, 40), torch.arange(40) < torch.randint(5, 41, (N, 1))
    wanted = []
    for a, b, v in zip(first, second, valid, strict=True):
        k = -(-int(v.sum()) // 10)
        tops = [set(sorted(v.nonzero().flatten().tolist(), key=lambda p, m=m: -abs(m[p].item()))[:k]) for m in (a, b)]
        wanted.append(len(tops[0] & tops[1]) / k)
    assert top_k_rows(first, second, valid).tolist() == pytest.approx(wanted)


def test_agreement_equals_scipy():
    from scipy.stats import spearmanr

    from inspector.metrics import agreement

    model, samples = planted()
    made = {m: attribute(model, samples, method=m) for m in ("input_x_gradient", "occlusion")}
    noisy = {"a": made["input_x_gradient"], "b": attribute(nn.Linear(8, 2), samples, method="input_x_gradient")}
    found = agreement(noisy)
    pairs = list(zip(noisy["a"].heat, noisy["b"].heat, strict=True))
    wanted = sum(spearmanr(a, b).statistic for a, b in pairs) / N
    assert found["spearman"][0, 1].item() == pytest.approx(wanted)
    same = [((a.sign() == b.sign()) & (a != 0) & (b != 0)).sum() / ((a != 0) & (b != 0)).sum() for a, b in pairs]
    assert found["sign"][0, 1].item() == pytest.approx(torch.stack(same).mean().item())


def _asks(**changed):
    model, samples = planted()
    given = {"inputs": samples, "methods": ("saliency",), "metrics": ("deletion",)} | changed
    return compare(given.pop("model", model), given.pop("inputs"), **given)


def _masked(shape=(8,), **masks):
    """Samples whose masks have these shapes."""
    made = {name: torch.ones(*sizes, dtype=torch.bool) for name, sizes in masks.items()}
    return Samples(torch.randn(N, *shape), torch.ones(N, dtype=torch.long), **made)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"inputs": planted()[1][:1]}, ValueError, "compare needs two samples or more"),
        ({"methods": ()}, ValueError, "no method was asked for"),
        ({"methods": ("salency",)}, KeyError, "Did you mean 'saliency'"),
        ({"metrics": ()}, ValueError, "no metric was asked for"),
        ({"metrics": ("deletoin",)}, KeyError, "Did you mean 'deletion'"),
        ({"metrics": ("deletion", "deletion")}, ValueError, "asked for twice"),
        (
            {"metrics": {"mine": {"metric": "deletion", "step": 3}}},
            TypeError,
            "'step' is no option of this metric; it has steps",
        ),
        ({"metrics": [3]}, TypeError, "a metric is a name or a function"),
        (
            {"metrics": {"d": {"metric": "deletion", "baseline": "gray"}}},
            LookupError,
            "'gray' is no baseline; there are mean",
        ),
        ({"methods": {"a": "saliency", "b": {"method": "saliency", "n": 3}}}, TypeError, "saliency has no option 'n'"),
        ({"methods": ("saliency", "grad_cam"), "layer": "nope"}, LookupError, "'nope' matches no module"),
        (
            {"inputs": _masked(evidence=(N,))},
            ValueError,
            "evidence 12 does not lie on the input 12x8; give one",
        ),
        ({"inputs": _masked(evidence=(N, 9))}, ValueError, "evidence 12x9 does not lie on the input 12x8"),
        (
            {"inputs": _masked(valid=(N, 9))},
            ValueError,
            "valid 12x9 does not lie on the inputs 12x8; give one",
        ),
        (
            {"inputs": _masked((3, 12, 12), evidence=(N, 12))},
            ValueError,
            "12x3x12x12 in one way alone; give one value",
        ),
        (
            {"inputs": Samples(torch.randn(N, 8), torch.ones(N, dtype=torch.long)), "metrics": ("auroc",)},
            ValueError,
            "auroc need",
        ),
    ],
)
def test_bad_questions_are_refused_before_any_work(changed, error, says):
    ran = []
    model = planted()[0]
    model.register_forward_hook(lambda *_: ran.append(1))
    with pytest.raises(error, match=says):
        _asks(model=model, **changed)
    assert not ran


def small_images():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    mask = torch.zeros(N, 6, 6, dtype=torch.bool)
    mask[:, 1:3, 2:5] = True
    return model, torch.randn(N, 3, 6, 6), mask


def test_evidence_of_images_may_have_one_channel_and_is_then_the_same():
    model, x, mask = small_images()
    plain, channel = (Samples(x, torch.ones(N, dtype=torch.long), evidence=given) for given in (mask, mask[:, None]))
    assert channel.evidence.shape == (N, 6, 6)
    assert channel[:2].evidence.shape == (2, 6, 6)
    methods = ("saliency", "grad_cam")
    found, wanted = (compare(model, s, methods=methods, metrics=("auroc",), layer="0") for s in (channel, plain))
    for label in wanted.labels:
        torch.testing.assert_close(found.scores[label]["auroc"], wanted.scores[label]["auroc"])


@pytest.mark.parametrize(("metrics", "need"), [(("auroc",), "auroc needs"), (("auroc", "aup"), "auroc, aup need")])
def test_metrics_that_lack_the_truth_say_so(metrics, need):
    model, samples = planted()
    with pytest.raises(ValueError, match=f"{need} to know the truth; give Samples"):
        compare(model, Samples(samples.inputs, samples.target), methods=METHODS, metrics=metrics)


def test_score_refuses_what_it_cannot_judge_before_any_work():
    model, samples = planted()
    good = attribute(model, samples, method="saliency")
    with pytest.raises(ValueError, match="explains another model: a Planted"):
        score(nn.Linear(8, 2), [good])
    other = attribute(model, Samples(samples.inputs + 1, samples.target), method="saliency")
    with pytest.raises(ValueError, match=r"which have the same shape \(12x8\) but other values; score one batch"):
        score(model, {"first": good, "second": other})
    with pytest.raises(ValueError, match=r"other inputs than the first attribution \(12x8, not 3x8\)"):
        score(model, {"first": good, "second": attribute(model, samples[:3], method="saliency")})
    with pytest.raises(ValueError, match="no attribution to score"):
        score(model, [])
    with pytest.raises(TypeError, match="score judges Attributions, not Tensor"):
        score(model, [good.values])
    with pytest.raises(ValueError, match="auroc needs to know the truth"):
        score(model, [attribute(model, Samples(samples.inputs, samples.target), method="saliency")], ["auroc"])
    wrong = Samples(samples.inputs, samples.target, evidence=torch.ones(N, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="evidence 12x5 does not lie on the input 12x8"):
        score(model, [attribute(model, wrong, method="saliency")], ["auroc"])
    for groups, error, says in (
        (["a"], ValueError, "has 1 samples but inputs have 12"),
        ("sex", TypeError, r"groups\['group'\] is 'sex'; give one label per sample"),
        ({"sex": 3}, TypeError, r"groups\['sex'\] is 3"),
        (torch.zeros(N, 2), TypeError, r"is of shape \(12, 2\)"),
    ):
        with pytest.raises(error, match=says):
            Samples(samples.inputs, groups=groups)
    masks = [torch.ones(N, 8, dtype=torch.bool), torch.zeros(N, 8, dtype=torch.bool)]
    truths = [attribute(model, Samples(samples.inputs, samples.target, evidence=m), method="saliency") for m in masks]
    with pytest.raises(ValueError, match="second has other evidence than the first attribution"):
        score(model, dict(zip(("first", "second"), truths, strict=True)), ["auroc"])
    inner = attribute(slow.row_model(), torch.randn(N, 7), target=1, method="gradient_x_activation", layer="0")
    with pytest.raises(ValueError, match="inner cannot be judged by deletion: gradient_x_activation"):
        score(slow.row_model(), {"inner": _without_model(inner)}, ["deletion"])
    words = attribute(slow.TokenModel(), torch.randint(1, 11, (N, 8)), target=1, method="saliency")
    with pytest.raises(ValueError, match="ids cannot be"):
        score(slow.TokenModel(), [_without_model(words)], ["max_sensitivity"])
    with pytest.raises(ValueError, match="one number, or one Curve row, for each of 12 samples"):
        score(model, [good], [lambda model, attribution: torch.zeros(3)])


def _without_model(attribution):
    from dataclasses import replace

    return replace(attribution, model={})


def test_a_method_that_fails_is_named():
    def fails(score, values):
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck") as caught:
        _asks(methods={"mine": fails})
    assert "while 'mine' was explaining" in caught.value.__notes__[0]


def test_no_warning_escapes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _asks(
            methods=("saliency", "integrated_gradients", "deep_lift"),
            metrics=("deletion", "max_sensitivity", "randomization"),
        )


def test_a_row_is_a_metric_and_prints_what_it_means():
    text = repr(METRICS)
    for name, row in METRICS.items():
        assert isinstance(row, Metric)
        assert name in text
        assert row.better in ("high", "low")
        assert row.paper
        assert row.about()["doc"]
    scores = Scores({"a": {"deletion": torch.zeros(2)}}, about={"deletion": METRICS["deletion"].about()})
    assert scores.heading("deletion") == "deletion ↓"


def test_fields_of_one_id_each_are_removed_one_by_one():
    model, people = models.load("tastes"), models.tasks.planted_tastes().test[:6]
    found = compare(model, people, methods=("saliency",), metrics=("deletion",))
    assert found.scores["saliency"]["deletion"].isfinite().all()
