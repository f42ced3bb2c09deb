"""Fairness: rates as fairlearn defines them, groups found where they differ and not where they do not."""

import numpy as np
import pytest
import torch
from torch import nn

from inspector import Assessment, Attribution, Samples, models
from inspector.metrics import blame
from inspector.models import resampling
from inspector.models.disparity import Share, disparities, holm, shares
from inspector.models.people import FEATURES, STAND_IN, WRONGED


class Says(nn.Module):
    """Answers with the class that its one input column names."""

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return nn.functional.one_hot(x[:, 0].long(), self.classes).float()


def said(true, predicted, **known):
    return Samples(torch.tensor(predicted).float()[:, None], torch.tensor(true).long(), **known)


def population(seed, harm=0.0, n=600, groups=2):
    """True and predicted classes, and a group column; in group 0 more of the truly positive are missed."""
    rng = np.random.default_rng(seed)
    true, group = rng.integers(0, 2, n), rng.integers(0, groups, n)
    wrong = rng.random(n) < 0.1 + harm * ((group == 0) & (true == 1))
    return true, np.where(wrong, 1 - true, true), group


@pytest.fixture(scope="module")
def unequal():
    true, predicted, group = population(1, harm=0.3)
    region = np.random.default_rng(5).choice(["north", "south", "west"], 600)
    found = models.assess(Says(), said(true, predicted), groups={"sex": group, "region": region})
    return found, true, predicted, group, region


def by_hand(true, predicted):
    negative, positive = true == 0, true == 1
    return {
        "selection_rate": predicted.mean(),
        "base_rate": true.mean(),
        "false_positive_rate": (predicted[negative] == 1).mean(),
        "false_negative_rate": (predicted[positive] == 0).mean(),
    }


def test_error_rates_are_those_counted_by_hand_per_group_and_intersection(unequal):
    found, true, predicted, group, region = unequal
    for name, value in by_hand(true, predicted).items():
        assert getattr(found, name) == pytest.approx(value)
    for g in (0, 1):
        part = found.groups["sex"][str(g)]
        for name, value in by_hand(true[group == g], predicted[group == g]).items():
            assert getattr(part, name) == pytest.approx(value)
        for r in ("north", "south", "west"):
            both = (group == g) & (region == r)
            part = found.groups["sex & region"][f"{g} & {r}"]
            assert part.n == both.sum()
            for name, value in by_hand(true[both], predicted[both]).items():
                assert getattr(part, name) == pytest.approx(value)


def test_gaps_ratios_and_the_worst_group_are_those_of_fairlearn(unequal):
    found = unequal[0]
    for rate in found.gaps["region"]:
        values = {label: getattr(part, rate) for label, part in found.groups["region"].items()}
        assert found.gaps["region"][rate] == pytest.approx(max(values.values()) - min(values.values()))
        assert found.ratios["region"][rate] == pytest.approx(min(values.values()) / max(values.values()))
        bad = max if rate.startswith("false") else min
        assert found.worst["region"][rate] == bad(values, key=values.get)
        low, high = found.gap_intervals["region"][rate]
        assert 0 <= low <= high


def test_the_wronged_group_is_found_with_its_rate(unequal):
    first = unequal[0].disparities[0]
    assert (first.column, first.group, first.rate) == ("sex", "0", "false_negative_rate")
    assert first.value == pytest.approx(unequal[0].groups["sex"]["0"].false_negative_rate)
    assert 0 < first.interval[0] < first.value - first.rest < first.interval[1]
    assert "false negative rate of sex=0" in repr(unequal[0])
    assert not any(d.column == "region" for d in unequal[0].disparities)


def test_an_intersection_that_one_column_explains_is_not_found(unequal):
    assert not any("&" in d.column for d in unequal[0].disparities)


def test_an_intersection_that_no_column_explains_is_found():
    rng = np.random.default_rng(2)
    true, a, b = (rng.integers(0, 2, 2000) for _ in range(3))
    wrong = rng.random(2000) < np.where(a == b, 0.3, 0.1)  # each column alone is even
    found = models.assess(Says(), said(true, np.where(wrong, 1 - true, true)), groups={"a": a, "b": b})
    assert {d.column for d in found.disparities} == {"a & b"}


def test_the_chance_of_any_false_find_is_five_per_cent_and_real_gaps_are_found():
    def finds(seed, harm):
        true, predicted, group = population(seed, harm)
        confusions = {str(g): counted(true[group == g], predicted[group == g]) for g in (0, 1)}
        tested = shares("sex", confusions, {"0": ("",), "1": ("",)}, positive=1)
        return bool(disparities(tested, np.random.default_rng(seed)))

    assert sum(finds(seed, harm=0.0) for seed in range(100)) <= 11  # 5 expected; more than 11 once in 200 times
    assert sum(finds(seed, harm=0.3) for seed in range(20)) == 20


