"""Which gradient: always the one that the optimizer applies, whoever accumulates, clips, scales or hides it."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from inspector import Monitor

KINDS = ("output", "grad", "param", "param_grad", "update", "state")

pytestmark = pytest.mark.usefixtures("either_reduction")


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def data(steps, batch=8):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(batch, 6, generator=generator), torch.randint(3, (batch,), generator=generator)) for _ in range(steps)
    ]


def norm_of(history, step, kind="param_grad", name="0.weight"):
    rows = history.stats.where(kind=kind, name=name, step=step)
    values = dict(zip(rows["statistic"].tolist(), rows["value"].tolist(), strict=True))
    return values["rms"] * values["n"] ** 0.5


def steps_of(history, kind="param_grad", name="0.weight"):
    return history.stats.where(kind=kind, name=name, statistic="n")["step"].tolist()


def true_norm(model, name="0.weight"):
    return dict(model.named_parameters())[name].grad.norm().item()


class Recorder:
    """The gradient that a plain optimizer step really used, for comparison."""

    def __init__(self, model):
        self.model, self.norms = model, []

    def __call__(self, *_):
        self.norms.append(true_norm(self.model))


def test_accumulated_gradients_are_measured_once_and_whole():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    applied = Recorder(model)
    optimizer.register_step_pre_hook(applied)
    with Monitor(model, every=1) as monitor:
        for i, (x, y) in enumerate(data(8)):
            (F.cross_entropy(model(x), y) / 4).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    assert steps_of(monitor.history) == [1, 2]
    assert [norm_of(monitor.history, s) for s in (1, 2)] == pytest.approx(applied.norms, rel=1e-5)
    assert monitor.history.stats.where(kind="output", name="0", statistic="n", step=1)["value"].item() == 4 * 8 * 16
    assert "skipped" not in monitor.history.watch


def test_micro_batches_merge_into_the_statistics_of_the_whole_batch():
    whole, parts = mlp(), mlp()
    parts.load_state_dict(whole.state_dict())
    ((x, y),) = data(1, batch=12)
    histories = []
    for model, pieces in ((whole, [(x, y)]), (parts, list(zip(x.split((5, 4, 3)), y.split((5, 4, 3)), strict=True)))):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Monitor(model, every=1, what=("output", "param_grad")) as monitor:
            for part, labels in pieces:
                (F.cross_entropy(model(part), labels, reduction="sum") / 12).backward()
            optimizer.step()
        histories.append(monitor.history)
    one, other = (h.stats for h in histories)
    keys = [list(zip(s["kind"], s["name"], s["statistic"], strict=True)) for s in (one, other)]
    assert keys[0] == keys[1]
    np.testing.assert_allclose(one["value"], other["value"], rtol=2e-5, atol=1e-6)


def test_clipped_gradients_are_measured_clipped():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=1) as monitor:
        for x, y in data(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x * 50), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    assert monitor.history.watch["grad_norm"][1].tolist() == pytest.approx([0.1] * 3, rel=1e-3)
    assert norm_of(monitor.history, 3) == pytest.approx(true_norm(model), rel=1e-5)


@pytest.mark.parametrize("by_name", [False, True])
def test_with_a_closure_the_gradient_is_that_of_this_step_and_not_the_one_before(by_name):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with Monitor(model, every=1) as monitor:
        for x, y in data(4):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                norms.append(true_norm(model))
                return loss

            loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
            assert loss is not None
    assert [norm_of(monitor.history, s) for s in (1, 2, 3, 4)] == pytest.approx(norms, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")  # torch 2.8, about its own LBFGS
def test_lbfgs_evaluates_many_times_and_is_one_step():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    x, y = data(1)[0]

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    with Monitor(model, every=1) as monitor:
        for step in range(1, 4):
            optimizer.step(closure)
            assert monitor.step == step
            assert norm_of(monitor.history, step) == pytest.approx(true_norm(model), rel=1e-5)
    assert steps_of(monitor.history) == [1, 2, 3]


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_grad_scaler_gradients_are_unscaled_and_skipped_steps_are_counted(fused):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=1000)
    norms = []
    with Monitor(model, every=1, what=KINDS) as monitor:
        for i, (x, y) in enumerate(data(6)):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y) * (float("inf") if i == 2 else 1.0)
            scaler.scale(loss).backward()
            norms.append(true_norm(model) / scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
    history = monitor.history
    measured = steps_of(history)
    assert len(measured) == 5
    assert [norm_of(history, s) for s in measured] == pytest.approx(norms[:2] + norms[3:], rel=1e-4)
    assert history.watch["skipped"][1].tolist() == [1.0]
    assert history.watch["grad_norm"][1].max() < 10
    assert [f for f in monitor.findings if f.rule == "nan"] == []


def test_a_fused_gradient_is_unscaled_in_every_statistic():
    models = [mlp()]
    models.append(copy.deepcopy(models[0]))
    histories = []
    x, y = data(1)[0]
    for model, scale in zip(models, (1.0, 1024.0), strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
        with Monitor(model, every=1, what="param_grad") as monitor:
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.step(optimizer)
        histories.append(monitor.history.stats)
    np.testing.assert_allclose(histories[0]["value"], histories[1]["value"], rtol=1e-4, atol=1e-7)


def test_both_optimizers_of_a_gan_are_seen_and_the_first_counts():
    generator, critic = nn.Linear(4, 6), nn.Linear(6, 1)
    gan = nn.ModuleDict({"generator": generator, "critic": critic})
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (critic, generator)]
    norms = {"critic.weight": [], "generator.weight": []}
    with Monitor(gan, every=1) as monitor:
        for step in range(1, 5):
            for module, optimizer, sign in ((critic, optimizers[0], 1), (generator, optimizers[1], -1)):
                optimizer.zero_grad()
                (sign * critic(generator(torch.randn(5, 4))).mean()).backward()
                name = "critic.weight" if module is critic else "generator.weight"
                norms[name].append(module.weight.grad.norm().item())
                optimizer.step()
            monitor.log(step=step)
    assert monitor.step == 4
    assert monitor.history.scalars["step"][0].tolist() == [1, 2, 3, 4]
    for name, true in norms.items():
        assert steps_of(monitor.history, name=name) == [1, 2, 3, 4]
        assert [norm_of(monitor.history, s, name=name) for s in range(1, 5)] == pytest.approx(true, rel=1e-5)
    assert "skipped" not in monitor.history.watch


def test_given_optimizers_are_the_only_ones_and_strangers_are_ignored():
    model, other = mlp(), nn.Linear(2, 2)
    optimizer, stranger = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as monitor:
        model(torch.ones(1, 6)).sum().backward()
        for one in (stranger, second, optimizer):
            one.step()
    assert monitor.step == 1


def test_a_frozen_layer_has_no_gradient_row_and_a_zero_gradient_has_one():
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=1) as monitor:
        (model(torch.ones(2, 6)).sum() * 0).backward()
        optimizer.step()
    assert steps_of(monitor.history, name="0.weight") == []
    assert norm_of(monitor.history, 1, name="2.weight") == 0.0


def test_updates_are_what_the_step_changed_and_state_is_the_optimizer_s():
    model = nn.Linear(30, 40)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = model.weight.detach().clone()
    with Monitor(model, every=1, what=("update", "state", "param")) as monitor:
        model(torch.randn(8, 30)).square().sum().backward()
        optimizer.step()
    stats = monitor.history.stats.where(step=1)
    change = (model.weight.detach() - before).square().mean().sqrt().item()
    ratio = stats.where(kind="update", name="weight", statistic="ratio")["value"].item()
    assert stats.where(kind="update", name="weight", statistic="rms")["value"].item() == pytest.approx(change, rel=1e-3)
    assert ratio == pytest.approx(change / before.square().mean().sqrt().item(), rel=0.05)
    first = optimizer.state[model.weight]["exp_avg"]
    assert norm_of(monitor.history, 1, "state", "weight[exp_avg]") == pytest.approx(first.norm().item(), rel=1e-5)
    assert norm_of(monitor.history, 1, "param", "weight") == pytest.approx(before.norm().item(), rel=1e-5)


@pytest.mark.parametrize("outer", [None, False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's, of nested regions
def test_recomputation_by_checkpointing_is_not_a_second_forward(reentrant, outer):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = mlp(), nn.Linear(3, 3)

        def forward(self, x):
            return self.head(self.region(x) if outer is None else checkpoint(self.region, x, use_reentrant=outer))

        def region(self, x):
            return checkpoint(self.inner, torch.sin(x), use_reentrant=reentrant)

    model = Checkpointed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=1, what=("output", "grad", "param_grad")) as monitor:
        for x, y in data(2):
            optimizer.zero_grad()
            F.cross_entropy(model(x.requires_grad_()), y).backward()
            optimizer.step()
    for kind in ("output", "grad"):
        for name, size in (("inner.0", 16), ("inner.2", 3), ("head", 3)):
            n = monitor.history.stats.where(kind=kind, name=name, statistic="n", step=2)["value"].tolist()
            assert n == [8 * size], (kind, name)


def test_gradients_of_outputs_are_the_true_ones_also_before_an_in_place_operation():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, _ = data(1)[0]
    with Monitor(model, every=1, what=("output", "grad")) as monitor:
        model(x).square().sum().backward()
        optimizer.step()
    twin = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    for p, q in zip(twin.parameters(), model.parameters(), strict=True):
        p.data = q.data + 0.1 * q.grad
    hidden = twin[0](x)
    hidden.retain_grad()
    twin[2](twin[1](hidden)).square().sum().backward()
    assert norm_of(monitor.history, 1, "grad", "0") == pytest.approx(hidden.grad.norm().item(), rel=1e-4)
    assert monitor.history.stats.where(kind="output", name="0", statistic="min", step=1)["value"].item() < 0


def test_a_sparse_gradient_a_tied_weight_and_a_shared_module_are_measured():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.fc = nn.Embedding(10, 4, sparse=True), nn.Linear(4, 4)

        def forward(self, tokens):
            return self.fc(self.fc(self.embed(tokens)))

    model = Odd()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=1) as monitor:
        model(torch.tensor([[1, 1, 3]])).sum().backward()
        optimizer.step()
    grad = model.embed.weight.grad.to_dense()
    assert norm_of(monitor.history, 1, name="embed.weight") == pytest.approx(grad.norm().item(), rel=1e-5)
    assert monitor.history.stats.where(kind="output", name="fc", statistic="n")["value"].item() == 2 * 3 * 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_reduced_in_float32(dtype):
    model = nn.Linear(100, 300).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(50, 100, dtype=dtype)
    with Monitor(model, every=1) as monitor:
        output = model(x)
        output.float().square().mean().backward()
        optimizer.step()
    stats = monitor.history.stats.where(kind="output", step=1)
    true = output.detach().double()
    assert stats.where(statistic="rms")["value"].item() == pytest.approx(true.square().mean().sqrt().item(), rel=1e-4)
    assert stats.where(statistic="std")["value"].item() == pytest.approx(true.std(correction=0).item(), rel=1e-4)
    assert stats.where(statistic="mean")["value"].item() == pytest.approx(true.mean().item(), abs=1e-4)


@pytest.mark.parametrize("mean", [0.0, 1000.0, -1e5])
def test_the_spread_survives_a_mean_that_is_far_larger(mean):
    model = nn.Identity()
    parameter = nn.Parameter(torch.zeros(1))
    holder = nn.ModuleDict({"it": model})
    holder.register_parameter("p", parameter)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with Monitor(holder, every=1) as monitor:
        for _ in range(3):
            model(mean + torch.randn(64, 512)).sum()
            optimizer.step()
    values = monitor.history.stats.where(kind="output", name="it", statistic="std")["value"]
    assert len(values) == 3
    assert values == pytest.approx([1.0] * 3, rel=0.05)


def test_channels_last_and_strided_outputs_have_the_same_statistics():
    conv = nn.Conv2d(3, 5, 3)
    x = torch.randn(4, 3, 9, 9)
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        model = copy.deepcopy(conv).to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Monitor(model, every=1) as monitor:
            model(x.to(memory_format=memory_format)).square().mean().backward()
            optimizer.step()
        found.append(monitor.history.stats["value"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("special", [0.0, float("nan"), float("inf"), float("-inf")])
def test_the_range_of_a_relu_is_its_own_though_it_is_told_from_its_input(inplace, special):
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 5), nn.ReLU(inplace=inplace))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(6, 4)
    x[2, 1] = special
    with Monitor(model, every=1, rules={}) as monitor:
        output = model(x)
        optimizer.step()
    for statistic, true in (("min", output.detach().amin()), ("max", output.detach().amax()), ("nan", output.isnan().any())):
        found = monitor.history.stats.where(kind="output", name="2", statistic=statistic)["value"].item()
        assert found == pytest.approx(float(true), nan_ok=True)
