"""The summary against truth counted by hand, and what it must leave alone."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from inspector import Samples, Summary, summary
from inspector.records.summary import Row


class Recurrent(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True, **options)
        self.fc = nn.Linear(self.lstm(torch.zeros(1, 1, 8))[0].shape[-1], 3)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.attention(x, x, x)[0][:, -1])


class Noisy(nn.Module):
    """Changes everything that a run can change, and fails where it is told to."""

    def __init__(self, fails=False):
        super().__init__()
        self.norm, self.drop, self.fails = nn.BatchNorm1d(4), nn.Dropout(0.5), fails
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + 1
        x.add_(random.random() + float(np.random.rand()))
        out = self.drop(self.norm(x))
        if self.fails:
            raise KeyError("the model's own error")
        return out


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.act = nn.ReLU()
        self.block = nn.Linear(4, 4)
        self.again = self.block
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Linear(2, 2)
        self.unused.weight.requires_grad_(False)

    def forward(self, ids):
        x = self.act(self.block(self.embed(ids)))
        return self.head(self.act(self.again(x)))


def row(found, name, call=None):
    return next(r for r in found.rows if r.name == name and r.call == call)


LSTMS = [
    ({}, 122_880),
    ({"num_layers": 2}, 122_880 + 80 * 64 * 32),
    ({"bidirectional": True}, 2 * 122_880),
    ({"bias": False}, 122_880),
    ({"proj_size": 5}, 80 * (64 * 8 + 64 * 5 + 16 * 5)),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("options", "truth"), LSTMS)
def test_an_lstm_passes_each_weight_once_a_step(options, truth):
    found = summary(Recurrent(**options), torch.randn(2, 40, 8), runs=1)
    assert row(found, "lstm").multiply_adds == truth
    assert found.operations.counted == found.operations.total - sum(found.operations.skipped.values())


def test_a_packed_lstm_counts_the_steps_that_there_are():
    lstm = nn.LSTM(8, 16)
    packed = nn.utils.rnn.pack_sequence([torch.randn(5, 8), torch.randn(3, 8)])
    assert summary(lstm, (packed,), runs=1).multiply_adds == (5 + 3) * 64 * (8 + 16)


def test_a_gru_and_a_plain_rnn_count_too():
    assert summary(nn.GRU(8, 16), torch.randn(40, 2, 8), runs=1).multiply_adds == 80 * 48 * (8 + 16)
    assert summary(nn.RNN(8, 16), torch.randn(40, 2, 8), runs=1).multiply_adds == 80 * 16 * (8 + 16)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_attention_is_counted_in_every_mode(training, frozen):
    model = Attends().train(training).requires_grad_(not frozen)
    truth = 60 * 64 * 64 * 4 + 2 * 2 * 30 * 30 * 64  # four projections; queries by keys and weights by values
    with torch.no_grad():
        assert row(summary(model, torch.randn(2, 30, 64), runs=1), "attention").multiply_adds == truth
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_whose_weights_nobody_asked_for_is_counted_too(training, masked):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(training)
    inputs = {"src": torch.randn(2, 5, 16), "mask": torch.zeros(5, 5, dtype=torch.bool) if masked else None}
    projections, attention, feed_forward = 10 * 16 * 16 * 4, 2 * 2 * 5 * 5 * 16, 10 * 16 * 32 * 2
    found = summary(model, inputs, runs=1)
    assert found.multiply_adds == 2 * (projections + attention + feed_forward)
    assert not any("attention" in name for name in found.operations.skipped)


def test_attention_of_a_models_own_is_counted_by_its_queries_keys_and_values():
    class Own(nn.Module):
        def forward(self, query, key, value):
            return nn.functional.scaled_dot_product_attention(query, key, value)

    inputs = (torch.randn(2, 3, 7, 8), torch.randn(2, 3, 11, 8), torch.randn(2, 3, 11, 8))
    assert summary(Own(), inputs, runs=1).multiply_adds == 2 * 3 * 7 * 11 * (8 + 8)


def test_a_summary_says_of_which_parameters_it_is():
    model = nn.Linear(2, 2)
    one = summary(model).extra["origin"]
    assert {"class", "checksum", "versions"} <= set(one)
    with torch.no_grad():
        model.bias.add_(1)
    assert summary(model).extra["origin"]["checksum"] != one["checksum"]


@pytest.mark.parametrize(
    ("model", "shape", "truth"),
    [
        (nn.Linear(3, 8), (5, 100, 3), 12_000),
        (nn.Linear(3, 8), (3,), 24),
        (nn.Conv2d(3, 6, 3), (2, 3, 8, 8), 2 * 36 * 6 * 27),
        (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 8, 8), 36 * 8 * 18),
        (nn.Conv1d(3, 6, 3, padding=1), (2, 3, 10), 2 * 10 * 6 * 9),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), (1, 2, 4, 4), 16 * 2 * 3 * 4),
        (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 7, 16), 14 * (4 * 256 + 2 * 512) + 2 * 2 * 49 * 16),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)), (5, 3), 0),
    ],
)  # fmt: skip
def test_multiply_adds_equal_the_count_by_hand(model, shape, truth):
    assert summary(model, torch.randn(shape), runs=1).multiply_adds == truth


def test_what_has_no_formula_is_named():
    found = summary(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3)), torch.randn(4, 3), runs=1)
    assert found.operations.counted == 1
    assert {"relu", "native_batch_norm"} <= set(found.operations.skipped)
    assert f"1 of {found.operations.total} operations counted" in repr(found)


def test_every_column_adds_up_to_its_total():
    found = summary(Shared(), torch.randint(0, 10, (2, 5)), runs=1)
    for column in ("parameters", "trainable", "multiply_adds", "output_bytes", "saved_bytes"):
        assert sum(getattr(r, column) or 0 for r in found.rows) == getattr(found, column), column


def test_shared_modules_tied_weights_and_frozen_ones_are_counted_once_and_said():
    model = Shared()
    found = summary(model, torch.randint(0, 10, (2, 5)), runs=1)
    assert found.parameters == sum(p.numel() for p in model.parameters()) == 40 + 20 + 6
    assert found.frozen == 4
    assert "4 frozen" in repr(found)
    assert row(found, "head").shared_with == "embed"
    assert row(found, "head").parameters == 0
    assert [r.parameters for r in found.rows if r.name == "block"] == [20, 0]
    assert row(found, "block", 0).note == "also called again"
    assert row(found, "unused").note == "not called as a module"


def test_rows_stand_in_run_order_parents_first():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Tanh())
    found = summary(model, torch.ones(1, 2), runs=1)
    assert [(r.name, r.depth) for r in found.rows] == [("", 0), ("0", 1), ("0.0", 2), ("0.1", 2), ("1", 1)]
    assert row(found, "0.0").output == "1x2"
    assert row(found, "0.0").dtype == "float32"


def test_without_inputs_nothing_runs_and_the_order_is_that_of_registration():
    found = summary(Noisy(fails=True))
    assert [r.name for r in found.rows] == ["", "norm", "drop"]
    assert found.parameters == 8
    assert found.multiply_adds is None
    assert "multiply-adds" not in repr(found)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_model_the_inputs_or_the_random_numbers_changes(fails):
    model, x = Noisy(fails), torch.randn(6, 4)
    before, given, modes = copy.deepcopy(model.state_dict()), x.clone(), [m.training for m in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    if fails:
        with pytest.raises(KeyError, match="the model's own error"):
            summary(model, x)
    else:
        summary(model, x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(x, given)
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_saved_for_backward_leaves_parameters_out_and_counts_a_memory_once():
    found = summary(nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 1)), torch.randn(8, 10), runs=1)
    assert found.saved_bytes == 8 * 10 * 4 * 2  # the input and the ReLU's output, which the last layer keeps as well
    frozen = summary(nn.Linear(10, 10).requires_grad_(False), torch.randn(8, 10), runs=1)
    assert frozen.saved_bytes == 0


def test_inference_mode_meta_tensors_and_compiled_models_are_counted_alike():
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(2, 8)
    truth = summary(model, x, runs=1)
    with torch.inference_mode():
        found = [summary(model, torch.randn(2, 8), runs=1)]
        found.append(summary(copy.deepcopy(model), torch.randn(2, 8), runs=1))
    found.append(summary(copy.deepcopy(model).to("meta"), x.to("meta"), runs=1))
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    found.append(summary(compiled, x, runs=1))
    for other in found:
        assert (other.model, other.multiply_adds, other.output_bytes) == ("Sequential", 384, truth.output_bytes)
        assert [r.name for r in other.rows] == [r.name for r in truth.rows]
    assert [other.saved_bytes for other in found] == [truth.saved_bytes, 0, truth.saved_bytes, truth.saved_bytes]


def test_lazy_layers_stay_lazy():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU())
    assert summary(model).parameters == 0
    assert summary(model, torch.ones(2, 3), runs=1).parameters == 16
    assert isinstance(model[0], nn.LazyLinear)


def test_inputs_by_name_by_position_and_as_samples():
    model, x, state = nn.GRUCell(3, 4), torch.randn(2, 3), torch.randn(2, 4)
    by_place = summary(model, (x, state), runs=1)
    by_name = summary(model, {"input": x, "hx": state}, runs=1)
    by_samples = summary(model, Samples((x, state)), runs=1)
    assert by_place.multiply_adds == by_name.multiply_adds == by_samples.multiply_adds == 2 * 12 * (3 + 4)


def test_it_goes_to_disk_to_json_to_markdown_and_to_html_and_hostile_names_stay_text(tmp_path):
    model = nn.Sequential()
    model.add_module("</td><img onerror=alert(1)>|", nn.Linear(2, 2))
    found = summary(model, torch.ones(1, 2), runs=1)
    assert repr(Summary.load(found.save(tmp_path / "s.safetensors"))) == repr(found)
    assert found.to_dict()["rows"][1]["parameters"] == 6
    assert "<img" not in found._repr_html_()
    assert "\\|" in found.to_markdown()
    lines = found.to_markdown().splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines[:4]} == {lines[0].count("|")}


def test_a_row_needs_only_a_name_and_a_kind():
    assert Row("fc", "Linear").multiply_adds is None


@pytest.mark.slow
def test_vision_models_have_the_multiply_adds_and_the_memory_that_their_papers_say():
    torchvision = pytest.importorskip("torchvision")
    residual = summary(torchvision.models.resnet18(), torch.randn(1, 3, 224, 224), runs=1)
    assert residual.multiply_adds == 1_814_073_344
    assert 22.15e6 < residual.saved_bytes < 22.25e6
    assert residual.parameters == 11_689_512
    vit = summary(torchvision.models.vit_b_16().eval(), torch.randn(1, 3, 224, 224), runs=1)
    assert 17.55e9 < vit.multiply_adds < 17.57e9