def counted(true, predicted, classes=2):
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def test_tiny_groups_alone_raise_no_alarm():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 300)
    predicted = np.where(rng.random(300) < 0.2, 1 - true, true)
    found = models.assess(Says(), said(true, predicted), groups=rng.integers(0, 100, 300))
    assert found.gaps["group"]["accuracy"] > 0.5
    assert not found.disparities
    assert all(part.small for part in found.groups["group"].values())
    assert "too few samples" in repr(found)


def test_permutation_p_agrees_with_permuting_labels():
    hits, sizes = np.array([12, 25, 8]), np.array([20, 60, 30])
    share = Share("c", dict.fromkeys("abc", ("",)), "accuracy", hits, sizes)
    from inspector.models.disparity import _p

    outcome = np.concatenate([np.r_[np.ones(h), np.zeros(n - h)] for h, n in zip(hits, sizes, strict=True)])
    label, rng = np.repeat([0, 1, 2], sizes), np.random.default_rng(0)

    def spread(order):
        return sum(n * (outcome[order][label == i].mean() - outcome.mean()) ** 2 for i, n in enumerate(sizes))

    drawn = [spread(rng.permutation(110)) for _ in range(4000)]
    slow = np.mean(np.array(drawn) >= spread(np.arange(110)) - 1e-9)
    assert _p(share, rng) == pytest.approx(slow, abs=0.02)


def test_holm_corrects_as_its_paper_says():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([])).tolist() == []


def test_intervals_agree_with_drawing_samples_one_by_one():
    true, predicted, _ = population(3, n=200)
    found = models.assess(Says(), said(true, predicted))
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 200, 200) for _ in range(2000)]
    for name in ("accuracy", "false_negative_rate", "f1"):
        drawn = [float(resampling.rates(resampling.counts(counted(true[r], predicted[r])), 1)[name]) for r in rows]
        assert found.intervals[name] == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.015)
        assert found.intervals[name][0] < getattr(found, name) < found.intervals[name][1]


def test_a_perfect_rate_of_few_samples_is_not_certain():
    found = models.assess(Says(), said([0, 1] * 5, [0, 1] * 5))
    assert found.small
    assert found.intervals["accuracy"] == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert found.intervals["false_negative_rate"] == pytest.approx((0.0, 1 - 0.025 ** (1 / 5)))


def test_rates_that_have_nothing_to_count_are_nan_and_do_not_spoil_the_gaps():
    groups = ["a"] * 4 + ["b"] * 4
    found = models.assess(Says(), said([1, 1, 1, 1, 0, 1, 0, 1], [1, 0, 1, 1, 0, 1, 1, 1]), groups=groups)
    assert np.isnan(found.groups["group"]["a"].false_positive_rate)
    assert found.groups["group"]["b"].false_positive_rate == 0.5
    assert found.gaps["group"]["false_positive_rate"] == 0
    assert "false_positive_rate" not in found.groups["group"]["a"].intervals


def test_of_many_classes_one_may_be_the_positive_one():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    samples = said(true, predicted, names={"classes": ("no", "maybe", "yes")})
    for positive in ("yes", 2):
        found = models.assess(Says(3), samples, positive=positive)
        assert found.positive == "yes"
        assert found.false_negative_rate == pytest.approx((predicted[true == 2] != 2).mean())
        assert found.selection_rate == pytest.approx((predicted == 2).mean())
    none = models.assess(Says(3), samples)
    assert none.positive is None
    assert np.isnan(none.selection_rate)
    macro = np.mean([(predicted[true == c] != c).mean() for c in range(3)])
    assert none.false_negative_rate == pytest.approx(macro)
    with pytest.raises(LookupError, match=r"positive='never' is no class; there are no, maybe, yes"):
        models.assess(Says(3), samples, positive="never")


def test_missing_labels_are_a_group_of_their_own():
    labels = ["a", None, float("nan"), "a"] * 5
    found = models.assess(Says(), said([0, 1] * 10, [0, 1] * 10), groups=labels)
    assert {label: part.n for label, part in found.groups["group"].items()} == {"a": 10, "missing": 10}


def test_a_thousand_classes_are_resampled_too():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 1000, 500)
    found = models.assess(Says(1000), said(true, np.where(rng.random(500) < 0.3, 0, true)))
    assert found.intervals["accuracy"][0] < found.accuracy < found.intervals["accuracy"][1]


def test_everything_is_saved_and_loaded(unequal, tmp_path):
    again = Assessment.load(unequal[0].save(tmp_path / "a.safetensors"))
    assert again.disparities == unequal[0].disparities
    assert again.gap_intervals == unequal[0].gap_intervals
    assert again.worst == unequal[0].worst
    assert repr(again) == repr(unequal[0])


def trained(fair, seed=1):
    task = models.tasks.planted_unfair(fair=fair, train=2000, test=1000, seed=seed)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    models.fit(model, task, epochs=8, lr=1e-2, progress=False)
    return task, model.eval()


