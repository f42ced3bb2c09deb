"""The tasks with known answers: their answers are right, and the published numbers come out again."""

import re

import numpy as np
import pytest
import torch

from inspector import attribute
from inspector.metrics.benchmark import Row, __main__, arma, gaussian, planted, states, table_of
from inspector.metrics.benchmark.arma import MIDDLE, SquareSum, judged, run, salience, series
from inspector.metrics.benchmark.gaussian import FUNCTIONS, Additive, covariance, draw, shapley
from inspector.metrics.benchmark.states import Size, _states, by_default, explained, pooled, train
from inspector.metrics.benchmark.states import draw as draw_states


@pytest.mark.parametrize("kind", ["rare_feature", "rare_time"])
def test_the_white_box_has_the_salient_set_of_the_paper(kind):
    mask = salience(kind, 0)
    rare, middle = (1, 0) if kind == "rare_feature" else (0, 1)  # axes of one series
    assert mask.shape == (10, 50, 50)
    assert (mask.flatten(1).sum(1) == 125).all()
    for each in mask:
        assert each.any(rare)[MIDDLE].all()
        assert each.any(rare).sum() == 25
        assert each.any(middle).sum() == 5


def test_the_series_follow_their_recursion():
    x = series(0)
    noise = torch.randn(10, 50, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = 20
    torch.testing.assert_close(x[:, t], (2 * noise[:, t] - 0.5 * x[:, t - 1] - 0.2 * x[:, t - 2] - 0.1 * x[:, t - 3]) / 2)
    torch.testing.assert_close(x[:, 0], noise[:, 0])


def test_the_exact_attribution_of_the_white_box_is_the_square_on_the_salient_set():
    mask, x = salience("rare_time", 1)[0], series(1)[0]
    found = attribute(SquareSum(mask), x, method="integrated_gradients").values
    torch.testing.assert_close(found, x.square() * mask, atol=1e-9, rtol=1e-9)


def test_a_perfect_map_of_the_white_box_is_perfect_by_the_papers_numbers():
    truth = salience("rare_feature", 0)
    found = judged(truth.double(), truth)
    assert found["AUP"] == pytest.approx(1, abs=0.51)  # one threshold only, so the area is the step's trapezoid
    assert found["AUR"] == 1
    assert found["entropy"] == pytest.approx(0, abs=0.1)


def test_one_fold_is_near_the_published_means():
    found = run("rare_feature", "integrated_gradients", 0)
    assert found["AUP"] == pytest.approx(1.0, abs=1e-3)
    assert found["AUR"] == pytest.approx(0.1345, abs=0.03)


@pytest.mark.slow
def test_the_published_rows_of_the_white_box_come_out_again():
    rows = arma(folds=5)
    published = [row for row in rows if row.published_spread is not None or row.metric == "AUP"]
    held = [row for row in published if row.published is not None]
    assert len(held) >= 8
    assert all(row.agrees for row in held), table_of(held)


def _sampled(parts, x, shared, known, count=200_000):
    """E[f | known] by drawing from the conditional Gaussian."""
    sigma, free = covariance(shared), [i for i in range(5) if i not in known]
    pull = torch.linalg.solve(sigma[known][:, known], sigma[known][:, free]) if known else torch.zeros(0, len(free)).double()
    spread = sigma[free][:, free] - sigma[free][:, known] @ pull
    drawn = torch.randn(count, len(free), dtype=torch.float64) @ torch.linalg.cholesky(spread).T + x[known] @ pull
    whole = x.expand(count, 5).clone()
    whole[:, free] = drawn
    return Additive(parts)(whole).mean().item()


@pytest.mark.parametrize("name", list(FUNCTIONS))
@pytest.mark.parametrize("known", [[], [0], [1, 3], [0, 1, 2, 4]])
def test_conditional_means_equal_sampled_ones(name, known):
    from inspector.metrics.benchmark.gaussian import _conditional_mean

    x = torch.tensor([[0.7, -0.4, 1.2, -0.9, 0.3]], dtype=torch.float64)
    exact = _conditional_mean(FUNCTIONS[name], x, 0.5, frozenset(known)).item()
    assert exact == pytest.approx(_sampled(FUNCTIONS[name], x[0], 0.5, known), abs=0.08)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_shapley_values_sum_to_the_difference_and_give_a_null_player_nothing(name):
    parts, x = FUNCTIONS[name], draw(6, 0.5, 0)
    values = shapley(parts, x, 0.5)
    from inspector.metrics.benchmark.gaussian import _conditional_mean

    torch.testing.assert_close(values.sum(1), Additive(parts)(x) - _conditional_mean(parts, x, 0.5, frozenset()))
    assert shapley(parts, draw(6, 0.0, 0), 0.0)[:, 4].abs().max() < 1e-12
    assert values[:, 4].abs().max() > 0.01  # correlated, it tells something of the others


def test_of_independent_features_a_linear_function_gives_weight_times_value():
    x = draw(6, 0.0, 1)
    wanted = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]) * x
    torch.testing.assert_close(shapley(FUNCTIONS["linear"], x, 0.0), wanted)
    found = {row.method: row.mean for row in gaussian((0.0,), samples=20, seeds=1) if row.task.startswith("linear")}
    assert found["input_x_gradient"] == pytest.approx(1)
    assert found["saliency"] < 0.5


def test_hidden_states_stay_and_change_as_they_should():
    generator = torch.Generator().manual_seed(0)
    states_ = _states(400, 200, generator)
    into = states_[:, 1:][states_[:, :-1] == 0].float().mean().item()
    assert into == pytest.approx(0.05, abs=0.005)
    x, labels, salient = draw_states(300, 100, generator)
    assert x.shape == (300, 100, 3)
    assert salient.sum(-1).eq(1).all()
    assert not salient[..., 0].any()
    assert labels[x[salient].reshape(300, 100) > 1].float().mean() > 0.85


