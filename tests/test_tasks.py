"""Tasks: real data as promised, planted evidence that really decides, and one's own data checked at the door."""

import builtins
import struct

import numpy as np
import pytest
import torch

from inspector import Samples, Task, models
from inspector.models import planted, tasks

PLANTED = {
    "patches": lambda **o: tasks.planted_patches(**{"train": 40, "test": 20, **o}),
    "steps": lambda **o: tasks.planted_steps(**{"train": 40, "test": 20, **o}),
    "lengths": lambda **o: tasks.planted_steps(**{"train": 40, "test": 20, "shortest": 20, **o}),
    "words": lambda **o: tasks.planted_words(**{"train": 60, "test": 20, **o}),
}


def values(samples):
    return samples.inputs[0] if isinstance(samples.inputs, tuple) else samples.inputs


@pytest.fixture(params=PLANTED, ids=list(PLANTED))
def plant(request):
    return PLANTED[request.param]


def test_digits_are_the_real_ones_at_28_by_28():
    task = tasks.digits()
    assert len(task.train) + len(task.test) == 1797
    assert task.train.inputs.shape[1:] == (1, 28, 28)
    assert 0 <= task.train.inputs.min() < task.train.inputs.max() <= 1
    assert task.test.names["classes"] == tuple("0123456789")


def test_digits_are_split_class_by_class_and_the_halves_share_nothing():
    task = tasks.digits()
    shares = torch.bincount(task.test.target) / torch.bincount(torch.cat((task.train.target, task.test.target)))
    assert (shares - 0.25).abs().max() < 0.01
    rows = torch.cat((task.train.inputs, task.test.inputs)).flatten(1)
    from sklearn.datasets import load_digits

    assert len(rows.unique(dim=0)) == len(np.unique(load_digits().data, axis=0))
    assert not torch.equal(task.test.target, tasks.digits(seed=1).test.target)


def test_digit_rows_are_the_same_digits_read_from_the_top():
    images, rows = tasks.digits().test, tasks.digit_rows().test
    assert torch.equal(rows.inputs, images.inputs[:, 0])
    assert torch.equal(rows.target, images.target)
    assert len(rows.names["features"]) == 28


def test_mnist_that_is_not_there_is_not_downloaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="download=True"):
        tasks.mnist(tmp_path)


