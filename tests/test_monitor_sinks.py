"""Sinks get what the folder gets, under names that group by kind and statistic."""

import csv as reader

import pytest
import torch
from torch import nn

from inspector import History, Monitor
from inspector.monitor import csv, tensorboard, wandb


def train(to, steps=3):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=1, to=to) as monitor:
        for _ in range(steps):
            loss = model(torch.randn(4, 2)).sum()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)
    return monitor.history


def test_any_function_of_values_and_step_is_a_sink(tmp_path):
    got = []
    history = train([tmp_path / "run", lambda values, step: got.append((step, dict(values)))])
    sent = {step: values for step, values in got if "output/rms/0" in values}
    assert sorted(sent) == [1, 2, 3]
    assert sent[2]["output/rms/0"] == pytest.approx(history.stats.line("output", "0", "rms")[1][1], rel=1e-6)
    assert [values["loss"] for _, values in got if "loss" in values] == history.scalars["loss"][1].tolist()


def test_csv_is_a_long_table(tmp_path):
    history = train(csv(tmp_path / "run.csv"))
    with (tmp_path / "run.csv").open() as file:
        rows = list(reader.DictReader(file))
    assert len(rows) == history.stats.rows + 3
    assert rows[0]["step"] == "1"
    with pytest.raises(FileExistsError):
        csv(tmp_path / "run.csv")


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(tensorboard(tmp_path / "tb"))
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    got = [event.value for event in events.Scalars("loss")]
    assert got == pytest.approx(history.scalars["loss"][1].tolist(), rel=1e-6)
    assert [event.step for event in events.Scalars("param_grad/rms/0.weight")] == [1, 2, 3]


def test_two_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="several folders"):
        Monitor(nn.Linear(1, 1), to=[tmp_path / "a", tmp_path / "b"])


def test_a_sink_that_fails_is_left_out_with_one_warning_and_all_else_goes_on(tmp_path):
    calls = []

    def full(values, step):
        calls.append(step)
        raise OSError("no space left on device")

    with pytest.warns(RuntimeWarning, match="no space left") as said:
        history = train([full, tmp_path / "run", csv(tmp_path / "run.csv")])
    assert len(said) == len(calls) == 1
    assert len(history.scalars["loss"][0]) == len(History.load(tmp_path / "run").scalars["loss"][0]) == 3
    assert "loss" in (tmp_path / "run.csv").read_text()


def test_names_with_commas_quotes_and_newlines_stay_one_field(tmp_path):
    sink = csv(tmp_path / "run.csv")
    names = ['a,"b"', "c\nd", "=e", "f\rg", ""]
    sink(dict.fromkeys(names, float("nan")), 7)
    with (tmp_path / "run.csv").open(newline="") as file:
        assert [row["name"] for row in reader.DictReader(file)] == names


def test_numbers_that_are_none_reach_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = tensorboard(tmp_path / "tb")
    sink({"loss": float("nan"), "x": float("inf")}, 1)
    sink({"loss": 0.5}, 2)
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")][1] == 0.5
    assert events.Scalars("x")[0].value == float("inf")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_gets_every_step_also_one_that_comes_late(tmp_path, monkeypatch):
    library = pytest.importorskip("wandb")
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DIR", str(tmp_path))):
        monkeypatch.setenv(f"WANDB_{name}", value)
    made = library.init(project="test", dir=str(tmp_path))
    sink = wandb(made)
    history = train([sink, tmp_path / "run"])
    sink({"late": 4.0}, 1)
    summary = dict(made.summary)
    made.finish()
    assert summary["loss"] == pytest.approx(history.scalars["loss"][1][-1])
    assert summary["output/rms/0"] == pytest.approx(history.stats.line("output", "0", "rms")[1][-1])
    assert summary["late"] == 4.0
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
