"""On a GPU: nothing waits for the device, numbers that come a step later are right, also under a GradScaler."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inspector import Monitor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here; these are for a machine with one"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

KINDS = ("output", "grad", "param", "param_grad", "update", "state")


def mlp(width=256):
    layers = [layer for _ in range(4) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 10)).cuda()


def batches(steps, batch=64, width=256):
    generator = torch.Generator("cuda").manual_seed(1)
    for _ in range(steps):
        x = torch.randn(batch, width, device="cuda", generator=generator)
        yield x, torch.randint(10, (batch,), device="cuda", generator=generator)


def train(model, steps, monitor, optimizer, every_loss=None):
    for x, y in batches(steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        monitor.log(loss=loss)
        if every_loss is not None:
            every_loss.append(loss.detach())


def values(history, kind, name, step):
    rows = history.stats.where(kind=kind, name=name, step=step)
    return dict(zip(rows["statistic"].tolist(), rows["value"].tolist(), strict=True))


@pytest.fixture
def no_waiting():
    """Any synchronisation raises while this is on."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("fused", [False, True])
def test_the_loop_waits_for_the_device_not_once(no_waiting, every, fused):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused, foreach=not fused)
    with Monitor(model, every=every, what=KINDS) as monitor:
        train(model, 2, monitor, optimizer)  # what is made once: streams, kernels, the optimizer's state
        no_waiting()
        train(model, 30, monitor, optimizer)
        torch.cuda.set_sync_debug_mode("default")
    assert monitor.session.guard.off is None
    assert monitor.history.scalars["loss"][0].tolist() == list(range(1, 33))


def test_statistics_from_the_device_are_the_true_ones():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    kept = {}
    losses = []
    with Monitor(model, every=1) as monitor:
        handle = model[2].register_forward_hook(lambda m, a, output: kept.update(output=output.detach().double()))
        train(model, 5, monitor, optimizer, losses)
        handle.remove()
    for kind, name, tensor in (
        ("output", "2", kept["output"]),
        ("param_grad", "2.weight", model[2].weight.grad.double()),
        ("param_grad", "2.bias", model[2].bias.grad.double()),
    ):
        found = values(monitor.history, kind, name, 5)
        assert found["n"] == tensor.numel()
        assert found["mean"] == pytest.approx(tensor.mean().item(), rel=1e-3, abs=1e-7)
        assert found["rms"] == pytest.approx(tensor.square().mean().sqrt().item(), rel=1e-4)
        assert found["std"] == pytest.approx(tensor.std(correction=0).item(), rel=1e-4)
        assert (found["min"], found["max"]) == pytest.approx((tensor.min().item(), tensor.max().item()), rel=1e-6)
    assert monitor.history.scalars["loss"][1] == pytest.approx(torch.stack(losses).cpu().numpy(), rel=1e-6)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
    assert monitor.history.watch["grad_norm"][1][-1] == pytest.approx(norm, rel=1e-4)


def test_a_device_and_the_host_measure_the_same():
    there = mlp(64)
    here = copy.deepcopy(there).cpu()
    histories = []
    for model, device in ((there, "cuda"), (here, "cpu")):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        with Monitor(model, every=1, what=KINDS) as monitor:
            for x, y in batches(3, width=64):
                loss = F.cross_entropy(model(x.to(device)), y.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        histories.append(monitor.history.stats)
    one, other = histories
    for kind in ("output", "grad", "param", "param_grad"):
        for name in other.where(kind=kind).unique("name"):
            for statistic in ("n", "mean", "rms", "absmax", "zeros"):
                a, b = one.line(kind, name, statistic)[1], other.line(kind, name, statistic)[1]
                np.testing.assert_allclose(a, b, rtol=2e-2, atol=1e-3, err_msg=f"{kind} {name} {statistic}")


def test_the_training_is_the_same_bit_for_bit():
    models = [mlp()]
    models.append(copy.deepcopy(models[0]))
    for i, model in enumerate(models):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        monitor = Monitor(model, every=1, what=KINDS)
        if i:
            monitor.start()
        for x, y in batches(8):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        monitor.stop()
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_grad_scaler_gradients_are_unscaled_and_an_overflow_is_a_skipped_step(fused):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, growth_interval=1000)
    norms = []
    with Monitor(model, every=1) as monitor:
        for i, (x, y) in enumerate(batches(6)):
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype=torch.float16):
                loss = F.cross_entropy(model(x), y)
            scale = scaler.get_scale()
            scaler.scale(loss * (float("inf") if i == 2 else 1.0)).backward()
            norms.append(model[0].weight.grad.norm().item() / scale)
            scaler.step(optimizer)
            scaler.update()
    history = monitor.history
    steps, rms = history.stats.line("param_grad", "0.weight", "rms")
    true = norms[:2] + norms[3:]
    assert (rms * 256).tolist() == pytest.approx(true, rel=1e-3)
    assert history.watch["skipped"][1].tolist() == [1.0]
    assert np.isfinite(history.watch["grad_norm"][1]).all()
    assert [f for f in monitor.findings if f.rule == "nan"] == []
    assert values(history, "output", "0", steps[-1])["n"] == 64 * 256


def test_a_nan_is_named_though_the_numbers_come_late():
    class Divides(nn.Module):
        def forward(self, x, by):
            return x / by

    class Faulty(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.bad, self.last = nn.Linear(256, 64), Divides(), nn.Linear(64, 10)
            self.by = torch.ones((), device="cuda")

        def forward(self, x):
            return self.last(self.bad(self.first(x), self.by))

    model = Faulty().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Monitor(model, every=1) as monitor:
        for i, (x, y) in enumerate(batches(8)):
            model.by.fill_(0.0 if i == 4 else 1.0)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            monitor.log()
    assert [(f.rule, f.name, f.step) for f in monitor.findings] == [("nan", "bad", 5)]


def test_memory_on_the_device_stays_flat():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Monitor(model, every=1, what=KINDS) as monitor:
        train(model, 50, monitor, optimizer)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        train(model, 300, monitor, optimizer)
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() <= before + 100_000


def test_two_devices_in_one_model_are_two_tables():
    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.there, self.here = nn.Linear(256, 32).cuda(), nn.Linear(32, 10)

        def forward(self, x):
            return self.here(self.there(x).cpu())

    model = Split()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Monitor(model, every=1) as monitor:
        for x, y in batches(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y.cpu()).backward()
            optimizer.step()
    assert monitor.history.stats.where(kind="output").unique("name") == ["there", "here", ""]
    assert monitor.history.stats.line("param_grad", "there.weight", "rms")[0].tolist() == [1, 2, 3]
    norm = torch.stack([p.grad.norm().cpu() for p in model.parameters()]).norm().item()
    assert monitor.history.watch["grad_norm"][1][-1] == pytest.approx(norm, rel=1e-4)


def test_attention_is_looked_at_without_waiting(no_waiting):
    model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.randn(8, 16, 64, device="cuda")
    mask = torch.nn.Transformer.generate_square_subsequent_mask(16, device="cuda")
    with Monitor(model, every=1) as monitor:
        for step in range(25):
            if step == 2:
                no_waiting()
            optimizer.zero_grad()
            model(x, src_mask=mask).square().mean().backward()
            optimizer.step()
        torch.cuda.set_sync_debug_mode("default")
    assert monitor.session.guard.off is None
    entropy = monitor.history.stats.line("output", "self_attn", "entropy")[1]
    assert len(entropy) == 3
    assert ((entropy > 0) & (entropy <= 1)).all()
