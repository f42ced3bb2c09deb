"""The reference models: what they compute, what they refuse, and how well the shipped ones do on real data."""

import copy

import pytest
import torch
from torch import nn

from inspector import Samples, models
from inspector.models import answers, shipped, steps
from inspector.models.shipped import MODELS

SEQUENCE = {
    "lstm": lambda: models.LSTMClassifier(5, 7, 3),
    "two layers": lambda: models.LSTMClassifier(5, 7, 3, layers=2),
    "bidirectional": lambda: models.LSTMClassifier(5, 7, 3, bidirectional=True),
    "two layers both ways": lambda: models.LSTMClassifier(5, 7, 3, layers=2, bidirectional=True),
    "attention": lambda: models.AttentionClassifier(5, 7, 3),
}
LENGTHS = (6, 1, 4, 3)


@pytest.fixture(scope="module")
def padded():
    generator = torch.Generator().manual_seed(1)
    valid = torch.arange(6) < torch.tensor(LENGTHS)[:, None]
    return torch.randn(4, 6, 5, generator=generator), valid


@pytest.fixture(params=SEQUENCE, ids=list(SEQUENCE))
def reader(request):
    return SEQUENCE[request.param]()


def test_the_article_s_network_has_its_sizes():
    model = models.CNN()
    shapes = [tuple(p.shape) for p in model.parameters() if p.dim() > 1]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 1600), (10, 128)]
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize(
    "options", [{"channels": 3}, {"widths": (4,)}, {"widths": (4, 5, 6)}, {"size": (20, 33)}, {"hidden": 5}]
)
def test_sizes_are_arguments(options):
    size = options.get("size", 28)
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.rand(2, options.get("channels", 1), height, width)
    assert models.CNN(classes=4, **options)(images).shape == (2, 4)


def test_an_image_that_the_blocks_use_up_is_refused():
    with pytest.raises(ValueError, match="used up by 3 blocks"):
        models.CNN(widths=(1, 1, 1), size=12)


def test_every_nonlinearity_is_a_module_of_its_own_that_runs_once():
    model, runs = models.CNN(), []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, *_: runs.append(m))
    model(torch.rand(1, 1, 28, 28))
    assert [type(m).__name__ for m in runs].count("ReLU") == 3
    assert len(runs) == len(set(map(id, runs)))


def test_padding_changes_no_answer(reader, padded):
    series, valid = padded
    together = reader(series, valid)
    alone = [reader(series[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]
    torch.testing.assert_close(together, torch.cat(alone))
    noisy = torch.where(valid[..., None], series, 1e3)
    torch.testing.assert_close(reader(noisy, valid), together)


def test_no_gradient_reaches_padding(reader, padded):
    series, valid = padded[0].clone().requires_grad_(), padded[1]
    reader(series, valid).square().sum().backward()
    assert not series.grad[~valid].any()
    assert series.grad[valid].any(-1).all() or isinstance(reader, models.LSTMClassifier)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.float(), "bool mask"),
        (lambda v: v[:, :3], r"shape \(4, 6\)"),
        (lambda v: v.flip(1), "only at the end"),
        (lambda v: v & False, "only at the end"),
    ],
)
def test_a_mask_that_is_none_is_refused(reader, padded, change, message):
    with pytest.raises(ValueError, match=message):
        reader(padded[0], change(padded[1]))


def test_one_sequence_without_a_batch_axis_is_refused(reader):
    with pytest.raises(ValueError, match="batch of 1"):
        reader(torch.rand(6, 5))


def test_a_batch_of_none_gives_none(reader):
    assert reader(torch.rand(0, 6, 5)).shape == (0, 3)
    assert models.CNN()(torch.rand(0, 1, 28, 28)).shape == (0, 10)


def test_the_attention_weights_are_an_ordinary_capture_and_skip_padding(padded):
    model, weights = models.AttentionClassifier(5, 7, 3), []
    model.softmax.register_forward_hook(lambda *event: weights.append(event[-1]))
    model(*padded)
    assert weights[0].shape == (4, 6, 6)
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(4, 6))
    assert not weights[0].masked_select(~padded[1][:, None]).any()


