"""The Monitor measures what is there, costs no synchronisation, leaves nothing behind and never harms the training."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import optimizer as torch_optimizer

from inspector import History, Monitor
from inspector.monitor.schedule import schedule
from inspector.records.runfolder import FILE

pytestmark = pytest.mark.usefixtures("either_reduction")


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def train(model, steps, monitor=None, *, lr=0.1, optimizer=None, batch=None):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(7)
    found = []
    for step in range(1, steps + 1):
        x = torch.randn(8, 6, generator=generator)
        y = torch.randint(3, (8,), generator=generator)
        x = batch(step, x) if batch else x
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if monitor is not None:
            found += monitor.log(loss=loss)
    return found


def value(history, kind, name, statistic, step):
    rows = history.stats.where(kind=kind, name=name, statistic=statistic, step=step)
    return rows["value"].item()


def state_of(model):
    """Everything a hook could leave behind."""
    kept = []
    for name, module in model.named_modules():
        hooks = {k: list(v) for k, v in vars(module).items() if "hook" in k and isinstance(v, dict)}
        kept.append((name, sorted(vars(module)), hooks))
    every = (torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)
    return kept, [list(hooks) for hooks in every], pickle.dumps(model)


def test_the_statistics_of_outputs_and_applied_gradients_are_the_true_ones():
    model = mlp()
    seen = {}
    with Monitor(model, every=1) as monitor:
        handle = model[0].register_forward_hook(lambda m, a, output: seen.update(output=output.detach().clone()))
        train(model, 1, monitor)
        handle.remove()
    for kind, name, tensor in (("output", "0", seen["output"]), ("param_grad", "2.weight", model[2].weight.grad)):
        true = {
            "n": tensor.numel(),
            "mean": tensor.mean(),
            "rms": tensor.square().mean().sqrt(),
            "std": tensor.std(correction=0),
        }
        true |= {"min": tensor.min(), "max": tensor.max(), "absmax": tensor.abs().max(), "nan": 0.0, "inf": 0.0}
        true |= {"zeros": (tensor == 0).float().mean()}
        for statistic, expected in true.items():
            assert value(monitor.history, kind, name, statistic, 1) == pytest.approx(float(expected), rel=1e-5, abs=1e-7)


def test_the_training_is_the_same_bit_for_bit_with_and_without_a_monitor():
    models = [mlp()]
    models.append(copy.deepcopy(models[0]))
    train(models[0], 12)
    kinds = ("output", "grad", "param", "param_grad", "update", "state")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with Monitor(models[1], every=1, what=kinds) as monitor:
        train(models[1], 12, monitor)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(one, other)


def test_only_due_steps_are_measured_and_every_scalar_is_kept():
    model = mlp()
    with Monitor(model, every=10) as monitor:
        train(model, 25, monitor)
    assert monitor.history.stats.unique("step") == [1, 10, 20]
    steps, values = monitor.history.scalars["loss"]
    assert steps.tolist() == list(range(1, 26))
    assert np.isfinite(values).all()
    assert monitor.step == 25


def test_every_may_be_a_function_of_the_step():
    model = mlp()
    with Monitor(model, every=lambda step: step in (3, 5)) as monitor:
        train(model, 6, monitor)
    assert monitor.history.stats.unique("step") == [3, 5]


def test_the_loop_waits_for_the_device_not_once(monkeypatch):
    waits = []
    for name in ("item", "cpu", "tolist", "__float__", "__bool__", "nonzero"):
        method = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, *a, _n=name, _m=method: (waits.append(_n), _m(self, *a))[1])
    model = mlp()
    with Monitor(model, every=1, what=("output", "grad", "param", "param_grad", "update", "state")) as monitor:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=False)
        waits.clear()  # the checksum of the model was taken at the start
        train(model, 12, monitor, optimizer=optimizer)
        assert waits == []


def test_closing_leaves_hooks_dicts_and_pickles_as_they_were(tmp_path):
    model = mlp()
    before = state_of(model)
    with pytest.raises(KeyError), Monitor(model, every=1, to=tmp_path / "run"):
        model(torch.ones(1, 6))
        raise KeyError("the user's own")
    assert state_of(model) == before


def test_an_open_monitor_lets_the_model_be_copied_pickled_and_saved(tmp_path):
    model = mlp()
    with Monitor(model, every=1) as monitor:
        train(model, 2, monitor)
        twin = pickle.loads(pickle.dumps(model))
        torch.save(model.state_dict(), tmp_path / "weights.pt")
        copied = copy.deepcopy(model)
        x = torch.ones(1, 6)
        assert torch.equal(twin(x), copied(x))


def test_start_and_stop_do_what_the_block_does():
    model = mlp()
    monitor = Monitor(model, every=1).start()
    train(model, 3, monitor)
    monitor.stop()
    monitor.stop()
    assert monitor.history.stats.unique("step") == [1, 2, 3]
    assert monitor.log(loss=1.0) == []
    with pytest.raises(RuntimeError, match="run already"):
        monitor.start()


def test_an_evaluation_loop_is_no_step_and_is_not_measured():
    model = mlp()
    with Monitor(model, every=1) as monitor:
        train(model, 1, monitor)
        model.eval()
        with torch.no_grad():
            model(torch.full((100, 6), 1e6))
        model(torch.full((100, 6), 1e6))
        model.train()
        train(model, 1, monitor)
    assert monitor.step == 2
    assert value(monitor.history, "output", "0", "n", 2) == 8 * 16
    assert value(monitor.history, "output", "0", "absmax", 2) < 100


class Recip(nn.Module):
    def forward(self, x, divide):
        return x / 0.0 if divide else x + 1.0


class Faulty(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.bad, self.last = nn.Linear(6, 6), Recip(), nn.Linear(6, 3)
        self.steps = 0

    def forward(self, x):
        self.steps += 1
        return self.last(self.bad(self.first(x), self.steps == 4))


def test_the_module_that_made_a_nan_is_named():
    model = Faulty()
    with Monitor(model, every=1) as monitor:
        found = train(model, 5, monitor)
    (finding,) = monitor.findings
    assert (finding.rule, finding.name, finding.step) == ("nan", "bad", 4)
    assert found == [finding]


def test_a_nan_in_the_data_is_not_blamed_on_a_module():
    model = mlp()
    with Monitor(model, every=1) as monitor:
        train(model, 5, monitor, batch=lambda step, x: x / 0 if step == 3 else x)
    assert [(f.rule, f.step) for f in monitor.findings] == [("nan", 3)]
    assert "inputs" in monitor.findings[0].message


def test_a_nan_between_two_measured_steps_is_dated_and_not_guessed():
    model = mlp()
    with Monitor(model, every=10) as monitor:
        train(model, 15, monitor, batch=lambda step, x: x / 0 if step == 13 else x)
    (finding,) = monitor.findings
    assert finding.step == 13
    assert "between 10 and 13" in finding.message
    assert "every=1" in finding.advice
    assert 14 in monitor.history.stats.unique("step")


def test_a_run_folder_is_read_while_the_run_goes_on(tmp_path):
    model = mlp()
    with Monitor(model, every=1, to=tmp_path / "run") as monitor:
        train(model, 4, monitor)
        live = History.load(tmp_path / "run")
        assert live.stats.unique("step") == [1, 2, 3, 4]
        assert live.scalars["loss"][0].tolist() == [1, 2, 3, 4]
    kept = History.load(tmp_path / "run")
    assert kept.stats["value"].tolist() == monitor.history.stats["value"].tolist()
    assert kept.meta["class"] == "Sequential"
    assert kept.meta["steps"] == 4


def test_a_second_run_goes_to_a_numbered_sibling(tmp_path, capsys):
    model = mlp()
    for _ in range(3):
        with Monitor(model, every=1, to=tmp_path / "run") as monitor:
            train(model, 1, monitor)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run-2", "run-3"]
    assert capsys.readouterr().err.count("already holds a run") == 2


def test_a_resumed_run_continues_and_supersedes_what_came_later(tmp_path):
    model = mlp()
    with Monitor(model, every=1, to=tmp_path / "run") as monitor:
        train(model, 6, monitor)
    with Monitor(model, every=1, to=tmp_path / "run", resume=4) as monitor:
        assert monitor.step == 4
        train(model, 3, monitor)
        assert monitor.step == 7
    kept = History.load(tmp_path / "run")
    assert kept.scalars["loss"][0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert kept.stats.unique("step") == [1, 2, 3, 4, 5, 6, 7]
    assert kept.stats["value"].tolist() == monitor.history.stats["value"].tolist()


def test_an_error_in_the_monitor_switches_it_off_with_one_warning_and_the_training_goes_on(tmp_path, monkeypatch):
    model = mlp()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Monitor(model, every=1, to=tmp_path / "run") as monitor:
            train(model, 2, monitor)

            def full(*_):
                raise OSError(28, "No space left on device")

            monkeypatch.setattr("inspector.monitor.folder.os.write", full)
            train(model, 10, monitor)
    assert [str(w.message).count("No space left") for w in said] == [1]
    assert History.load(tmp_path / "run").scalars["loss"][0].tolist() == [1, 2]
    assert not model[0]._forward_hooks


def test_an_error_in_a_rule_is_an_error_in_the_monitor():
    model = mlp()

    def broken(history):
        raise ZeroDivisionError("in the rule")

    with pytest.warns(RuntimeWarning, match="in the rule"), Monitor(model, every=1, rules=[broken]) as monitor:
        train(model, 10, monitor)


def test_wrong_arguments_are_refused_at_the_door(tmp_path):
    model = mlp()
    for wrong, message in (
        ({"what": "outputs"}, "no kind"),
        ({"what": ()}, "asks for nothing"),
        ({"every": 0}, "no interval"),
        ({"every": "often"}, "percentage"),
        ({"resume": 3}, "to=None"),
    ):
        with pytest.raises(ValueError, match=message):
            Monitor(model, **wrong)
    with pytest.raises(LookupError, match="matches no module"):
        Monitor(model, where="conv*")
    with pytest.raises(TypeError, match="no torch optimizer"):
        Monitor(model, [model])
    with pytest.raises(FileNotFoundError, match="no run to continue"):
        Monitor(model, to=tmp_path / "none", resume=3).start()
    with Monitor(model) as monitor:
        with pytest.raises(ValueError, match="give its mean"):
            monitor.log(loss=torch.ones(3))
        with pytest.raises(TypeError, match="not a str"):
            monitor.log(loss="low")


def test_a_tensor_that_is_logged_is_kept_as_it_was():
    model = mlp()
    total = torch.zeros(())
    with Monitor(model) as monitor:
        for step in range(3):
            total += 1.0
            train(model, 1)
            monitor.log(total=total, half=torch.tensor(step, dtype=torch.bfloat16), flag=np.float32(2))
    assert monitor.history.scalars["total"][1].tolist() == [1.0, 2.0, 3.0]
    assert monitor.history.scalars["half"][1].tolist() == [0.0, 1.0, 2.0]
    assert (tuple(s) for s in monitor.history.scalars) is not None


def test_memory_needs_no_folder(tmp_path):
    model = mlp()
    with Monitor(model) as monitor:
        train(model, 2, monitor)
    monitor.history.save(tmp_path / "run.safetensors")
    assert History.load(tmp_path / "run.safetensors").stats.rows == monitor.history.stats.rows
    assert not list(tmp_path.glob(f"**/{FILE}"))


def test_where_chooses_modules_and_the_parameters_inside_them():
    model = nn.Sequential(mlp(), nn.Linear(3, 3))
    with Monitor(model, where="0*", every=1) as monitor:
        train(model, 1, monitor)
    names = monitor.history.stats.unique("name")
    assert names == ["0.0", "0.1", "0.2", "0", "0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"]
    assert len(monitor.history.watch["grad_norm"][0]) == 1


def test_the_leaves_of_a_nested_output_have_their_own_rows():
    model = nn.ModuleDict({"lstm": nn.LSTM(6, 4, batch_first=True)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, where="lstm", every=1, what=("output", "grad")) as monitor:
        model["lstm"](torch.randn(2, 5, 6))[0].sum().backward()
        optimizer.step()
    assert monitor.history.stats.where(kind="output").unique("name") == ["lstm[0]", "lstm[1][0]", "lstm[1][1]"]
    assert monitor.history.stats.where(kind="grad").unique("name") == ["lstm[0]"]


def test_autocast_values_are_measured_in_their_own_type():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=1, what=("output", "grad", "param_grad")) as monitor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(torch.randn(8, 6))
        output.float().square().mean().backward()
        optimizer.step()
    assert output.dtype == torch.bfloat16
    assert value(monitor.history, "output", "2", "max", 1) == output.max().item()


def test_a_share_of_the_step_time_may_be_given():
    model = mlp()
    with Monitor(model, every="5%") as monitor:
        train(model, 60, monitor)
    assert 1 <= len(monitor.history.stats.unique("step")) < 60
    assert 0 < monitor.cost < 1
    assert monitor.history.meta["cost"] == pytest.approx(monitor.cost, rel=0.5)


def test_the_intervals_follow_from_the_share_and_from_what_measuring_costs():
    plan = schedule("2%")
    due = []
    for step in range(1, 2001):
        due += [step] if plan.due(step) else []
        looked = step not in due and plan.looks(step)
        spent = 0.03 if due[-1:] == [step] else 0.002 if looked else 0.0
        plan.note(step, step in due, 0.1 + spent, spent + 10.0 * (step == 1))
    assert due[:2] == [1, 11]
    assert plan.interval == 30  # 30 ms every 30 steps of 100 ms are 1 %
    assert plan.look_interval == 2  # and 2 ms every second step the other
    assert np.diff(due[3:]).tolist() == [30] * (len(due) - 4)


def test_jumps_that_never_end_make_few_steps_due_and_the_first_that_is_not_finite_always_does():
    plan = schedule(10)
    due = 0
    for step in range(1, 1001):
        due += plan.due(step)
        plan.alert(step)
    assert 100 < due <= 200
    plan.alert(1000, always=True)
    assert all(plan.due(step) for step in range(1001, 1020))


def test_a_norm_that_stays_not_finite_makes_twenty_steps_due_until_it_was_finite_again():
    plan = schedule(10)
    for bad, extra in (
        ({5}, 20),
        (set(range(5, 400)), 20),
        ({*range(5, 50), *range(80, 120)}, 40),
        (set(range(5, 400, 2)), 20),
    ):
        plan, due = schedule(10), 0
        for step in range(1, 401):
            due += plan.due(step)
            if step in bad:
                plan.alert(step, always=True)
            else:
                plan.heard()
        assert 41 < due <= 41 + extra


def test_a_model_that_became_nan_is_measured_as_rarely_as_before():
    model, x = nn.Linear(2, 1), torch.ones(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=50) as monitor:
        for step in range(300):
            if step == 60:
                model.weight.data.fill_(float("nan"))
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
    assert len(monitor.history.stats.steps) < 30
    assert [f.rule for f in monitor.findings] == ["nan"]
