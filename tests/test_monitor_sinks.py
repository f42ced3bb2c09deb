"""Sinks get what the folder gets, under names that group by kind and statistic."""

import csv as reader

import pytest
import torch
from torch import nn

from inspector import Monitor
from inspector.monitor import csv, tensorboard


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
