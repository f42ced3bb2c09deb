"""Two processes and one: the merged statistics are those of a single process on the whole batch."""

import os
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from inspector import History, Monitor

pytestmark = pytest.mark.slow


class Gated(nn.Module):
    """The branch runs only where the rank is asked to."""

    def __init__(self):
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.use = True

    def forward(self, x):
        h = self.first(x).tanh()
        return self.head(self.branch(h) if self.use else h)


def batches(steps=5):
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)) for _ in range(steps)]


def build():
    torch.manual_seed(0)
    return Gated()


def train(model, folder, rank, world, bad=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, every=2, to=folder, what=("output", "grad", "param", "param_grad")) as monitor:
        for step, (x, y) in enumerate(batches(), 1):
            part = slice(rank * 8 // world, (rank + 1) * 8 // world)
            x = x[part] / 0 if bad == (rank, step) else x[part]
            optimizer.zero_grad()
            F.cross_entropy(model(x), y[part]).backward()
            optimizer.step()
            monitor.log(step=step)


def worker(rank, port, kind, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = build()
    if kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for layer in (model.first, model.branch, model.head):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif kind == "uneven":
        model.use = rank == 1
    if kind in ("ddp", "uneven", "nan"):
        model = nn.parallel.DistributedDataParallel(model, find_unused_parameters=kind == "uneven")
    train(model, folder, rank, 2, bad=(1, 2) if kind == "nan" else None)
    dist.destroy_process_group()


def spawn(kind, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (port, kind, str(folder)), nprocs=2)
    return History.load(folder)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_ranks_measure_what_one_process_measures_on_the_whole_batch(tmp_path, kind):
    train(build(), tmp_path / "one", 0, 1)
    one, two = History.load(tmp_path / "one").stats, spawn(kind, tmp_path / "two").stats
    for of, statistics in {
        "output": ("n", "mean", "rms", "std", "min", "max"),
        "param": ("n", "mean", "rms", "min", "max"),
        "param_grad": ("n", "mean", "rms", "std", "absmax"),
        "grad": ("n", "mean", "rms"),
    }.items():
        for name in one.where(kind=of).unique("name"):
            for statistic in statistics:
                (steps, true), (same, merged) = one.line(of, name, statistic), two.line(of, name, statistic)
                assert steps.tolist() == same.tolist()
                np.testing.assert_allclose(merged, true, rtol=1e-4, atol=1e-6, err_msg=f"{of} {name} {statistic}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_a_rank_that_did_not_run_a_layer_joins_all_the_same(tmp_path):
    history = spawn("uneven", tmp_path / "two")
    assert history.stats.line("output", "branch", "n")[1].tolist() == [4 * 8] * 3
    assert history.stats.line("output", "first", "n")[1].tolist() == [8 * 8] * 3


def test_the_rank_that_has_the_nan_is_named(tmp_path):
    history = spawn("nan", tmp_path / "two")
    assert history.stats.where(kind="output", name="first", statistic="rank", step=2)["value"].item() == 1
    assert [f.rule for f in history.findings] == ["nan"]
