"""``assess``: the numbers are scikit-learn's, of the model's own answers, and looking changes nothing."""

import builtins

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import nn

from inspector import Assessment, Samples, Task, models


class Says(nn.Module):
    """Answers with the class that its one input column names."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.noise = classes, nn.Dropout(0.5)

    def forward(self, x):
        return self.noise(nn.functional.one_hot(x[:, 0].long(), self.classes).float())


def said(true, predicted, **known):
    return Samples(torch.tensor(predicted).float()[:, None], torch.tensor(true), **known)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(3)
    true = rng.integers(0, 4, 200)
    predicted = np.where(rng.random(200) < 0.7, true, rng.integers(0, 4, 200))
    return true, predicted


def check(found, true, predicted):
    """Everything in one Assessment against scikit-learn's own functions."""
    assert found.n == len(true)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    for name in ("precision", "recall", "f1"):
        function = getattr(metrics, f"{name}_score")
        assert getattr(found, name) == pytest.approx(function(true, predicted, average="macro", zero_division=0))
        every = function(true, predicted, average=None, labels=range(4), zero_division=np.nan)
        occurs = np.isin(np.arange(4), np.concatenate((true, predicted)))
        assert np.isnan(found.per_class[name].numpy()[~occurs]).all()
        np.testing.assert_allclose(found.per_class[name].numpy()[occurs], np.nan_to_num(every[occurs]))
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(true, predicted, labels=range(4)))


def test_all_numbers_are_those_of_scikit_learn(drawn):
    check(models.assess(Says(4), said(*drawn)), *drawn)


def test_classes_that_do_not_occur_do_not_count():
    true, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    check(models.assess(Says(4), said(true, predicted)), true, predicted)


def test_each_group_is_assessed_alone_and_gaps_are_their_spread(drawn):
    true, predicted = drawn
    groups = np.array(["a", "b", "b", "c"] * 50)
    found = models.assess(Says(4), said(true, predicted), groups={"clinic": groups})
    assert list(found.groups["clinic"]) == ["a", "b", "c"]
    for label, part in found.groups["clinic"].items():
        check(part, true[groups == label], predicted[groups == label])
    rates = [part.accuracy for part in found.groups["clinic"].values()]
    assert found.gaps["clinic"]["accuracy"] == pytest.approx(max(rates) - min(rates))
    assert sum(part.n for part in found.groups["clinic"].values()) == found.n


@pytest.mark.parametrize(
    "labels", [["1", "2"] * 100, np.array([1, 2] * 100), torch.tensor([1, 2] * 100)], ids=["text", "numpy", "tensor"]
)
def test_groups_come_with_the_samples_or_as_an_argument_in_any_form(drawn, labels):
    given = models.assess(Says(4), said(*drawn), groups=labels)
    carried = models.assess(Says(4), said(*drawn, groups=labels))
    assert list(given.groups["group"]) == list(carried.groups["group"]) == ["1", "2"]
    assert given.gaps == carried.gaps


def test_groups_of_another_length_are_refused_before_any_work(drawn):
    with pytest.raises(ValueError, match="has 3 samples but inputs have 200"):
        models.assess(None, said(*drawn), groups=["a", "b", "c"])


def test_a_task_is_judged_by_its_test_half(drawn):
    true, predicted = drawn
    task = Task(said(true[:150], predicted[:150]), said(true[150:], predicted[150:]), "drawn")
    found = models.assess(Says(4), task)
    check(found, true[150:], predicted[150:])
    assert found.name == "drawn"


def test_class_names_come_with_the_samples(drawn):
    assert models.assess(Says(4), said(*drawn)).classes == ("0", "1", "2", "3")
    assert models.assess(Says(4), said(*drawn, names={"classes": list("wxyz")})).classes == ("w", "x", "y", "z")


def test_the_model_and_the_random_state_are_left_as_found(drawn):
    model = Says(4).train()
    state = torch.get_rng_state()
    check(models.assess(model, said(*drawn)), *drawn)  # with dropout still on, this would fail
    assert model.training
    assert model.noise.training
    with pytest.raises(ValueError, match="class indices"):
        models.assess(model, Samples(torch.zeros(3, 1)))
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_do_not_matter(drawn):
    one, many = (models.assess(Says(4), said(*drawn), batch_size=size) for size in (7, 1000))
    assert torch.equal(one.confusion, many.confusion)


def test_it_is_saved_and_loaded_whole(drawn, tmp_path):
    found = models.assess(Says(4), said(*drawn), groups={"clinic": ["a", "b"] * 100})
    again = Assessment.load(found.save(tmp_path / "a.safetensors"))
    assert repr(again) == repr(found)
    assert again.gaps == found.gaps
    assert torch.equal(again.groups["clinic"]["b"].confusion, found.groups["clinic"]["b"].confusion)
    assert again.model == found.model


def test_without_scikit_learn_it_says_how_to_get_it(monkeypatch, drawn):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "sklearn":
            raise ImportError("No module named 'sklearn'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "inspector\[demo\]"'):
        models.assess(Says(4), said(*drawn))