def write_mnist(root, sizes):
    """Random images in the files that torchvision reads."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, n in sizes.items():
        images, labels = np.random.default_rng(0).integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())


def test_mnist_is_read_through_torchvision_with_the_same_interface(tmp_path):
    write_mnist(tmp_path, {"train": 60, "t10k": 40})
    task = tasks.mnist(tmp_path, download=False)
    assert task.train.inputs.shape == (60, 1, 28, 28)
    assert task.train.inputs.min() == 0
    assert task.train.inputs.max() == 1
    assert task.test.target.tolist() == [i % 10 for i in range(40)]
    assert task.test.names == tasks.digits().test.names
    assert tasks.mnist(tmp_path, rows=True).test.inputs.shape == (40, 28, 28)


def test_missing_scikit_learn_is_named_with_the_cure(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "inspector\[demo\]"'):
        tasks.digits()


def test_planted_data_come_from_their_seed_alone(plant):
    state = torch.get_rng_state()
    one, same, other = plant(), plant(), plant(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(values(one.train), values(same.train))
    assert not torch.equal(values(one.train), values(other.train))


def test_planted_halves_share_no_sample(plant):
    task = plant()
    rows = torch.cat((values(task.train), values(task.test))).flatten(1)
    assert len(rows.unique(dim=0)) == 60 or len(rows.unique(dim=0)) == 80


def test_every_sample_has_evidence_inside_what_is_valid(plant):
    samples = plant().train
    assert samples.evidence.flatten(1).any(1).all()
    assert not samples.evidence.flatten(1).all(1).any()
    if samples.valid is not None:
        assert not (samples.evidence & ~samples.valid).any()


def test_every_class_occurs_and_is_named(plant):
    samples = plant(train=200).train
    assert samples.target.unique().tolist() == list(range(len(samples.names["classes"])))


def test_the_evidence_alone_tells_the_class_of_a_patch():
    samples = tasks.planted_patches(train=60, test=1, noise=0.0).train
    for image, mask, label in zip(samples.inputs[:, 0], samples.evidence, samples.target.tolist(), strict=True):
        y, x = mask.nonzero()[0].tolist()
        square = image[y : y + 7, x : x + 7]
        assert mask.sum() == 49
        phases = {_pattern_text(planted._pattern(label, 7, torch.Generator().manual_seed(s))) for s in range(64)}
        assert _pattern_text(square) in phases


def _pattern_text(square):
    return "".join(str(int(v)) for v in square.flatten())


def test_a_motif_lies_where_the_evidence_says():
    quiet = {"train": 40, "test": 1, "noise": 0.0}
    samples = tasks.planted_steps(**quiet).train
    for series, mask, label in zip(samples.inputs, samples.evidence, samples.target.tolist(), strict=True):
        stretch = series[mask]
        motif = planted._motif(label, 8)
        assert mask.sum() == 8
        assert any(torch.equal(stretch[:, f], motif) for f in range(4))


def test_the_shortest_series_holds_both_motif_and_burst():
    samples = tasks.planted_steps(train=300, test=1, steps=18, shortest=16).train
    series, valid = samples.inputs
    assert torch.equal(valid, samples.valid)
    assert set(valid.sum(1).tolist()) == {16, 17, 18}
    assert not series[~valid].any()


def test_sentences_are_readable_and_negation_turns_them():
    samples = tasks.planted_words(train=300, test=20).train
    for tokens, mask, label in zip(samples.names["tokens"], samples.evidence.tolist(), samples.target.tolist(), strict=True):
        said = [word for word, marked in zip(tokens, mask, strict=True) if marked]
        assert label == ((said[-1] in planted.GOOD) != ("not" in said))
        assert len(said) == 1 + ("not" in said)
    sentence = [word for word in samples.names["tokens"][0] if word != "<pad>"]
    assert sentence[-1] == "."
    assert samples.names["vocabulary"][0] == "<pad>"


def test_distractors_alone_do_not_tell_the_class():
    samples = tasks.planted_words(train=3000, test=20).train
    negations = torch.tensor([row.count("not") for row in samples.names["tokens"]])
    praise_words = torch.tensor([sum(w in planted.GOOD for w in row) > 0 for row in samples.names["tokens"]])
    for guess in (negations % 2, praise_words.long()):
        accuracy = (guess == samples.target).double().mean()
        assert max(accuracy, 1 - accuracy) < 0.65


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tasks.planted_patches(patch=12), "4 to 9"),
        (lambda: tasks.planted_steps(steps=10), "16 to 10"),
        (lambda: tasks.planted_steps(shortest=50), "16 to 40"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    return rng.normal(5, 3, (40, 3)), np.arange(40) % 4


def test_own_arrays_become_a_task(table):
    task = Task.from_arrays(*table, groups=[f"g{i % 2}" for i in range(40)], names={"classes": ("a", "b", "c", "d")})
    assert (len(task.train), len(task.test)) == (30, 10)
    assert torch.bincount(task.test.target).tolist() == [3, 3, 2, 2]
    assert task.train.inputs.dtype == torch.float32
    assert len(task.train.groups) == 30
    assert task.train.names["classes"] == ("a", "b", "c", "d")


def test_only_the_training_half_sets_the_scale_and_it_is_kept(table):
    task = Task.from_arrays(*table)
    torch.testing.assert_close(task.train.inputs.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(task.train.inputs.std(0, correction=0), torch.ones(3))
    assert task.test.inputs.mean(0).abs().max() > 1e-3
    raw = Task.from_arrays(*table, standardize=False)
    mean, deviation = task.standardization
    torch.testing.assert_close((raw.test.inputs - mean) / deviation, task.test.inputs)
    assert raw.standardization is None


def test_images_are_scaled_by_channel_and_constants_stay_finite():
    images = torch.rand(12, 2, 4, 5)
    images[:, 1] = 7
    task = Task.from_arrays(images, [0, 1] * 6)
    assert task.standardization[0].shape == (1, 2, 1, 1)
    assert task.train.inputs.isfinite().all()
    assert not task.train.inputs[:, 1].any()


def test_padding_does_not_count_in_the_scale_and_stays_zero():
    valid = torch.arange(5) < torch.tensor([5, 3] * 6)[:, None]
    series = torch.where(valid[..., None], torch.randn(12, 5, 2) * 4 + 3, 1e6)
    task = Task.from_arrays(series, [0] * 6 + [1] * 6, valid=valid)
    values, mask = task.train.inputs
    assert torch.equal(mask, task.train.valid)
    torch.testing.assert_close(values[mask].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert not values[~mask].any()


def test_labels_may_be_names_and_tokens_are_not_scaled():
    task = Task.from_arrays(torch.arange(24).view(8, 3), ["yes", "no"] * 4)
    assert task.train.names["classes"] == ("no", "yes")
    assert task.train.inputs.dtype == torch.int64


def test_a_data_frame_names_its_features(table):
    class Frame(np.ndarray):
        columns = ("age", "dose", "weight")

    task = Task.from_arrays(table[0].view(Frame), table[1])
    assert task.train.names["features"] == ["age", "dose", "weight"]


def nan_at(rows):
    x = np.zeros((8, 2))
    x[rows] = np.nan
    return x


EIGHT = [0, 1] * 4


@pytest.mark.parametrize(
    ("inputs", "labels", "options", "message"),
    [
        (nan_at([2, 5]), EIGHT, {}, "2 of 8 inputs hold NaN or Inf, first at row 2"),
        (np.zeros((8, 2)), EIGHT[:5], {}, r"labels have shape \(5,\) but there are 8"),
        (np.zeros((8, 2)), [0.5] * 8, {}, "class indices or names, not 0.5"),
        (np.zeros((8, 2)), [-1, 1] * 4, {}, "from -1 to 1"),
        (np.zeros((8, 2)), [0, 3] * 4, {"names": {"classes": ("a", "b")}}, "0 to 3 but 2 classes"),
        (np.zeros((8, 2)), ["a", "z"] * 4, {"names": {"classes": ("a", "b")}}, "hold 'z' but the classes are a, b"),
        (np.zeros((8, 2)), [0] * 7 + [1], {}, "class 1 has one sample"),
        (np.zeros((8, 2)), EIGHT, {"test_size": 1.5}, "between 0 and 1, not 1.5"),
        (np.zeros((8, 2)), EIGHT, {"groups": ["a"] * 3}, "has 3 samples but inputs have 8"),
        (np.zeros(8), EIGHT, {}, r"shape \(8,\)"),
        (np.zeros((0, 2)), [], {}, r"shape \(0, 2\)"),
        ([[1, 2], [1]], EIGHT[:2], {}, "pad sequences"),
        (np.array([["a"], ["b"]]), EIGHT[:2], {}, "no array of numbers"),
        (np.zeros((8, 5, 2)), EIGHT, {"valid": torch.ones(8, 4).bool()}, r"valid has shape \(8, 4\)"),
        (np.zeros((8, 5, 2)), EIGHT, {"valid": torch.ones(8, 5)}, "bool mask"),
    ],
)
def test_data_that_cannot_be_learned_are_refused(inputs, labels, options, message):
    with pytest.raises(ValueError, match=message):
        Task.from_arrays(inputs, labels, **options)


def test_own_sequences_train_a_reference_model():
    valid = torch.arange(5) < torch.tensor([5, 3] * 6)[:, None]
    task = Task.from_arrays(torch.randn(12, 5, 2), [0, 1] * 6, valid=valid)
    models.fit(models.LSTMClassifier(2, 3, 2), task, epochs=1, progress=False)
    assert isinstance(task.test, Samples)
