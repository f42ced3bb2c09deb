"""A compiled model stays compiled: the hooks are in its graph, and one that came too late says so."""

import collections
import copy
import warnings

import pytest
import torch
from torch import nn

from inspector import Monitor

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("what", [("output", "param_grad"), ("output", "grad", "param_grad")])
def test_the_module_that_made_a_nan_in_a_compiled_model_is_named_by_execution_order(what):
    (finding,) = train_loop(what, break_at=3).findings
    assert (finding.rule, finding.name, finding.step) == ("nan", "block.1", 3)
    assert "by execution order: born there, or between block.0 and it" in finding.message
    assert "gradient" not in finding.message


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


def test_rows_of_a_compiled_model_are_in_execution_order_and_nested_outputs_have_their_names():
    stats = train_loop(("output", "grad"), break_at=9).history.stats
    outputs = ["cell", "block.0", "block.1", "block.2", "block", "last", "[logits]", "[hidden][0]"]
    assert stats.where(kind="output").unique("name") == outputs
    assert stats.where(kind="grad").unique("name")[:2] == ["[logits]", "last"]


class Many(nn.Module):
    def forward(self, x):
        return collections.OrderedDict(many=[x + i for i in range(6)], odd=collections.UserDict(x=x))


@pytest.mark.parametrize("what", ["output", ("output", "grad")])
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
