"""Killed, out of disk, run for ten thousand steps: the training goes on, and what was flushed is readable."""

import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc

import pytest
import torch
from torch import nn

from inspector import History, Monitor
from inspector.records.runfolder import FILE


def train(folder, pipe):
    """Without end; says each step that was logged."""
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, every=1, to=folder) as monitor:
        for _ in range(10**9):
            loss = model(torch.randn(4, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)
            os.write(pipe.fileno(), b"step")


@pytest.mark.slow
def test_after_kill_9_at_any_moment_every_flushed_step_is_readable(tmp_path):
    moments = random.Random(0)
    servers = multiprocessing.get_context("forkserver")  # torch is imported once, in the process that all are forked from
    servers.set_forkserver_preload(["inspector", "torch._dynamo", "pytest"])
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        read, write = servers.Pipe(duplex=False)
        process = servers.Process(target=train, args=(folder, write))
        process.start()
        write.close()
        assert len(os.read(read.fileno(), 4)) == 4  # it has begun
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.join()
        with open(read.fileno(), "rb", closefd=False) as pipe:
            last = 1 + len(pipe.read()) // 4
        read.close()
        history = History.load(folder)
        assert history.stats.unique("step")[:last] == list(range(1, last + 1))
        assert history.scalars["loss"][0].tolist()[:last] == list(range(1, last + 1))


TRAINING = """
import sys, warnings, torch
from torch import nn
from inspector import History, Monitor
model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with Monitor(model, every=1, to=sys.argv[1]) as monitor:
        for step in range(200):
            loss = model(torch.randn(4, 8)).square().mean()
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            monitor.log(loss=loss)
print(step, len(said), sys.argv[2] in str(said[0].message), len(History.load(sys.argv[1]).scalars["loss"][0]) > 5)
"""

LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
"""


@pytest.mark.slow
def test_when_a_file_may_grow_no_more_there_is_one_warning_and_the_training_goes_on(tmp_path):
    command = [sys.executable, "-c", LIMITED + TRAINING, str(tmp_path / "run"), "File too large"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["199", "1", "True", "True"], done.stderr


@pytest.mark.slow
def test_when_the_disk_is_full_there_is_one_warning_and_the_training_goes_on(tmp_path):
    small = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=20k none "$0" && exec "$@"', str(tmp_path)]
    if shutil.which("unshare") is None:
        pytest.skip("a disk of a few kilobytes needs unshare, which is not here")
    allowed = subprocess.run([*small, "true"], capture_output=True, text=True, timeout=60)
    if allowed.returncode:
        pytest.skip(f"a disk of a few kilobytes may not be mounted here: {allowed.stderr.strip()}")
    command = [*small, sys.executable, "-c", TRAINING, str(tmp_path / "run"), "No space left on device"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["199", "1", "True", "True"], done.stderr


def test_two_runs_to_one_path_at_once_do_not_mix(tmp_path, capsys):
    models = [nn.Linear(2, 1), nn.Linear(2, 1)]
    with Monitor(models[0], every=1, to=tmp_path / "run") as one, Monitor(models[1], every=1, to=tmp_path / "run") as other:
        for step in range(3):
            for model, monitor in ((models[0], one), (models[1], other)):
                model(torch.ones(1, 2)).sum().backward()
                torch.optim.SGD(model.parameters(), lr=0.1).step()
                monitor.log(step=step)
    assert [len(History.load(tmp_path / name).scalars["step"][0]) for name in ("run", "run-2")] == [3, 3]
    assert "already holds a run" in capsys.readouterr().err


def test_a_folder_that_is_removed_ends_the_monitor_with_one_warning_and_not_the_training(tmp_path):
    model, done = nn.Linear(2, 1), []

    def training():
        with Monitor(model, every=1, to=tmp_path / "run") as monitor:
            for step in range(9):
                model(torch.ones(1, 2)).sum().backward()
                torch.optim.SGD(model.parameters(), lr=0.1).step()
                monitor.log(step=step)
                done.append(step)
                if step == 1:
                    shutil.rmtree(tmp_path / "run")

    with pytest.warns(RuntimeWarning, match="was removed while the run was written") as said:
        training()
    assert len(said) == 1
    assert len(done) == 9
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_a_folder_is_refused_at_the_door(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for path in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(FileExistsError, match="give another path"):
            Monitor(nn.Linear(2, 1), to=path).start()
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.slow
def test_memory_and_files_stay_small_over_ten_thousand_steps(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def steps(n):
        for _ in range(n):
            loss = model(torch.randn(4, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)

    with Monitor(model, every=10, to=tmp_path / "run", what=("output", "grad", "param_grad", "update")) as monitor:
        steps(2000)
        tracemalloc.start()
        used, tensors = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _tensors()
        steps(8000)
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert _tensors() <= tensors + 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 40_000  # KiB
        assert grown < 12_000_000
        history = monitor.history
    size = (tmp_path / "run" / FILE).stat().st_size
    kept = History.load(tmp_path / "run")
    values = kept.stats.rows + sum(len(v) for _, v in kept.scalars.values())
    assert len(kept.scalars["loss"][0]) == 10_000
    assert 1001 <= len(history.stats.unique("step")) < 1200  # a jump of the gradient makes the next steps due
    assert size / values < 12  # every=10: what every step is checked for is a third of it


def _tensors():
    import gc

    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def test_what_is_remembered_is_thinned_and_the_newest_stays_whole():
    from inspector.monitor.memory import Memory

    memory = Memory({})
    memory.declare(("output", "fc"), ("rms",))
    import numpy as np

    for step in range(20_000):
        memory.add_frame(step, np.array([0]), np.array([1.0]))
        memory.scalars.add(step, {"loss": 1.0})
    steps = memory.history().stats.steps
    assert len(steps) <= 4096
    assert steps[-1000:].tolist() == list(range(19_000, 20_000))
    assert steps[0] == 0


def test_a_share_of_the_step_time_is_kept_by_measuring_less_often():
    from inspector.monitor.schedule import schedule

    plan = schedule("2%")
    due, ours, total = 0, 0.0, 0.0
    for step in range(1, 2001):
        now = plan.due(step)
        due += now
        spent = 0.004 if now else 0.0005 if plan.looks(step) else 0.0
        plan.note(step, now, 0.010 + spent, spent)
        ours, total = ours + spent, total + 0.010 + spent
    assert 0.015 < ours / total < 0.022
    assert 20 < due < 120


def test_numbers_at_the_end_of_float32_do_not_end_the_monitor():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(3e37)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, every=1, what=("output", "param_grad", "update")) as monitor:
        (model(torch.ones(1, 4)) * 1e-38).sum().backward()
        optimizer.step()
    assert {"dormant", "dead"} <= set(monitor.history.stats.where(name="1").unique("statistic"))


def test_numbers_with_names_are_remembered_each_for_itself_and_of_one_step_the_last(monkeypatch):
    import numpy as np

    from inspector.monitor import memory

    monkeypatch.setattr(memory, "_SCALARS", 100)
    lines = memory.Lines({"old": (np.array([1, 2]), np.array([0.5, 0.25]))})
    for step in range(3, 1003):
        lines.add(step, {"loss": float(step)})
        if step % 100 == 0:
            lines.add(step, {"accuracy": 0.0})
            lines.add(step, {"accuracy": 1.0, "loss": -1.0})
    whole, recent = lines.columns(), lines.columns(last=10)
    assert whole["old"][0].tolist() == [1, 2]
    assert whole["accuracy"][0].tolist() == list(range(100, 1001, 100))
    assert set(whole["accuracy"][1].tolist()) == {1.0}
    steps, values = whole["loss"]
    assert len(steps) <= 100
    assert steps[0] == 3
    assert steps[-40:].tolist() == list(range(963, 1003))
    assert values[steps == 1000].tolist() == [-1.0]
    assert recent["loss"][0].tolist() == list(range(993, 1003))
    assert recent["accuracy"][0].tolist() == whole["accuracy"][0].tolist()
