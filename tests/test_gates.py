"""Gates of LSTM and GRU against the recurrence written out step by step, from the formulas in PyTorch's documentation."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from inspector.hooks import capture, edit, live
from inspector.hooks.gates import gates_of

NAMES = {"LSTM": ["input", "forget", "cell", "output", "state"], "GRU": ["reset", "update", "new"]}


def close(actual, expected, within=1e-6):
    torch.testing.assert_close(actual, expected, rtol=0, atol=within, equal_nan=True)


def cell(rnn, suffix, x, h, c):
    """One step of one sequence in float64: gates, hidden and cell state."""
    wide = {n.removesuffix(suffix): p.detach().double() for n, p in rnn.named_parameters() if n.endswith(suffix)}
    from_x = wide["weight_ih"] @ x + wide.get("bias_ih", 0)
    from_h = wide["weight_hh"] @ h + wide.get("bias_hh", 0)
    if isinstance(rnn, (nn.GRU, nn.GRUCell)):
        (r, z, n), (rh, zh, nh) = from_x.chunk(3), from_h.chunk(3)
        r, z = (r + rh).sigmoid(), (z + zh).sigmoid()
        n = (n + r * nh).tanh()
        return {"reset": r, "update": z, "new": n}, (1 - z) * n + z * h, c
    i, f, g, o = (from_x + from_h).chunk(4)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    h = o * c.tanh()
    h = wide["weight_hr"] @ h if "weight_hr" in wide else h
    return {"input": i, "forget": f, "cell": g, "output": o, "state": c}, h, c


def recurrence(rnn, x, h, c):
    """Gates of one sequence (time, features), each (layers x directions, time, hidden), and the last layer's output."""
    gates, below = [], x.double()
    for layer in range(rnn.num_layers):
        made = []
        for direction in range(1 + rnn.bidirectional):
            suffix, k = f"_l{layer}{'_reverse' * direction}", len(gates)
            hidden, state, steps, outputs = h[k].double(), c[k].double(), [], []
            for step in below.flip(0) if direction else below:
                seen, hidden, state = cell(rnn, suffix, step, hidden, state)
                steps.append(seen)
                outputs.append(hidden)
            turn = (lambda v: v.flip(0)) if direction else (lambda v: v)
            gates.append({name: turn(torch.stack([step[name] for step in steps])) for name in steps[0]})
            made.append(turn(torch.stack(outputs)))
        below = torch.cat(made, 1)
    return {name: torch.stack([g[name] for g in gates]).float() for name in gates[0]}, below.float()


def states(rnn, batch, first):
    """Initial states: zeros, or random ones."""
    count = rnn.num_layers * (1 + rnn.bidirectional)
    make = torch.randn if first else torch.zeros
    return make(count, batch, getattr(rnn, "proj_size", 0) or rnn.hidden_size), make(count, batch, rnn.hidden_size)


def given(rnn, h, c):
    return (h, c) if isinstance(rnn, nn.LSTM) else h


SHAPES = {
    "plain": {},
    "deep": {"num_layers": 3},
    "both ways": {"bidirectional": True},
    "deep both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False, "num_layers": 2},
    "projected": {"proj_size": 2, "num_layers": 2, "bidirectional": True},
}
FAMILY = [(kind, shape) for kind in (nn.LSTM, nn.GRU) for shape in SHAPES if kind is nn.LSTM or shape != "projected"]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("kind", "shape"), FAMILY)
def test_gates_are_those_of_the_recurrence(kind, shape, first, batch_first):
    torch.manual_seed(0)
    rnn = kind(3, 4, batch_first=batch_first, **SHAPES[shape])
    x, (h, c) = torch.randn(2, 6, 3), states(rnn, 2, first)
    with capture(rnn, what=("output", "gates")) as store:
        rnn(x if batch_first else x.transpose(0, 1), *([given(rnn, h, c)] if first else []))
    gates = store[""].gates
    assert list(gates) == NAMES[kind.__name__]
    for b in range(2):
        expected, output = recurrence(rnn, x[b], h[:, b], c[:, b])
        close(store.at(":output[0]")[b if batch_first else (slice(None), b)], output)
        for name, gate in gates.items():
            assert gate.shape == (len(h), 2, 6, 4)
            assert not gate.requires_grad
            close(gate[:, b], expected[name])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize(("kind", "shape"), FAMILY)
