"""The compiled reductions of the monitor answer what torch and numpy answer; what they cannot read never reaches them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from inspector import Monitor
from inspector.monitor import one_pass, samples, steady, watch
from inspector.monitor.measure import Measure
from inspector.monitor.merge import LEAN, _merge, layout_of, merge
from inspector.monitor.one_pass import ONE_PASS, is_dense
from inspector.monitor.table import Table
from inspector.records.history import LOG2_BINS

compiled = pytest.mark.skipif(ONE_PASS is None, reason="the package was installed without a C compiler")
CPU = torch.device("cpu")


def statistics(tensor):
    """What the monitor says of one tensor, by the name of the statistic; absent ones are left out."""
    measured = Measure()
    measured.put("output", "x", tensor)
    (ticket,) = measured.flush(1).tickets.values()
    merged = merge(ticket)
    return {name: v for name, v, there in zip(LEAN, merged.values[0], merged.present[0], strict=True) if there}


def true_statistics(tensor):
    x = tensor.detach().double().reshape(-1).numpy()
    with np.errstate(all="ignore"):
        most = np.abs(x).max()
        return {
            "n": x.size, "mean": x.mean(), "rms": np.sqrt((x**2).mean()), "std": x.std(), "min": x.min(), "max": x.max(),
            "absmax": most, "nan": float(np.isnan(x).any()), "inf": float(np.isinf(most)),
        }  # fmt: skip


def agree(found, true, tolerance=2e-6):
    scale = true["rms"] if np.isfinite(true["rms"]) else 1.0
    for name in ("n", "min", "max", "absmax", "nan", "inf"):
        assert found[name] == true[name] or (np.isnan(found[name]) and np.isnan(true[name])), name
    for name in ("mean", "rms", "std"):
        if name in found and np.isfinite(true[name]):
            assert abs(found[name] - true[name]) <= tolerance * scale, name


@compiled
@given(st.integers(1, 20_000), st.floats(-100, 100), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_one_pass_gives_the_statistics_of_any_number_of_elements(n, mean, spread, seed):
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed)) * spread + mean
    assert is_dense(x)
    agree(statistics(x), true_statistics(x))


@compiled
@pytest.mark.parametrize("n", [1, 5, 64, 65, 8192, 8200, 100_000])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_pass_sees_what_is_no_number_wherever_it_stands(n, bad):
    for at in {0, n // 2, n - 1}:
        x = torch.randn(n)
        x[at] = bad
        found = statistics(x)
        assert found["nan"] == np.isnan(bad)
        assert found["inf"] == np.isinf(bad)
        agree(found, true_statistics(x))


@compiled
def test_one_pass_sees_a_nan_beside_infinities_of_both_signs():
    x = torch.zeros(1000)
    x[10], x[500] = float("inf"), -float("inf")
    assert statistics(x)["inf"] == 1.0
    assert statistics(x)["nan"] == 0.0
    x[700] = float("nan")
    assert statistics(x)["nan"] == 1.0


@compiled
def test_one_pass_keeps_a_small_spread_beside_a_large_mean_and_says_nothing_of_squares_that_overflow():
    assert abs(statistics(1e4 + torch.randn(50_000))["std"] - 1.0) < 0.02
    assert "rms" not in statistics(torch.randn(1000) * 1e25)
    assert statistics(torch.full((777,), 3.25))["std"] == 0.0


@compiled
def test_the_norm_of_all_gradients_holds_where_float_squares_do_not():
    for scale in (1e-25, 1.0, 1e25):
        values = [torch.randn(n) * scale for n in (1, 63, 64, 9000)]
        true = np.sqrt(sum((v.double() ** 2).sum().item() for v in values))
        assert watch.total_norm(values).item() == pytest.approx(true, rel=1e-5)
    assert np.isnan(watch.total_norm([torch.ones(5), torch.tensor([1.0, float("nan")])]).item())
    assert np.isinf(watch.total_norm([torch.ones(100), torch.full((70,), float("inf"))]).item())


def strange():
    """Values whose memory is not what they say, or is not there."""
    x = torch.randn(4, 6)
    negative = torch.view_as_complex(torch.randn(12, 2)).conj().imag
    assert negative.is_neg()
    return {
        "a transposed view": x.t(),
        "an expanded view": torch.randn(1, 6).expand(4, 6),
        "every other element": torch.randn(40)[::2],
        "the imaginary part of a conjugate": negative,
        "half precision": x.half(),
        "double precision": x.double(),
        "complex numbers": torch.randn(6, dtype=torch.complex64),
        "a sparse tensor": x.to_sparse(),
    }


@pytest.mark.parametrize("what", strange())
def test_what_does_not_lie_in_memory_as_it_reads_is_reduced_by_torch(what):
    x = strange()[what]
    assert not is_dense(x)
    true = x.coalesce().values() if x.is_sparse else x.abs() if x.is_complex() else x
    agree(statistics(x), true_statistics(true))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_has_no_numbers_is_not_read():
    class Own(torch.Tensor):
        pass

    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    for nothing in (torch.empty(0), torch.empty(3, device="meta"), torch.ones(3).as_subclass(Own), nested,
                    torch._efficientzerotensor(3), torch.ones(3, dtype=torch.int64)):  # fmt: skip
        assert not is_dense(nothing)


@compiled
def test_images_with_channels_last_are_read_in_the_order_of_their_memory():
    x = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last)
    assert is_dense(x)
    agree(statistics(x), true_statistics(x))


@compiled
def test_the_merged_statistics_of_several_parts_are_those_of_numpy():
    measured = Table(CPU)
    parts = [torch.randn(n) * 10**i + i for i, n in enumerate((100, 3, 2048, 70, 1))]
    for row, part in zip((2, 0, 2, 0, 5), parts, strict=True):
        measured.write_dense(row, part)
    ticket = measured.flush()
    layout = layout_of(ticket.entries)
    true = _merge(layout, ticket.numbers.numpy()[layout.slots].astype(np.float64)).values
    same = steady.Steady()
    at = np.arange(true.size)
    same.learn([ticket], at, true[:, 0] * [1, 0, 1])
    found_at, values, norm = same.statistics([ticket])
    assert found_at is at
    np.testing.assert_allclose(values.reshape(true.shape), true, rtol=3e-7, atol=1e-7)
    assert norm == pytest.approx(np.sqrt((true[[0, 2], 0] * true[[0, 2], 2] ** 2).sum()))


@compiled
def test_a_step_that_is_not_like_the_last_is_looked_up():
    def ticket(*tensors):
        measured = Table(CPU)
        for row, tensor in enumerate(tensors):
            measured.write_dense(row, tensor)
        return measured.flush()

    same = steady.Steady()
    same.learn([ticket(torch.ones(4), torch.ones(5))], np.arange(18), None)
    assert same.statistics([ticket(torch.ones(4), torch.zeros(5))]) is not None
    assert same.statistics([ticket(torch.ones(4))]) is None
    assert same.statistics([ticket(torch.ones(4), torch.ones(6))]) is None
    assert same.statistics([ticket(torch.ones(4), torch.full((5,), float("nan")))]) is None
    assert same.statistics([ticket(torch.ones(4), torch.full((5,), float("inf")))]) is None
    assert same.statistics([ticket(torch.ones(4), torch.full((5,), 1e-30))]) is None  # squares that underflow


@compiled
def test_the_histogram_of_a_sample_is_the_one_that_numpy_counts(reduce_by_torch):
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-38, 1.0, -2.0, 3e38, float("inf"), float("nan"), -float("inf")])
    values = torch.stack([special.repeat(100), torch.randn(1000) * 10.0 ** torch.randint(-30, 30, (1000,))]).numpy()
    taken = np.array([1000, 123])
    lines = np.array([1, 0])
    found = samples._count(values, lines, taken)
    reduce_by_torch()
    np.testing.assert_array_equal(found, samples._count(values, lines, taken))
    np.testing.assert_array_equal(found[1], samples._count(values[:1], np.array([0]), taken[1:])[0])
    assert found.shape == (2, len(LOG2_BINS))
    assert found.sum(axis=1).tolist() == taken.tolist()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Tanh())
        self.head = nn.Linear(8 * 16, 3)

    def forward(self, x):
        h = self.body(x)
        return self.head((h + h.roll(1, 0)).flatten(1))


def history(steps=25, batch=16):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    with Monitor(model, every=1, what=("output", "grad", "param_grad", "update", "param")) as monitor:
        for step in range(steps):
            x = torch.randn(batch - step % 3, 1, 8, 8)
            loss = F.cross_entropy(model(x), torch.randint(3, (len(x),)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            monitor.log(loss=loss)
    return monitor.history


@compiled
def test_a_whole_run_reads_the_same_with_the_compiled_pass_and_with_torch(reduce_by_torch):
    ours = history()
    reduce_by_torch()
    torch_s = history()
    assert ours.stats.series == torch_s.stats.series
    np.testing.assert_array_equal(ours.stats.present, torch_s.stats.present)
    there = ours.stats.present
    np.testing.assert_allclose(ours.stats.cells[there], torch_s.stats.cells[there], rtol=1e-4, atol=1e-6)
    assert ours.watch["grad_norm"][0].tolist() == torch_s.watch["grad_norm"][0].tolist()
    np.testing.assert_allclose(ours.watch["grad_norm"][1], torch_s.watch["grad_norm"][1], rtol=1e-5)
    for kind, names in ours.histograms.items():
        for name, (steps, counts) in names.items():
            np.testing.assert_array_equal(counts, torch_s.histograms[kind][name][1])
            np.testing.assert_array_equal(steps, torch_s.histograms[kind][name][0])


def test_a_library_of_another_machine_or_version_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "_one_pass.so").write_bytes(b"no library")
    monkeypatch.setattr(one_pass, "__file__", str(tmp_path / "one_pass.py"))
    monkeypatch.setattr(one_pass, "EXTENSION_SUFFIXES", [".so"])
    assert one_pass._load() is None
    monkeypatch.setattr(one_pass, "EXTENSION_SUFFIXES", [".pyd"])
    assert one_pass._load() is None
    monkeypatch.setattr(one_pass.ctypes, "CDLL", lambda path: object())
    monkeypatch.setattr(one_pass, "EXTENSION_SUFFIXES", [".so"])
    assert one_pass._load() is None
