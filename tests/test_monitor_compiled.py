"""A compiled model stays compiled: the hooks are in its graph, and one that came too late says so."""

import collections
import copy
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from inspector import Monitor
from inspector.monitor import ingraph

pytestmark = pytest.mark.slow
writes_in_backward = pytest.mark.skipif(
    not ingraph._backward_may_write(), reason="a compiled backward of this torch may not write; the monitor says so"
)


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def steps(model, monitor, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for x in batches:
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        monitor.log()


def compiled(model):
    torch.compiler.reset()
    return torch.compile(model, fullgraph=True, backend="aot_eager")


def rms(history, name, step):
    return history.stats.where(kind="output", name=name, statistic="rms", step=step)["value"].item()


def test_outputs_of_a_compiled_model_are_the_true_ones_in_one_graph():
    eager, batches = mlp(), [torch.randn(5, 4) for _ in range(3)]
    model = compiled(eager)
    torch._dynamo.utils.counters.clear()
    with Monitor(model, every=1) as monitor:
        steps(model, monitor, batches)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    for step, x in enumerate(batches, 1):
        assert rms(monitor.history, "0", step) == pytest.approx(eager[0](x).square().mean().sqrt().item(), rel=1e-5)
        assert rms(monitor.history, "2", step) == pytest.approx(eager(x).square().mean().sqrt().item(), rel=1e-5)
    assert not eager[0]._forward_hooks


def test_a_second_instance_of_the_class_has_its_own_numbers():
    torch.compiler.reset()
    models = [mlp(), mlp()]
    models[1][0].weight.data *= 10
    x = torch.randn(5, 4)
    for eager in models:
        model = torch.compile(eager, fullgraph=True, backend="aot_eager")
        with Monitor(model, every=1) as monitor:
            steps(model, monitor, [x])
        assert rms(monitor.history, "0", 1) == pytest.approx(eager[0](x).square().mean().sqrt().item(), rel=1e-5)


def test_a_monitor_that_comes_too_late_says_so_and_names_the_cure():
    model = compiled(mlp())
    x = torch.randn(5, 4)
    model(x).sum().backward()
    with pytest.warns(RuntimeWarning, match="compiler.reset"), Monitor(model, every=1) as monitor:
        steps(model, monitor, [x, x])
    assert monitor.history.stats.where(kind="param_grad").rows > 0


class Shortcut(nn.Module):
    """What a gradient hook could trip over: an output written to in place, a tuple, a module that runs twice."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.pair = nn.Linear(4, 4), nn.ReLU(inplace=True), Pair()

    def forward(self, x):
        h = self.act(self.first(x))
        one, other = self.pair(self.first(h))
        return one + other * h


class Pair(nn.Module):
    def forward(self, x):
        return x * 2, x.square()


def true_gradients(eager, x):
    """The gradient of each module's output, from an eager twin whose outputs are kept before anything writes to them."""
    twin, kept = copy.deepcopy(eager), []
    twin.act.inplace = False

    def keep(name):
        def hook(module, args, output):
            for i, part in enumerate(output if isinstance(output, tuple) else [output]):
                part.retain_grad()
                kept.append((f"{name}[{i}]" if isinstance(output, tuple) else name, part))

        return hook

    for name, module in twin.named_modules():
        module.register_forward_hook(keep(name))
    twin(x).square().sum().backward()
    found = {}
    for name, part in kept:
        found.setdefault(name, []).append(part.grad.flatten())
    return {name: torch.cat(parts) for name, parts in found.items()}


@writes_in_backward
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_gradients_of_outputs_of_a_compiled_model_are_the_true_ones_in_one_graph(backend):
    torch.compiler.reset()
    eager, batches = Shortcut(), [torch.randn(5, 4) for _ in range(3)]
    model = torch.compile(eager, fullgraph=True, backend=backend)
    torch._dynamo.utils.counters.clear()
    with Monitor(model, every=1, what=("output", "grad", "param_grad")) as monitor:
        steps(model, monitor, batches)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    for step, x in enumerate(batches, 1):
        true = true_gradients(eager, x)
        rows = monitor.history.stats.where(kind="grad", step=step)
        assert set(rows.unique("name")) == set(true)
        for name, grad in true.items():
            found = dict(zip(*(rows.where(name=name)[c].tolist() for c in ("statistic", "value")), strict=True))
            assert found["n"] == grad.numel()
            assert found["rms"] == pytest.approx(grad.square().mean().sqrt().item(), rel=1e-5)
            assert found["max"] == pytest.approx(grad.max().item(), rel=1e-5)


@writes_in_backward
def test_watching_gradients_changes_nothing_in_a_compiled_model():
    eager, x = Shortcut(), torch.randn(5, 4)
    found = []
    for monitored in (False, True):
        torch.compiler.reset()
        twin = copy.deepcopy(eager)
        model = torch.compile(twin, fullgraph=True, backend="aot_eager")
        monitor = Monitor(model, every=1, what=("output", "grad"))
        if monitored:
            monitor.start()
        output = model(x)
        output.square().sum().backward()
        found.append([output.detach(), *(p.grad for p in twin.parameters())])
        monitor.stop()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@writes_in_backward
def test_two_compiled_instances_of_one_class_are_watched_at_once():
    torch.compiler.reset()
    models = [mlp(), mlp()]
    models[1][0].weight.data *= 10
    x = torch.randn(5, 4)
    compiled_ones = [torch.compile(eager, fullgraph=True, backend="aot_eager") for eager in models]
    monitors = [Monitor(model, every=1, what=("output", "grad")).start() for model in compiled_ones]
    for model, monitor in zip(compiled_ones, monitors, strict=True):
        steps(model, monitor, [x, x])
    for eager, monitor in zip(models, monitors, strict=True):
        monitor.stop()
        output = eager(x)
        assert rms(monitor.history, "2", 2) == pytest.approx(output.square().mean().sqrt().item(), rel=1e-5)
        grads = monitor.history.stats.where(kind="grad", name="2", statistic="rms", step=2)["value"].item()
        assert grads == pytest.approx((2 * output).square().mean().sqrt().item(), rel=1e-5)


@writes_in_backward
def test_a_part_that_is_compiled_and_a_part_that_is_not_are_both_measured():
    torch.compiler.reset()
    eager = nn.Sequential(mlp(), nn.Linear(2, 2))
    eager[0].compile(backend="aot_eager")
    x = torch.randn(5, 4)
    with Monitor(eager, every=1, what=("output", "grad")) as monitor:
        steps(eager, monitor, [x, x])
    output = eager(x)
    for name in ("1", ""):
        grads = monitor.history.stats.where(kind="grad", name=name, statistic="rms", step=2)["value"].item()
        assert grads == pytest.approx((2 * output).square().mean().sqrt().item(), rel=1e-5)
    assert rms(monitor.history, "0.0", 2) == pytest.approx(eager[0][0](x).square().mean().sqrt().item(), rel=1e-5)


@writes_in_backward
def test_forwards_and_backwards_may_come_in_any_order():
    torch.compiler.reset()
    eager, x = mlp(), torch.randn(5, 4)
    model = torch.compile(eager, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(eager.parameters(), lr=0.0)
    with Monitor(model, every=1, what=("output", "grad")) as monitor:
        for factors in ((1, 2), (3,), (4, 5)):
            losses = [factor * model(x).sum() for factor in factors]
            for loss in losses[::-1] if factors[0] == 1 else [sum(losses)]:
                loss.backward()
            optimizer.step()
    grads = monitor.history.stats.where(kind="grad", name="2")
    assert grads.where(statistic="n")["value"].tolist() == [20, 10, 20]
    assert grads.where(statistic="mean")["value"].tolist() == [1.5, 3.0, 4.5]


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        h = self.first(x)
        return {"used": h * 2, "unused": h * 3}


@writes_in_backward
def test_an_output_that_no_gradient_reaches_does_no_harm_to_a_compiled_model():
    torch.compiler.reset()
    model = torch.compile(Both(), fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, every=1, what=("output", "grad")) as monitor:
        model(torch.randn(3, 4))["used"].sum().backward()
        optimizer.step()
    assert monitor.history.stats.where(kind="grad").unique("name") == ["[used]", "first"]


class Log(nn.Module):
    """A NaN is born here when its buffer turns negative, which the compiler does not see."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        return x + self.scale.log()


class Loop(nn.Module):
    """Declared in another order than it runs in, a cell that runs before and after the NaN, containers around it."""

    def __init__(self):
        super().__init__()
        self.last, self.cell = nn.Linear(4, 2), nn.Linear(4, 4)
        self.block = nn.Sequential(nn.Linear(4, 4), Log(), nn.Tanh())

    def forward(self, x):
        return {"logits": self.last(self.cell(self.block(self.cell(x)))), "hidden": [x, None]}


def train_loop(what, break_at):
    torch.compiler.reset()
    eager = Loop()
    model = torch.compile(eager, fullgraph=True, backend="eager")
    optimizer = torch.optim.SGD(eager.parameters(), lr=0.0)
    with Monitor(model, every=1, what=what) as monitor:
        for step in range(1, 5):
            if step == break_at:
                eager.block[1].scale.fill_(-1.0)
            optimizer.zero_grad()
            model(torch.randn(3, 4))["logits"].sum().backward()
            optimizer.step()
    return monitor


@pytest.mark.parametrize(
    "what", [("output", "param_grad"), pytest.param(("output", "grad", "param_grad"), marks=writes_in_backward)]
)
def test_the_module_that_made_a_nan_in_a_compiled_model_is_named_by_execution_order(what):
    (finding,) = train_loop(what, break_at=3).findings
    assert (finding.rule, finding.name, finding.step) == ("nan", "block.1", 3)
    assert "by execution order: born there, or between block.0 and it" in finding.message
    assert "gradient" not in finding.message


@writes_in_backward
def test_a_nan_of_a_compiled_backward_is_named_where_it_came_first():
    torch.compiler.reset()
    eager = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model = torch.compile(eager, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(eager.parameters(), lr=0.0)
    eager[1].weight.data.zero_()
    eager[1].bias.data.zero_()
    with Monitor(model, every=1, what=("output", "grad", "param_grad")) as monitor:
        model(torch.randn(3, 4)).sum().sqrt().backward()  # of zero: an infinite gradient
        optimizer.step()
    (finding,) = monitor.findings
    assert (finding.rule, finding.name) == ("nan", "")
    assert "gradient of the output of the model has NaN or Inf, the first by execution order" in finding.message


@writes_in_backward
def test_rows_of_a_compiled_model_are_in_execution_order_and_nested_outputs_have_their_names():
    stats = train_loop(("output", "grad"), break_at=9).history.stats
    outputs = ["cell", "block.0", "block.1", "block.2", "block", "last", "[logits]", "[hidden][0]"]
    assert stats.where(kind="output").unique("name") == outputs
    assert stats.where(kind="grad").unique("name")[:2] == ["[logits]", "last"]


class Many(nn.Module):
    def forward(self, x):
        return collections.OrderedDict(many=[x + i for i in range(6)], odd=collections.UserDict(x=x))


@pytest.mark.parametrize("what", ["output", pytest.param(("output", "grad"), marks=writes_in_backward)])
def test_what_is_not_measured_of_a_compiled_model_is_listed_once(what):
    torch.compiler.reset()
    eager = nn.Sequential(nn.Linear(4, 4), Many())
    model = torch.compile(eager, backend="eager")
    optimizer = torch.optim.SGD(eager.parameters(), lr=0.0)
    with warnings.catch_warnings(record=True) as warned, Monitor(model, every=1, what=what) as monitor:
        warnings.simplefilter("always")
        for _ in range(3):
            model(torch.randn(3, 4))["many"][0].sum().backward()
            optimizer.step()
    (told,) = warned
    assert "not measured while the model is compiled: 1" in str(told.message)
    assert {f"1[many][{i}]" for i in range(4)} <= set(monitor.history.stats.where(kind="output").unique("name"))


def around(model, **options):
    """A compiled function that calls a model which is not compiled itself."""
    return torch.compile(lambda x: model(x).square().mean(), backend="aot_eager", **options)


def stepped(run, model, monitor_of, steps=12):
    """Trains; returns the monitor and what was warned."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with warnings.catch_warnings(record=True) as said, monitor_of() as monitor:
        warnings.simplefilter("always")
        for _ in range(steps):
            optimizer.zero_grad()
            run(torch.randn(4, 6)).backward()
            optimizer.step()
    return monitor, [str(w.message) for w in said if w.category is RuntimeWarning]


def small():
    torch.compiler.reset()
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.mark.parametrize("every", [1, 3])
def test_a_compiled_function_around_a_model_is_left_whole_and_what_is_unseen_is_said_with_the_cure(every):
    model = small()
    counters.clear()
    monitor, said = stepped(around(model, fullgraph=True), model, lambda: Monitor(model, every=every))
    assert len(said) == 1
    assert "and 3 more modules ran inside a compiled function" in said[0]
    assert "call model.compile()" in said[0]
    assert not monitor.history.stats.grid("output", "rms").names
    assert len(monitor.history.stats.grid("param_grad", "rms").names) == 4
    assert counters["stats"]["unique_graphs"] <= 2
    assert not counters["graph_break"]


def test_the_cure_for_a_compiled_function_around_a_model_is_one():
    model = small()
    model.compile(backend="aot_eager")
    monitor, said = stepped(around(model, fullgraph=True), model, lambda: Monitor(model, every=1))
    assert said == []
    assert monitor.history.stats.grid("output", "n").values[:, -1].tolist() == [24.0, 24.0, 8.0, 8.0]


def test_a_function_that_was_compiled_before_the_monitor_started_is_told_of():
    model = small()
    run = around(model)
    run(torch.randn(4, 6)).backward()
    _, said = stepped(run, model, lambda: Monitor(model, every=3))
    assert len(said) == 1
    assert "compiled before the monitor started" in said[0]


def test_a_part_that_a_compiled_function_runs_is_named_and_the_rest_is_measured():
    model = small()
    part = torch.compile(lambda x: model[2](x), backend="aot_eager")
    monitor, said = stepped(lambda x: part(model[1](model[0](x))).sum(), model, lambda: Monitor(model, every=1))
    assert len(said) == 1
    assert said[0].startswith("2 ran inside a compiled function")
    assert monitor.history.stats.grid("output", "n").names == ["0", "1"]
    assert monitor.history.stats.grid("output", "n").steps.tolist() == list(range(1, 13))


def test_a_model_that_runs_in_a_transform_only_is_told_of_and_one_that_runs_beside_it_is_measured():
    model = nn.Linear(6, 2)

    def each(x):
        return torch.func.vmap(lambda row: torch.func.functional_call(model, dict(model.named_parameters()), row))(x).sum()

    monitor, said = stepped(each, model, lambda: Monitor(model, every=1), steps=4)
    assert len(said) == 1
    assert "torch.func transform" in said[0]
    assert not monitor.history.stats.grid("output", "n").names
    monitor, said = stepped(lambda x: each(x) + model(x).sum(), model, lambda: Monitor(model, every=1), steps=4)
    assert said == []
    assert monitor.history.stats.grid("output", "n").values.tolist() == [[8.0] * 4]


@pytest.mark.parametrize("what", ["output", "grad", "param_grad", "param", "update", "state"])
def test_nothing_is_said_of_a_model_that_runs_as_usual(what):
    model = small()
    monitor, said = stepped(lambda x: model(x).sum(), model, lambda: Monitor(model, every=1, what=what), steps=5)
    assert said == []
    assert monitor.session.guard.off is None


def test_modules_of_which_none_runs_are_told_of_once():
    model = small()
    rare = nn.ModuleDict({"used": model, "unused": nn.Linear(2, 2)})
    _, said = stepped(lambda x: model(x).sum(), model, lambda: Monitor(rare, where="unused", every=1))
    assert len(said) == 1
    assert "none of them runs in this thread" in said[0]


def test_monitors_of_compiled_models_leave_the_compiler_as_it_was_in_whatever_order_they_stop():
    from torch._dynamo import config

    before = config.skip_nnmodule_hook_guards
    first, second = (Monitor(compiled(mlp())).start() for _ in range(2))
    assert not config.skip_nnmodule_hook_guards
    first.stop()
    assert not config.skip_nnmodule_hook_guards
    second.stop()
    assert config.skip_nnmodule_hook_guards is before


@pytest.mark.parametrize("what", ["grad", ("output", "grad", "param_grad")])
def test_where_a_compiled_backward_may_not_write_gradients_of_outputs_are_left_out_and_that_is_said(monkeypatch, what):
    monkeypatch.setattr(ingraph, "_backward_may_write", lambda: False)
    torch.compiler.reset()
    model = torch.compile(mlp(), backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Monitor(model, every=1, what=what) as monitor:
            for _ in range(3):
                first, second = model(torch.randn(3, 4)), model(torch.randn(3, 4))
                first.sum().backward()
                second.sum().backward()
                optimizer.step()
    (one,) = [str(w.message) for w in said if w.category is RuntimeWarning]
    assert 'leave "grad" out of what=' in one
    assert not monitor.history.stats.grid("grad", "rms").names
    assert len(monitor.history.stats.grid("output", "rms").names) == (4 if "output" in what else 0)