def test_gates_of_packed_sequences_come_in_the_callers_order_and_are_nan_beyond_the_end(kind, shape, in_order):
    torch.manual_seed(0)
    rnn = kind(3, 4, **SHAPES[shape])
    lengths = [5, 3, 2] if in_order else [2, 5, 3]
    sequences, (h, c) = [torch.randn(length, 3) for length in lengths], states(rnn, 3, True)
    with capture(rnn, what="gates") as store:
        rnn(pack_sequence(sequences, enforce_sorted=in_order), given(rnn, h, c))
    for name, gate in store[""].gates.items():
        assert gate.shape == (len(h), 3, 5, 4)
        for b, length in enumerate(lengths):
            close(gate[:, b, :length], recurrence(rnn, sequences[b], h[:, b], c[:, b])[0][name])
            assert gate[:, b, length:].isnan().all()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_an_unbatched_sequence_has_no_batch_axis(kind):
    rnn, x = kind(3, 4, 2, batch_first=True), torch.randn(6, 3)
    with capture(rnn, what="gates") as store:
        rnn(x)
    h, c = states(rnn, 1, False)
    expected = recurrence(rnn, x, h[:, 0], c[:, 0])[0]
    for name, gate in store[""].gates.items():
        close(gate, expected[name])


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("first", [False, True])
def test_a_cell_is_one_layer_and_one_step(kind, batch, first):
    step = kind(3, 4)
    x, h, c = torch.randn(*batch, 3), torch.randn(*batch, 4) * first, torch.randn(*batch, 4) * first
    with capture(step, what="gates") as store:
        step(x, *([(h, c) if kind is nn.LSTMCell else h] if first else []))
    for name, gate in store[""].gates.items():
        assert gate.shape == (1, *batch, 1, 4)
        for b in range(2) if batch else [slice(None)]:
            expected = cell(step, "", x[b].double(), h[b].double(), c[b].double())[0]
            close(gate[:, b, 0] if batch else gate[:, 0], expected[name].float()[None])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_dropout_between_layers_is_drawn_again_and_leaves_the_random_stream_alone(kind, both_ways, packed):
    torch.manual_seed(0)
    rnn = kind(3, 4, 3, dropout=0.4, bidirectional=both_ways)
    x = pack_sequence([torch.randn(n, 3) for n in (5, 3)]) if packed else torch.randn(5, 2, 3)
    torch.manual_seed(1)
    plain, after = rnn(x)[0], torch.get_rng_state()
    torch.manual_seed(1)
    with capture(rnn, what=("output", "gates")) as store:
        rnn(x)
    assert torch.equal(torch.get_rng_state(), after)
    output = store[""].output[0]
    assert all(torch.equal(a, b) for a, b in zip(output, plain, strict=True) if isinstance(a, torch.Tensor))
    assert store[""].gates is not None, "checked against the output, which only the same noise explains"
    dry = copy.deepcopy(rnn).eval()
    with capture(dry, what="gates") as eval_store:
        dry(x)
    for name, gate in store[""].gates.items():
        first, other = eval_store[""].gates[name][: 1 + both_ways], gate[: 1 + both_ways]
        close(other, first)
        assert not torch.allclose(gate.nan_to_num(), eval_store[""].gates[name].nan_to_num())


