"""``fit``: same seed, same weights; the caller's state stays; what goes wrong is said."""

import numpy as np
import pytest
import torch
from torch import nn

from inspector import Samples, models


@pytest.fixture(scope="module")
def task():
    return models.tasks.planted_steps(train=80, test=20, steps=16, motif=4)


def dropout_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 4))


def trained(task, **options):
    torch.manual_seed(7)
    model = dropout_model()
    history = models.fit(model, task, **{"epochs": 3, "progress": False, **options})
    return model, history


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_history_has_four_scalars_per_epoch(task):
    _, history = trained(task)
    assert history.unit == "epoch"
    assert list(history.scalars) == ["loss", "accuracy", "validation_loss", "validation_accuracy"]
    for steps, values in history.scalars.values():
        assert steps.tolist() == [1, 2, 3]
        assert np.isfinite(values).all()
    assert history.meta["class"] == "Sequential"
    assert history.meta["seed"] == 0


def test_training_lowers_the_loss(task):
    _, history = trained(task, epochs=30, lr=1e-2)
    losses = history.scalars["loss"][1]
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(task):
    once, again, other = (weights(trained(task, seed=seed)[0]) for seed in (3, 3, 4))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_the_callers_randomness_does_not_matter_and_is_left_alone(task):
    torch.manual_seed(7)
    model = dropout_model()
    torch.manual_seed(12345)
    state = torch.get_rng_state()
    models.fit(model, task, epochs=3, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(model), weights(trained(task)[0]))


@pytest.mark.parametrize("mode", [True, False])
def test_modes_stay_as_they_were_also_when_it_raises(task, mode):
    model = dropout_model().train(mode)
    model[2].train(not mode)
    models.fit(model, task, epochs=1, progress=False)
    assert [m.training for m in model] == [mode, mode, not mode, mode]
    with pytest.raises(ZeroDivisionError):
        models.fit(model, task, epochs=1, progress=lambda epoch, scalars: 1 / 0)
    assert [m.training for m in model] == [mode, mode, not mode, mode]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoiled(task):
    model = dropout_model()
    broken = Samples(torch.full((8, 16, 4), torch.inf), torch.zeros(8, dtype=torch.long))
    before = weights(model).clone()
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1.*lower lr"):
        models.fit(model, broken, epochs=2, validation=0, progress=False)
    assert torch.equal(weights(model), before)


def test_frozen_parameters_stay_frozen(task):
    model = dropout_model()
    model[1].requires_grad_(False)
    before = model[1].weight.clone()
    models.fit(model, task, epochs=1, progress=False)
    assert torch.equal(model[1].weight, before)
    assert not model[1].weight.requires_grad


def test_without_validation_there_are_no_such_scalars_and_given_samples_are_used(task):
    assert list(trained(task, validation=0)[1].scalars) == ["loss", "accuracy"]
    assert "validation_loss" in trained(task, validation=task.test)[1].scalars


def test_validation_samples_are_not_trained_on(task):
    seen = []
    model = dropout_model()
    model.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])) if m.training else None)
    models.fit(model, task, epochs=1, batch_size=1000, progress=False)
    assert sum(seen) == 80 - 8


def test_progress_may_be_a_function_of_the_epoch(task):
    told = []
    trained(task, progress=lambda epoch, scalars: told.append((epoch, scalars["loss"])))
    assert [epoch for epoch, _ in told] == [1, 2, 3]


def test_a_last_batch_of_one_does_not_stop_batch_norm():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    samples = Samples(torch.rand(9, 3), torch.arange(9) % 2)
    models.fit(model, samples, epochs=1, batch_size=4, validation=0, progress=False)


def test_no_samples_are_refused():
    samples = Samples(torch.rand(0, 3), torch.zeros(0, dtype=torch.long))
    for verb in (lambda m: models.fit(m, samples, epochs=1, progress=False), lambda m: models.assess(m, samples)):
        with pytest.raises(ValueError, match="no samples"):
            verb(nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("target", "message"),
    [(None, "there is none"), (torch.zeros(8), "torch.float32"), (torch.full((8,), 9), "goes from 9 to 9")],
)
def test_a_target_that_cannot_be_learned_is_refused(target, message):
    with pytest.raises(ValueError, match=message):
        models.fit(dropout_model(), Samples(torch.rand(8, 16, 4), target), epochs=1, validation=0, progress=False)


def test_sequences_with_lengths_and_tokens_are_fitted_too():
    series = models.tasks.planted_steps(train=40, test=8, steps=16, motif=4, shortest=8)
    models.fit(models.LSTMClassifier(4, 5, 4, bidirectional=True), series, epochs=1, progress=False)
    words = models.tasks.planted_words(train=40, test=8)
    vocabulary = len(words.train.names["vocabulary"])
    models.fit(models.AttentionClassifier(4, 5, 2, vocabulary=vocabulary), words, epochs=1, progress=False)
