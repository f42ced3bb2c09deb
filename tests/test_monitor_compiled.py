"""A compiled model stays compiled: the hooks are in its graph, and one that came too late says so."""

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


def test_gradients_of_outputs_are_refused_where_they_cannot_be_had():
    with pytest.raises(ValueError, match="compiled model"):
        Monitor(torch.compile(mlp()), what=("output", "grad")).start()