def test_a_small_states_run_gives_every_number():
    size = Size(train=32, test=4, steps=12, hidden=8, epochs=1)
    rows = states(1, size=size, methods={"saliency": {}})
    assert [row.metric for row in rows] == ["AUP", "AUR", "AUROC", "AUPRC", "AUR, one scale", "AUR, top cut"]
    assert all(0 <= row.mean <= 1 for row in rows)


def _prefix_by_prefix(model, x, options):
    """The last step of each prefix, explained by itself."""
    found = []
    for end in range(1, x.shape[1] + 1):
        prefix, cut = x[:, :end], {k: v[:, :end] if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        target = model(prefix).argmax(1)
        found.append(attribute(model, prefix, target=target, **cut).values[:, -1])
    return torch.stack(found, 1)


@pytest.mark.filterwarnings("ignore:.*is off by")  # what is not trained is not smooth
@pytest.mark.parametrize("label", ["integrated_gradients", "deep_lift", "feature_ablation", "occlusion", "saliency"])
def test_all_steps_at_once_are_what_each_prefix_gives_for_its_last_step(label):
    model, x, _ = train(Size(train=32, test=4, steps=12, hidden=8, epochs=1), 0)
    mean = x.mean(0, keepdim=True)
    options = {"method": label} | by_default(x, mean)[label]
    one_by_one = options
    if options["method"] == "feature_ablation":
        one_by_one = {"method": "occlusion", "sliding_window_shapes": (1, 1), "strides": (1, 1)}
        one_by_one |= {"baselines": mean.expand_as(x)} if label == "occlusion" else {}
    torch.testing.assert_close(explained(model, x, options), _prefix_by_prefix(model, x, one_by_one), atol=1e-5, rtol=1e-4)


def test_gradient_shap_at_all_steps_is_what_each_prefix_gives_but_for_its_draws():
    model, x, _ = train(Size(train=32, test=4, steps=12, hidden=8, epochs=1), 0)
    options = {"method": "gradient_shap", "n_samples": 2000, "stdevs": 1e-4, "baselines": torch.zeros_like(x)}
    found, wanted = explained(model, x, options), _prefix_by_prefix(model, x, options)
    torch.testing.assert_close(found, wanted, atol=0.02 * wanted.abs().max().item(), rtol=0.05)


def test_the_published_numbers_are_of_series_that_are_each_scaled_by_themselves():
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

    maps, salient = torch.rand(6, 10, 3) * torch.tensor([1, 5, 0.1, 9, 2, 30])[:, None, None], torch.rand(6, 10, 3) > 0.6
    rows = [(m - m.min()) / (m.max() + 1e-5) for m in maps.double().numpy()]
    found, truth = pooled(maps, salient), salient.numpy().ravel()
    one_scale = (maps - maps.min()).numpy() / (maps.max() - maps.min()).item()
    cut = [np.minimum(row / np.quantile(row, 0.98), 1) for row in rows]
    for name, scaled in (("", np.stack(rows)), (", one scale", one_scale), (", top cut", np.stack(cut))):
        precision, recall, thresholds = precision_recall_curve(truth, scaled.ravel())
        assert found["AUR" + name] == pytest.approx(auc(thresholds, recall[:-1]), abs=1e-6)
        assert name or found["AUP"] == pytest.approx(auc(thresholds, precision[:-1]), abs=1e-6)
    assert found["AUROC"] == pytest.approx(roc_auc_score(truth, np.stack(rows).ravel()))
    assert found["AUPRC"] == pytest.approx(average_precision_score(truth, np.stack(rows).ravel()))
    assert found["AUR"] > 2 * found["AUR, one scale"]


@pytest.mark.filterwarnings("ignore:.*is off by")  # what is not trained is not smooth
def test_a_benchmark_prints_its_seeds_and_a_spread_only_of_several(capsys, monkeypatch):
    monkeypatch.setattr(__main__, "SMALL", Size(train=32, test=4, steps=12, hidden=8, epochs=1))
    __main__.main(["states", "--seeds", "2", "--series", "3"])
    several = capsys.readouterr().out
    assert "states, seeds 0 to 1: mean +- standard deviation over 2 draws; train=32, test=3, steps=12" in several
    assert [len(re.findall(r"AUROC +0\.\d+ \+- ", line)) for line in several.splitlines() if "AUROC" in line] == [1] * 6
    __main__.main(["states", "--seeds", "1", "--series", "3"])
    one = capsys.readouterr().out
    assert "states, seed 0 alone, no spread" in one
    assert [len(re.findall(r"AUROC +0\.\d+ +[0-9-]", line)) for line in one.splitlines() if "AUROC" in line] == [1] * 6


def test_rows_print_ours_beside_the_published():
    rows = [Row("task", "method", "AUP", 0.9, 0.01, 0.905, 0.01), Row("task", "method", "AUR", 0.5, 0.01, 0.9, 0.01)]
    text = table_of(rows)
    assert "0.9050 +- 0.0100" in text
    assert "yes" in text
    assert "NO" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patches", "steps", "words"])
def test_some_method_finds_the_planted_evidence_of_every_architecture(name):
    found = planted((name,), samples=32, metrics=("auroc",))[name]
    best = max(found.scores[method]["auroc"].mean() for method in found.methods)
    assert best > found.scores["random"]["auroc"].mean() + 0.1
