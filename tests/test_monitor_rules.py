"""Each rule names its disease and its layer, and a healthy run hears nothing. (benchmarks/rules.py measures them all.)"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inspector import RULES, Finding, History, Monitor
from inspector.monitor.diagnosis import Diagnosis
from inspector.records.history import Stats

KINDS = ("output", "grad", "param", "param_grad", "update")


def mlp(act=nn.ReLU, depth=2):
    layers = [layer for i in range(depth) for layer in (nn.Linear(8 if i == 0 else 16, 16), act())]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def run(model, steps=60, optimizer=None, what=KINDS, every=5, spoil=None):
    torch.manual_seed(0)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    with Monitor(model, every=every, what=what) as monitor:
        for step in range(1, steps + 1):
            x = torch.randn(32, 8)
            y = (x[:, 0] > 0).long() + (x[:, 1] > 1).long()
            x = spoil(step, model, x) if spoil else x
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)
    return monitor


def named(monitor, rule):
    return [finding.name for finding in monitor.findings if finding.rule == rule]


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU])
def test_a_healthy_run_hears_nothing(act):
    assert run(mlp(act)).findings == []


def test_units_that_never_fire_are_found_and_their_layer_named():
    model = mlp()
    model[2].bias.data -= 50.0
    monitor = run(model)
    assert named(monitor, "dead_relu") == ["3"]
    assert monitor.findings[0].value == 1.0


def test_a_saturated_layer_is_found_but_the_last_one_may_be():
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3), nn.Tanh())
    model[0].weight.data *= 100.0
    model[2].weight.data *= 100.0
    assert named(run(model), "saturated") == ["1"]


def test_a_parameter_outside_the_optimizer_and_one_without_gradient_are_told_apart():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.left(x) + self.right(x).detach())

    model = Cut()
    parameters = [p for name, p in model.named_parameters() if not name.startswith("head")]
    monitor = run(model, optimizer=torch.optim.Adam(parameters, lr=1e-3))
    found = {f.name: f.message for f in monitor.findings if f.rule == "frozen"}
    assert sorted(found) == ["head.weight", "right.weight"]
    assert "no optimizer" in found["head.weight"]
    assert "no gradient" in found["right.weight"]


def test_a_frozen_parameter_on_purpose_is_no_finding():
    model = mlp()
    model[0].requires_grad_(False)
    assert named(run(model), "frozen") == []


def test_zero_weights_are_found_at_the_first_step():
    model = mlp(depth=3)
    for p in model.parameters():
        nn.init.zeros_(p)
    (finding,) = [f for f in run(model, 12).findings if f.rule == "poor_initialisation"]
    assert (finding.name, finding.step) == ("0", 1)


def test_a_gradient_that_vanishes_across_depth_is_found_at_the_first_layer():
    assert named(run(mlp(nn.Sigmoid, depth=12)), "vanishing") == ["0.weight"]


def test_a_learning_rate_that_is_too_high_or_too_low_shows_in_the_updates():
    for lr, high in ((50.0, True), (1e-9, False)):
        model = mlp(nn.Tanh)
        ratios = [
            f for f in run(model, optimizer=torch.optim.SGD(model.parameters(), lr=lr)).findings if f.rule == "update_ratio"
        ]
        assert ratios
        assert (ratios[0].value > ratios[0].threshold) == high


def test_attention_that_looks_at_one_place_is_found():
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.key, self.softmax, self.head = nn.Linear(1, 6), nn.Softmax(-1), nn.Linear(1, 3)

        def forward(self, x):
            x = x[..., None]
            weights = self.softmax(300.0 * self.key(x) @ self.key(x).transpose(1, 2))
            return self.head((weights @ x).mean(1))

    monitor = run(Attend(), 60)
    assert named(monitor, "attention") == ["softmax"]
    assert monitor.history.stats.line("output", "softmax", "logits")[1].max() > 10


def history(scalars=None, watch=None, rows=(), **meta):
    columns = dict(zip(Stats.COLUMNS, zip(*rows, strict=True), strict=True)) if rows else None
    made = History(stats=Stats(columns), meta=meta)
    made.scalars = {name: (np.arange(1, len(v) + 1), np.asarray(v, float)) for name, v in (scalars or {}).items()}
    made.watch = {name: (np.arange(1, len(v) + 1), np.asarray(v, float)) for name, v in (watch or {}).items()}
    return made


def test_a_loss_spike_is_dated_and_names_what_moved_first():
    rows = [
        (s, "output", n, "absmax", 9.0 if (n == "1" and s == 40) else 1.0) for s in range(10, 41, 5) for n in ("0", "1", "2")
    ]
    (finding,) = RULES["loss_spike"](history({"loss": [1.0, 1.1] * 20 + [9.0]}, rows=rows))
    assert (finding.step, finding.name) == (41, "1")
    assert list(RULES["loss_spike"](history({"loss": [1.0, 1.3, 0.8] * 20}))) == []


def test_an_exploding_gradient_must_last_and_is_none_while_the_loss_falls():
    norms = [1.0] * 40 + [1.0, 50.0, 60.0, 80.0, 90.0, 120.0]
    assert [f.step for f in RULES["exploding"](history(watch={"grad_norm": norms}))] == [42]
    falling = {"loss": list(np.linspace(5, 1, 46))}
    assert list(RULES["exploding"](history(falling, {"grad_norm": norms}))) == []
    assert list(RULES["exploding"](history(watch={"grad_norm": [1.0] * 40 + [100.0, 1.0, 1.0]}))) == []


def test_a_finding_is_told_once_and_again_only_after_it_was_gone_for_a_while():
    told = []
    states = [True, True, False, True, False, False, False, True]

    def rule(given):
        return [Finding("r", "x", given.meta["at"], 1.0, 0.0, "m")] if states[given.meta["at"]] else []

    diagnosis = Diagnosis({"r": rule})
    for at in range(len(states)):
        told += [at] * len(diagnosis.look(History(meta={"at": at})))
    assert told == [0, 7]


def test_rules_also_work_on_a_run_that_was_loaded(tmp_path):
    model = mlp()
    model[2].bias.data -= 50.0
    monitor = run(model)
    monitor.history.save(tmp_path / "run.safetensors")
    loaded = History.load(tmp_path / "run.safetensors")
    assert [f.name for f in RULES["dead_relu"](loaded)] == ["3"]
    assert [f.rule for f in loaded.findings] == [f.rule for f in monitor.findings]


def test_a_rule_of_one_s_own_is_a_function():
    def too_long(given):
        """Complains after ten steps."""
        last = given.stats.steps[-1]
        return [Finding("too_long", "", int(last), float(last), 10.0, "enough")] if last > 10 else []

    model = mlp()
    with Monitor(model, every=1, rules=[too_long]) as monitor:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(20):
            model(torch.ones(1, 8)).sum().backward()
            optimizer.step()
            monitor.log()
    assert [f.rule for f in monitor.findings] == ["too_long"]