def test_attention_computes_what_its_formula_says(padded):
    model, series = models.AttentionClassifier(5, 7, 3), padded[0][:1]
    states, values = model.lstm(series)[0][0], model.project(series)[0]
    rows = [torch.softmax(torch.stack([q @ k for k in values]) / 7**0.5, 0) for q in states]
    found = torch.stack([sum(w * v for w, v in zip(row, values, strict=True)) for row in rows])
    expected = model.out(torch.cat((states.mean(0), found.mean(0))))
    torch.testing.assert_close(model(series)[0], expected)


def test_tokens_need_no_mask():
    model = models.AttentionClassifier(4, 6, 2, vocabulary=9)
    ids = torch.tensor([[3, 1, 2, 0, 0], [5, 8, 0, 0, 0]])
    torch.testing.assert_close(model(ids), model(ids, ids != 0))
    torch.testing.assert_close(model(ids)[1:], model(ids[1:, :2]))


def test_a_blanked_word_is_not_the_end_of_the_sentence():
    model = models.AttentionClassifier(4, 6, 2, vocabulary=9)
    torch.testing.assert_close(
        model(torch.tensor([[3, 0, 2, 0]])), model(torch.tensor([[3, 0, 2]]), torch.ones(1, 3).bool())
    )
    assert model(torch.zeros(2, 4, dtype=torch.long)).isfinite().all()


def test_last_and_mean_are_those_of_each_sequence_alone(padded):
    series, valid = padded
    for i, n in enumerate(LENGTHS):
        torch.testing.assert_close(steps.last(series, valid)[i], series[i, n - 1])
        torch.testing.assert_close(steps.mean(series, valid)[i], series[i, :n].mean(0))


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_does_on_held_out_data_what_is_promised(name):
    model = models.load(name)
    assert not any(m.training for m in model.modules())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    found = models.assess(model, MODELS[name].task())
    assert found.accuracy >= {"cnn": 0.98, "lstm": 0.96, "attention": 0.96}.get(name, 0.97)


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in models.recipe.WEIGHTS.iterdir()) < 1_500_000


def test_loading_leaves_the_random_state_alone_and_gives_a_fresh_model():
    state = torch.get_rng_state()
    one, other = models.load("lstm"), models.load("lstm")
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        one.out.bias += 1
    assert not torch.equal(one.out.bias, other.out.bias)


def test_an_unknown_model_is_named_with_what_there_is():
    with pytest.raises(LookupError, match=r"there are cnn, lstm.*Did you mean 'lstm'"):
        models.load("lsmt")


def test_a_recipe_trained_twice_gives_the_same_weights(monkeypatch, tmp_path, capsys):
    tiny = shipped.Shipped(
        lambda: models.LSTMClassifier(4, 5, 4), lambda: models.tasks.planted_steps(train=60, test=20), epochs=2, lr=1e-3
    )
    monkeypatch.setitem(MODELS, "tiny", tiny)
    models.recipe.main(["tiny", "--out", str(tmp_path)])
    assert "accuracy" in capsys.readouterr().out
    again, history = models.recipe.train("tiny", progress=False)
    assert not again.training
    assert len(history.scalars["loss"][1]) == 2
    read = tiny.build()
    shipped.read(read, tmp_path / "tiny.safetensors")
    for p, q in zip(read.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q.half().float())


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(3, 2), wrap

    def forward(self, x):
        return self.wrap(self.linear(x))


def test_logits_are_found_in_a_dict_and_other_answers_are_refused():
    samples = Samples(torch.rand(4, 3), torch.tensor([0, 1, 1, 0]))
    assert answers.class_scores(Wrapped(lambda y: {"logits": y}), samples).shape == (4, 2)
    with pytest.raises(ValueError, match="must answer with class scores"):
        answers.class_scores(Wrapped(lambda y: (y, y)), samples)
    with pytest.raises(ValueError, match=r"must answer with class scores.*\(4,\)"):
        answers.class_scores(Wrapped(lambda y: y[:, 0]), samples)
    with pytest.raises(ValueError, match="goes from 0 to 1 but the model scores 1"):
        answers.class_scores(Wrapped(lambda y: y[:, :1]), samples)


def test_copies_and_pickles_of_the_models_work():
    for build in (models.CNN, models.LSTMClassifier, models.AttentionClassifier):
        model = build()
        assert type(copy.deepcopy(model)) is type(model)
