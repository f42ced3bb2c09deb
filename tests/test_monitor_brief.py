"""Steps without samples are measured by one hook a module instead of two, and tell what the others tell."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from inspector import Monitor, capture, edit
from inspector.models import CNN, AttentionClassifier, LSTMClassifier
from inspector.monitor import attention, session
from inspector.monitor.merge import LEAN

pytestmark = pytest.mark.usefixtures("either_reduction")


class WritesIntoItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x, *, by=1.0):
        x.mul_(by)
        return x * self.scale


class Writing(nn.Module):
    """What is given is made between modules, so that nobody measured it before."""

    def __init__(self):
        super().__init__()
        self.first, self.writer, self.act = nn.Linear(6, 6), WritesIntoItsInput(), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.writer(self.first(x).tanh() + 0.0, by=3.0) - 0.1)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.rnn, self.again = nn.Linear(6, 6), nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x):
        y, (h, c) = self.rnn(input=self.first(x)[:, None])
        return {"y": self.again(y), "states": (self.again(h), c)}


class Recomputed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
        self.last, self.reentrant = nn.Linear(6, 2), reentrant

    def forward(self, x):
        return self.last(checkpoint(self.block, x.requires_grad_(), use_reentrant=self.reentrant))


MODELS = {
    "the CNN": lambda: (CNN(widths=(4, 8), hidden=8), torch.randn(4, 1, 28, 28)),
    "the LSTM": lambda: (LSTMClassifier(5, 8, 3), torch.randn(4, 7, 5)),
    "the attention model": lambda: (AttentionClassifier(6, 8, 3, vocabulary=11), torch.randint(1, 11, (4, 7))),
    "ResNet-18, which writes in place": lambda: (torchvision.models.resnet18(num_classes=3), torch.randn(2, 3, 32, 32)),
    "a module that writes into its input": lambda: (Writing(), torch.randn(8, 6)),
    "nested outputs, keywords, shared modules": lambda: (Nested(), torch.randn(8, 6)),
    "checkpointing": lambda: (Recomputed(False), torch.randn(8, 6)),
    "reentrant checkpointing": lambda: (Recomputed(True), torch.randn(8, 6)),
}


def total(output):
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else [output]
    return sum(part.square().mean() if isinstance(part, torch.Tensor) else total(part) for part in parts)


def trained(monkeypatch, make, sample_every, steps=5, batches=2, spoil=lambda step, model, x: x, **options):
    """A run in which samples are taken every so many steps."""
    monkeypatch.setattr(session, "_SAMPLE_EVERY", sample_every)
    torch.manual_seed(0)
    model, x = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, every=1, **options) as monitor:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            for _ in range(batches):
                total(model(spoil(step, model, x.clone()))).backward()
            optimizer.step()
    return monitor


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_step_without_samples_has_the_numbers_of_one_with_samples(monkeypatch, make):
    brief, full = (trained(monkeypatch, make, sample_every).history.stats for sample_every in (100, 1))
    for kind in ("output", "param_grad"):
        for statistic in LEAN:
            one, other = brief.grid(kind, statistic), full.grid(kind, statistic)
            assert one.names == other.names
            assert one.steps.tolist() == other.steps.tolist() == [1, 2, 3, 4, 5]
            np.testing.assert_array_equal(one.values, other.values)
    assert len(brief.grid("output", "zeros").steps) == 1
    assert len(full.grid("output", "zeros").steps) == 5


@pytest.mark.parametrize("at", ["first", "writer", "act"])
def test_a_nan_is_born_where_it_is_on_a_step_with_samples(monkeypatch, at):
    def spoil(step, model, x):
        if step == 4:
            parameter = {"first": model.first.bias, "writer": model.writer.scale}.get(at)
            if parameter is None:
                model.act.forward = lambda x: x.mul_(float("nan"))
            else:
                parameter.data.fill_(float("nan"))
        return x

    born = []
    for sample_every in (100, 1):
        monitor = trained(monkeypatch, MODELS["a module that writes into its input"], sample_every, spoil=spoil)
        born.append([(f.name, f.step, f.message) for f in monitor.findings if f.rule == "nan"])
    assert born[0] == born[1]
    assert [(name, step) for name, step, _ in born[0]] == [(at, 4)]


def test_only_modules_that_leave_their_inputs_alone_have_one_hook(monkeypatch):
    monkeypatch.setattr(session, "_SAMPLE_EVERY", 100)
    model = Writing()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, every=1):
        for hooks in (1, 0):
            assert len(model.first._forward_pre_hooks) == hooks
            assert len(model.writer._forward_pre_hooks) == len(model.act._forward_pre_hooks) == 1
            assert len(model.first._forward_hooks) == len(model.writer._forward_hooks) == 1
            model(torch.randn(8, 6)).sum().backward()
            optimizer.step()
    for module in model.modules():
        assert not any(hooks for name, hooks in vars(module).items() if "_forward" in name)


def test_gradients_of_outputs_are_always_looked_at_with_both_hooks(monkeypatch):
    make = MODELS["the CNN"]
    runs = [trained(monkeypatch, make, n, what=("output", "grad")).history.stats for n in (100, 1)]
    for kind in ("output", "grad"):
        one, other = (stats.grid(kind, "rms") for stats in runs)
        assert one.names == other.names
        np.testing.assert_array_equal(one.values, other.values)


def test_a_hook_that_somebody_adds_meanwhile_never_leaves_a_wrong_number(monkeypatch):
    """What is measured is what the next module receives; a call during which that could not be told is left out."""
    handles = []

    def spoil(step, model, x):
        if step == 3 and not handles:
            handles.append(model.conv1.register_forward_hook(lambda module, args, output: output * 0 + 7.0))
        return x

    model = nn.Sequential()
    model.conv1, model.last = nn.Linear(6, 6), nn.Linear(6, 2)
    monitor = trained(monkeypatch, lambda: (model, torch.randn(8, 6)), 100, spoil=spoil)
    for statistic in ("min", "max"):
        steps, values = monitor.history.stats.line("output", "conv1", statistic)
        assert steps.tolist() == [1, 2, 3, 4, 5]
        assert (values[steps >= 3] == 7.0).all()
        assert (values[steps < 3] != 7.0).all()


def test_a_module_that_is_edited_anew_at_each_step_is_measured_as_edited(monkeypatch):
    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU()), torch.randn(2, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monkeypatch.setattr(session, "_SAMPLE_EVERY", 100)
    with Monitor(model, every=1) as monitor:
        for step in range(1, 7):
            with edit(model, {"0": lambda value, step=step: value * 0 + step}):
                model(x).sum().backward()
            optimizer.step()
    steps, values = monitor.history.stats.line("output", "0", "mean")
    assert steps.tolist() == [1, 3, 4, 5, 6]  # at 2, one hook a module came before the edit: nothing rather than a guess
    assert values.tolist() == steps.tolist()


def test_a_capture_inside_an_open_monitor_takes_nothing_from_either(monkeypatch):
    seen = {}

    def spoil(step, model, x):
        if step in (3, 4):
            with torch.no_grad(), capture(model, "0") as store:
                model.eval()(x)
            model.train()
            seen[step] = store["0"]
        return x

    def make():
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(8, 6)

    watched = trained(monkeypatch, make, 100, spoil=spoil).history.stats.grid("output", "rms")
    alone = trained(monkeypatch, make, 100).history.stats.grid("output", "rms")
    np.testing.assert_array_equal(watched.values, alone.values)
    assert seen[3].output.shape == (8, 16)


def test_a_model_that_is_watched_briefly_is_copied_and_pickled_without_its_hooks(monkeypatch):
    monkeypatch.setattr(session, "_SAMPLE_EVERY", 100)
    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU()), torch.randn(2, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=1) as monitor:
        for step in range(3):
            model(x).sum().backward()
            if step:
                copied, twin = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
                assert torch.equal(copied(x + 100), twin(x + 100))
            optimizer.step()
    assert torch.equal(pickle.loads(pickle.dumps(copied))(x), twin(x))
    n = monitor.history.stats.line("output", "0", "n")[1]
    assert n.tolist() == [8.0] * 3  # the copies' calls are none of the model's


def test_calls_of_other_threads_and_of_evaluation_are_none_of_the_step(monkeypatch):
    def spoil(step, model, x):
        def elsewhere():
            model(torch.full((3, 6), 1e6))

        if step == 3:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        if step == 4:
            with torch.no_grad():
                model(torch.full((3, 6), 1e6))
            model.eval()(torch.full((3, 6), 1e6))
            model.train()
        if step == 5:
            torch.func.vmap(model[0])(torch.full((3, 6), 1e6))
        return x

    make = lambda: (nn.Sequential(nn.Linear(6, 4), nn.ReLU()), torch.randn(2, 6))  # noqa: E731
    monitor = trained(monkeypatch, make, 100, spoil=spoil)
    for statistic, most in (("n", 16.0), ("absmax", 100.0)):
        assert monitor.history.stats.line("output", "0", statistic)[1].max() <= most


def test_an_error_in_the_brief_hook_ends_the_monitor_and_not_the_training(monkeypatch):
    from inspector.monitor.passing import Passing

    def broken(self, *args):
        raise RuntimeError("ours")

    monkeypatch.setattr(Passing, "_ended", broken)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trained(monkeypatch, MODELS["the CNN"], 100)
    assert len([w for w in said if "the monitor is off" in str(w.message)]) == 1


class Own(nn.Module):
    def __init__(self, attends):
        super().__init__()
        self.inner, self.attends = nn.Linear(8, 8), attends

    def forward(self, x):
        x = self.inner(x)
        return nn.functional.scaled_dot_product_attention(x, x, x) if self.attends else x


def test_a_module_that_showed_no_attention_in_several_looks_is_not_watched_for_it_any_more(monkeypatch):
    watched = []

    def begin(self, wanted, _begin=attention.Attention.begin):
        watched.append(wanted)
        return _begin(self, wanted)

    monkeypatch.setattr(attention.Attention, "begin", begin)
    plain = trained(monkeypatch, lambda: (Own(False), torch.randn(2, 5, 8)), 1, steps=12, batches=1)
    assert watched.count(True) == attention._LOOKS
    assert not plain.history.stats.grid("output", "entropy").names
    watched.clear()
    attends = trained(monkeypatch, lambda: (Own(True), torch.randn(2, 5, 8)), 1, steps=12, batches=1)
    assert watched.count(True) == 12
    assert len(attends.history.stats.grid("output", "entropy").steps) == 12