@pytest.fixture(scope="module")
def decisions():
    return {fair: trained(fair) for fair in (False, True)}


def gradient_times_input(model, task):
    rows = task.test.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(rows)[:, 1].sum(), rows)
    return Attribution(gradient * rows.detach(), task.test, 1, "input_x_gradient", axes=(1,))


def test_the_twins_differ_only_in_the_decisions_of_the_training_half():
    unfair, fair = (models.tasks.planted_unfair(fair=fair) for fair in (False, True))
    assert torch.equal(unfair.train.inputs, fair.train.inputs)
    assert torch.equal(unfair.test.target, fair.test.target)
    changed = unfair.train.target != fair.train.target
    assert {group for group, c in zip(unfair.train.groups["sex"], changed, strict=True) if c} == {"f"}
    assert fair.train.target[changed].all()


def test_an_unfair_decision_is_found_with_its_group_and_its_feature(decisions):
    task, model = decisions[False]
    first = models.assess(model, task).disparities[0]
    assert (first.column, first.group) == WRONGED
    blamed = blame(gradient_times_input(model, task))
    assert [(b.column, b.feature) for b in blamed] == [("sex", STAND_IN)]
    assert blamed[0].difference < 0
    assert f"{STAND_IN} moves the score of sex=f down" in str(blamed[0])


def test_about_its_fair_twin_it_is_quiet(decisions):
    task, model = decisions[True]
    assert not models.assess(model, task).disparities
    assert not blame(gradient_times_input(model, task))


def test_blame_splits_the_difference_of_scores_over_the_features():
    rng = np.random.default_rng(0)
    heat, group = torch.from_numpy(rng.normal(size=(300, 4))), rng.integers(0, 3, 300)
    target = torch.from_numpy(rng.integers(0, 2, 300))
    heat[group == 2, 1] += 1.5
    found = blame(Attribution(heat, Samples(heat, target), 1, "x", axes=(1,)), {"clinic": group})
    assert (found[0].group, found[0].feature) == ("2", "feature 1")
    expected, weight = 0.0, 0
    for c in (0, 1):
        ours = heat[(group == 2) & (target == c).numpy(), 1]
        others = heat[(group != 2) & (target == c).numpy(), 1]
        expected, weight = expected + len(ours) * float(ours.mean() - others.mean()), weight + len(ours)
    assert found[0].difference == pytest.approx(expected / weight)


def test_blame_refuses_what_it_cannot_read():
    images = Attribution(torch.rand(4, 5, 5), Samples(torch.rand(4, 5, 5)), 1, "x", axes=(1, 2))
    with pytest.raises(ValueError, match="rows of features"):
        blame(images, ["a", "b"] * 2)
    with pytest.raises(ValueError, match="have no groups"):
        blame(Attribution(torch.rand(4, 5), Samples(torch.rand(4, 5)), 1, "x", axes=(1,)))
    rows = Attribution(torch.rand(4, 5), Samples(torch.rand(4, 5)), 1, "x", axes=(1,))
    with pytest.raises(ValueError, match="nobody to compare with: all samples are sex=a"):
        blame(rows, {"sex": ["a"] * 4})


def test_groups_that_are_no_labels_are_refused_before_any_work():
    samples, ran = said([0, 1, 0, 1], [0, 1, 1, 1]), []
    model = Says()
    model.register_forward_hook(lambda *_: ran.append(1))
    for groups, error, says in (
        ({}, ValueError, "has no column"),
        (["a", "b"], ValueError, "has 2 samples but inputs have 4"),
        ("abcd", TypeError, "is 'abcd'; give one label per sample"),
    ):
        with pytest.raises(error, match=says):
            models.assess(model, samples, groups=groups)
    assert not ran


def test_tastes_depend_on_what_the_evidence_says():
    task = models.tasks.planted_tastes()
    samples = task.train
    seen = {}
    for i in range(len(samples)):
        ids = [int(samples.inputs[name][i]) for name in ("user", "item", "context")]
        known = tuple(v if e else None for v, e in zip(ids, samples.evidence[i].tolist(), strict=True))
        assert seen.setdefault(known, int(samples.target[i])) == int(samples.target[i])
    assert samples.evidence.sum(1).unique().tolist() == [2]
    triples = torch.stack([torch.cat((task.train.inputs[n], task.test.inputs[n])) for n in samples.inputs], 1)
    assert len(triples.unique(dim=0)) == len(triples)
    assert len(FEATURES) == 6


def test_a_recommender_takes_a_dict_or_a_tuple():
    model, samples = models.load("tastes"), models.tasks.planted_tastes().test[:5]
    assert torch.equal(model(**samples.inputs), model(*samples.inputs.values()))


def test_more_tastes_than_there_are_is_refused():
    with pytest.raises(ValueError, match="are liked; ask for fewer"):
        models.tasks.planted_tastes(users=5, items=4)