def test_dropout_that_cannot_be_drawn_again_is_said():
    rnn, x = nn.GRU(3, 4, 2, dropout=0.5), torch.randn(5, 2, 3)
    with pytest.raises(LookupError, match="use eval mode"):
        gates_of(rnn, ((x,), {}), rnn(x))
    with pytest.raises(LookupError, match="cannot be repeated"):
        gates_of(rnn, ((x,), {}), rnn(x), torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_keep_their_type(dtype):
    rnn, x = nn.LSTM(3, 4, 2).to(dtype), torch.randn(6, 2, 3, dtype=dtype)
    with capture(rnn, what="gates") as store:
        rnn(x)
    h, c = states(rnn, 2, False)
    expected = recurrence(rnn, x[:, 0], h[:, 0], c[:, 0])[0]
    for name, gate in store[""].gates.items():
        assert gate.dtype == dtype
        close(gate[:, 0].float(), expected[name], 1e-6 if dtype is torch.float64 else 2e-2)


def test_a_gru_under_autocast_and_an_lstm_in_inference_mode_have_their_gates():
    with torch.autocast("cpu", torch.bfloat16), capture(rnn := nn.GRU(3, 4), what="gates") as store:
        rnn(torch.randn(6, 2, 3))
    assert store[""].gates is not None, store[""].why
    with torch.inference_mode(), capture(rnn := nn.LSTM(3, 4), what="gates") as store:
        rnn(torch.randn(6, 2, 3))
    assert store[""].gates is not None, store[""].why


def test_nan_and_inf_flow_through():
    rnn, x = nn.LSTM(3, 4), torch.randn(6, 2, 3)
    x[3, 1] = float("nan")
    with capture(rnn, what="gates") as store:
        rnn(x)
    forget = store[""].gates["forget"]
    assert not forget[:, 0].isnan().any()
    assert forget[:, 1, 3:].isnan().all()


def test_weight_norm_on_a_recurrent_weight_is_followed():
    torch.manual_seed(0)
    rnn, x = nn.LSTM(3, 4), torch.randn(6, 2, 3)
    nn.utils.parametrizations.weight_norm(rnn, "weight_hh_l0")
    with torch.no_grad():
        rnn.parametrizations.weight_hh_l0.original0.mul_(2)
    with capture(rnn, "", what="gates") as store:
        rnn(x)
    assert store[""].gates is not None, store[""].why


def test_what_has_no_gates_says_why():
    class Own(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0]

    def reason(module, x=None):
        with capture(module, "", what="gates") as store:
            module(torch.randn(5, 2, 3) if x is None else x)
        assert store[""].gates is None
        return store[""].why["gates"]

    assert "only nn.LSTM" in reason(nn.Linear(3, 3))
    assert "Elman" in reason(nn.RNN(3, 4))
    assert "forward of its own" in reason(Own(3, 4))


def test_gates_that_do_not_explain_the_output_are_refused():
    rnn = nn.LSTM(3, 4)
    with edit(rnn, {":output[0]": lambda value: value * 1.01}), capture(rnn, what="gates") as store:
        rnn(torch.randn(5, 2, 3))
    assert store[""].gates is None
    assert "away from what its gates would give" in store[""].why["gates"]
    rnn.register_forward_hook(lambda *_: "not a tuple")
    with capture(rnn, what="gates") as store:
        rnn(torch.randn(5, 2, 3))
    assert "could not be recomputed" in store[""].why["gates"]


def test_gates_of_a_loop_of_calls_and_of_changed_weights_are_each_calls_own():
    rnn, x = nn.GRU(3, 4), torch.randn(5, 2, 3)
    with capture(rnn, keep=live, what="gates") as store:
        rnn(x)
        with torch.no_grad():
            rnn.weight_hh_l0.mul_(0.5)
        rnn(x)
    first, second = (store[f"@{i}"].gates["reset"] for i in range(2))
    close(first[:, :, 0], second[:, :, 0])
    assert not torch.equal(first, second)


def test_empty_batches_and_meta_tensors_pass():
    with capture(rnn := nn.LSTM(3, 4), what="gates") as store:
        rnn(torch.randn(5, 0, 3))
    assert store[""].why or store[""].gates["input"].shape == (1, 0, 5, 4)
    with capture(rnn := nn.LSTM(3, 4, device="meta"), what="gates") as store:
        rnn(torch.randn(5, 2, 3, device="meta"))
    assert store[""].gates["input"].shape == (1, 2, 5, 4)


def test_a_store_of_facets_survives_the_disk(tmp_path):
    rnn = nn.LSTM(3, 4)
    with capture(rnn, what="gates") as store:
        rnn(PackedSequence(torch.randn(4, 3), torch.tensor([2, 2])))
    store.save(tmp_path / "gates")
    loaded = type(store).load(tmp_path / "gates")
    close(loaded.at(":gates[forget]"), store.at(":gates[forget]"))
