"""Each rule names its disease and its layer, and a healthy run hears nothing. (benchmarks/rules.py measures them all.)"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inspector import RULES, Finding, History, Monitor
from inspector.monitor.diagnosis import Diagnosis
from inspector.monitor.rules import gradients
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
    states = [True, True, False, True, *[False] * 20, True]

    def rule(given):
        return [Finding("r", "x", given.meta["at"], 1.0, 0.0, "m")] if states[given.meta["at"]] else []

    diagnosis = Diagnosis({"r": rule})
    for at in range(len(states)):
        told += [at] * len(diagnosis.look(History(meta={"at": at})))
    assert told == [0, 24]


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


def grid(kind, statistic, values, names=None, steps=None):
    """Rows of one statistic: values (names, steps)."""
    names = names or [str(i) for i in range(len(values))]
    steps = steps or range(1, len(values[0]) + 1)
    return [
        (s, kind, n, statistic, v) for n, row in zip(names, values, strict=True) for s, v in zip(steps, row, strict=True)
    ]


WEIGHTS = {"0.weight": [8, 8], "2.weight": [8, 8], "4.weight": [8, 8]}


def test_a_step_that_changes_more_than_all_of_a_weight_is_found_at_once():
    def told(values):
        rows = grid("update", "ratio", values, list(WEIGHTS))
        return [(f.name, f.step, f.threshold) for f in RULES["update_ratio"](history(rows=rows, parameters=WEIGHTS))]

    usual = [1e-3] * 4
    assert told([usual] * 3) == []
    assert told([usual, [1e-3, 1e-3, 3.0, 1e-3], usual]) == [("2.weight", 3, 1.0)]
    assert told([usual, usual, [9.0, 1e-3, 1e-3, 1e-3]]) == []  # one that began next to zero
    assert told([[9.0, 1e-3, 1e-3, 1e-3]] * 2 + [usual]) == [("0.weight", 1, 1.0)]
    assert told([usual, usual, [0.3, 1e-3, 0.3, 0.3]]) == [("4.weight", 3, 0.2)]


def test_gradients_that_grow_on_their_way_back_explode_and_those_that_shrink_vanish():
    for sizes, rule, name in (([1e7, 1e3, 1.0], "exploding", "0.weight"), ([1e-7, 1e-3, 1.0], "vanishing", "0.weight")):
        rows = grid("param_grad", "absmax", [[size] * 20 for size in sizes], list(WEIGHTS))
        made = history(rows=rows, parameters=WEIGHTS)
        assert [f.name for f in RULES[rule](made)] == [name]
        assert list(RULES["vanishing" if rule == "exploding" else "exploding"](made)) == []


def test_a_narrow_last_layer_is_no_poor_initialisation():
    modules = {str(i): "Linear" for i in range(5)}
    spread = [[s] for s in (0.5, 0.4, 0.3, 0.2, 1e-4)]
    assert list(RULES["poor_initialisation"](history(rows=grid("output", "std", spread), modules=modules))) == []
    spread[2] = [1e-4]
    (found,) = RULES["poor_initialisation"](history(rows=grid("output", "std", spread), modules=modules))
    assert found.name in ("2", "3")


def test_a_plateau_makes_a_small_jump_a_spike_and_one_hard_sample_near_zero_does_not():
    plateau = [2.30 + 0.01 * (-1) ** i for i in range(40)]
    assert [f.step for f in RULES["loss_spike"](history({"loss": [*plateau, 3.7]}))] == [41]
    assert list(RULES["loss_spike"](history({"loss": [*plateau, 2.5]}))) == []
    near_zero = [10.0 ** -(1 + i * 7 % 4) for i in range(40)]
    assert list(RULES["loss_spike"](history({"loss": [*near_zero, 0.3]}))) == []
    assert len(list(RULES["loss_spike"](history({"loss": [*near_zero, 1e4]})))) == 1


def test_what_is_exactly_zero_is_said_so():
    for sizes, rule, name in (([0.0, 1.0], "vanishing", "0.weight"), ([1.0, 0.0], "exploding", "2.weight")):
        rows = grid("param_grad", "absmax", [[size] * 20 for size in sizes], ["0.weight", "2.weight"])
        (found,) = RULES[rule](history(rows=rows, parameters={"0.weight": [4, 4], "2.weight": [4, 4]}))
        assert f"the gradient of {name} is exactly zero" in found.message


def test_a_norm_that_overflows_while_each_gradient_is_finite_is_said_so():
    rows = grid("param_grad", "absmax", [[1.0, 1e20], [1.0, 1e25]], ["0.weight", "2.weight"])
    (found,) = RULES["nan"](history(watch={"grad_norm": [1.0, float("inf")]}, rows=rows))
    assert (found.name, found.step) == ("2.weight", 2)
    assert "still finite" in found.message


def test_a_birth_is_told_with_the_frames_before_it():
    rows = grid("output", "absmax", [[1.0, 2.0], [5.0, 7.0], [3.0, float("nan")]], ["a", "b", "c"])
    rows += [(2, "output", "c", "nan", 4.0), (2, "output", "c", "born", 1.0)]
    (found,) = RULES["nan"](history(rows=rows))
    assert found.name == "c"
    assert "its largest magnitude was 3 at step 1" in found.message
    assert "just before it: a 2, b 7" in found.message


def test_a_birth_that_no_due_step_saw_is_an_interval():
    rows = grid("param_grad", "absmax", [[1.0, 1.0]], ["0.weight"], steps=[30, 40])
    (found,) = RULES["nan"](history(watch={"grad_norm": [1.0] * 42 + [float("nan")]}, rows=rows))
    assert "between 40 and 43" in found.message
    assert "every=1" in found.advice


def test_attention_logits_that_grow_are_told_before_the_entropy_is_gone():
    rows = grid("output", "entropy", [[0.9, 0.8, 0.6, 0.5, 0.4]]) + grid(
        "output", "logits", [[5.0, 90.0, 120.0, 150.0, 200.0]]
    )
    (found,) = RULES["attention"](history(rows=rows))
    assert (found.name, found.step, found.threshold) == ("0", 3, 100.0)
    assert list(RULES["attention"](history(rows=grid("output", "logits", [[150.0] * 5])))) == []  # it began like that


def test_units_that_do_next_to_nothing_are_dormant_unless_they_are_dead():
    for dead, told in ((0.1, ["0"]), (0.9, [])):
        rows = grid("output", "dormant", [[0.9] * 4]) + grid("output", "dead", [[dead] * 4])
        assert [f.name for f in RULES["dormant"](history(rows=rows))] == told


def test_every_finding_comes_with_advice_and_a_source():
    model = mlp(nn.Sigmoid, depth=12)
    for finding in run(model, optimizer=torch.optim.SGD(model.parameters(), lr=50.0)).findings:
        assert finding.advice.strip().endswith(".")
        assert finding.source


def test_of_gradients_that_vanish_the_one_furthest_from_the_loss_is_named_though_another_is_smaller():
    rows = grid("param_grad", "absmax", [[4e-8] * 20, [1e-8] * 20, [1.0] * 20], list(WEIGHTS))
    (found,) = RULES["vanishing"](history(rows=rows, parameters=WEIGHTS))
    assert (found.name, found.value) == ("0.weight", pytest.approx(1e-8))
    assert "and 1 more, the least that of 2.weight" in found.message
    rows = grid("param_grad", "absmax", [[1.0] * 5 + [4e-8] * 15, [1.0] * 20, [1.0] * 20], list(WEIGHTS))
    assert list(RULES["vanishing"](history(rows=rows, parameters=WEIGHTS))) == []  # not for long enough


def test_what_a_norm_follows_may_begin_at_any_scale():
    names = [f"{i}.{part}" for i in range(6) for part in ("conv", "norm")]
    rows = grid("output", "std", [[10.0 ** -(i // 2)] if i % 2 == 0 else [1.0] for i in range(12)], names)
    for norm, count in (("BatchNorm2d", 0), ("ReLU", 1)):
        modules = {name: "Conv2d" if name.endswith("conv") else norm for name in names}
        assert len(list(RULES["poor_initialisation"](history(rows=rows, modules=modules)))) == count


def test_layers_that_begin_at_zero_and_leave_it_are_well_initialised_and_those_that_stay_are_not():
    modules = {str(i): "Linear" for i in range(4)}

    def told(size):
        rows = grid("output", "absmax", [[1.0] * 3, [0.0, size, size], [0.0, size, size], [1.0] * 3])
        rows += grid("output", "std", [[0.5] * 3, [0.0, size, size], [0.0, size, size], [0.5] * 3])
        return [f.name for f in RULES["poor_initialisation"](history(rows=rows, modules=modules))]

    assert told(1e-6) == []
    assert told(0.0) == ["1"]


def test_scales_and_tables_of_positions_are_no_weights_and_a_linear_layer_of_one_unit_is():
    def told(parameters):
        rows = grid("update", "ratio", [[1e-3, 3.0, 1e-3]] * len(parameters), list(parameters))
        made = history(rows=rows, parameters=parameters, modules={"head": "Linear", "tokens": "Embedding"})
        return [f.message.split(" changes ")[1].split(" by ")[0] for f in RULES["update_ratio"](made)]

    tables = {"block.layer_scale": [24, 1, 1], "places": [10, 8], "tokens.weight": [50, 8]}
    assert told({**tables, "head.weight": [1, 8], "body.weight_hh_l0": [8, 8]}) == ["head.weight (and 1 more)"]
    assert told({**tables, "inner": [8, 8], "outer": [8, 8]}) == ["places (and 2 more)"]


def test_a_schedule_that_ends_at_zero_is_no_too_low_rate_and_one_that_has_long_been_there_is():
    def told(low_from):
        ratios = [[1e-8 if step >= low_from else 1e-3 for step in range(1, 101)]] * 3
        rows = grid("update", "ratio", ratios, list(WEIGHTS))
        return [f.step for f in RULES["update_ratio"](history(rows=rows, parameters=WEIGHTS))]

    assert told(90) == []
    assert told(60) == [60]
    assert told(1) == [11]


def test_what_is_left_out_of_the_optimizer_is_told_at_once_and_not_module_by_module():
    model = mlp(depth=3)
    (finding,) = [f for f in run(model, optimizer=torch.optim.Adam(model[6].parameters())).findings if f.rule == "frozen"]
    assert finding.name == "0.weight"
    assert "0.weight (and 2 more: 2.weight, 4.weight) requires a gradient" in finding.message


def test_peaks_of_a_few_hard_samples_are_no_explosion():
    late = [0.1, 0.2, 3.0, 0.1, 0.15] * 20
    burst = [3.1, 0.5, 2.3, 3.5, 0.9]
    assert list(RULES["exploding"](history(watch={"grad_norm": late + burst}))) == []
    assert len(list(RULES["exploding"](history(watch={"grad_norm": late + [10 * n for n in burst]})))) == 1


def test_a_loss_that_jumps_and_stays_is_a_spike_where_a_single_value_like_it_is_none():
    noisy = [0.05, 0.5, 0.1, 0.2, 0.08, 0.3] * 12
    assert list(RULES["loss_spike"](history({"loss": [*noisy, 2.3, 0.1, 0.2]}))) == []
    (found,) = RULES["loss_spike"](history({"loss": [*noisy, *[2.3] * 10]}))
    assert found.step == 73
    assert "stays there" in found.message


def test_a_loss_that_has_had_such_peaks_before_has_no_spike():
    low = [0.002 * (1 + 0.5 * (-1) ** i) for i in range(60)]
    low[15] = 0.1
    assert list(RULES["loss_spike"](history({"loss": [*low, *low[16:], 0.06]}))) == []  # long ago
    assert list(RULES["loss_spike"](history({"loss": [*low, 0.37]}))) == []
    assert len(list(RULES["loss_spike"](history({"loss": [*low, 3.7]})))) == 1


def test_gradients_that_nobody_applied_are_an_overflow_only_in_float16():
    rows = grid("output", "subnormal", [[0.0] * 120])
    for given, count in ((rows, 1), ([], 0)):
        thrown = history(watch={"grad_norm": [1.0] * 120, "skipped": [1.0] * 120}, rows=given)
        assert len(list(RULES["skipped"](thrown))) == count


def spikes_one_by_one(values):
    """``loss_spike`` as its text says it, asking at every place."""
    for i in range(max(len(values) - 32, 20), len(values)):
        recent, after = values[max(i - 50, 0) : i], values[i : i + gradients._STAYS]
        highest = float(recent.max() + 0.25 * abs(recent.max()))
        if np.isfinite(values[i]) and values[i] > highest:
            stays = len(after) == gradients._STAYS and bool((after > highest).all())
            limit = highest if stays else gradients._usual_range(values[max(i - 200, 0) : i])
            if values[i] > limit:
                return i, limit
    return None


def test_loss_spikes_are_found_where_asking_at_every_place_finds_them():
    generator = np.random.default_rng(0)
    found = []
    for trial in range(400):
        values = generator.normal(size=generator.integers(25, 120)) * 0.1 + generator.choice([-3.0, 0.0, 0.1, 2.0])
        values = np.exp(values * 3) if trial % 3 == 0 else values
        at = generator.integers(0, len(values), 2)
        values[at] = generator.choice([np.nan, np.inf, 5.0, 50.0, -1.0], 2)
        values[at[0] :] += 3.0 * (trial % 5 == 0)
        history = History(scalars={"loss": (np.arange(len(values)), values)})
        with np.errstate(all="ignore"):
            told, true = list(gradients.loss_spike(history)), spikes_one_by_one(values)
        assert [(f.step, f.threshold) for f in told] == ([] if true is None else [true])
        found.append(true is not None)
    assert 40 < sum(found) < 360
