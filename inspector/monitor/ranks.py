"""Several processes train one model: what they measured is merged by one packed collective for each logged step.

It runs between the hosts (gloo), so that it cannot stall the devices, and at a place in the loop that depends on step
numbers only: a rank that did not run a layer joins all the same, and nobody waits for one that never comes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from inspector.monitor.arrival import Array
from inspector.monitor.merge import LEAN

_KEY, _N, _MEAN, _VARIANCE, _LOW, _HIGH, _BORN, _SHARDED = range(8)
_OF_DATA = ("output", "grad")  # each rank sees its own part of the batch; parameters are copies, or shards


def several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Ranks:
    """All ranks make one together, when the monitor starts. ``interval``: what rank 0 wants, the same on all."""

    def __init__(self, modules: int, parameters: int) -> None:
        self.group = dist.new_group(backend="gloo")
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.capacity = 8 * modules + 8 * parameters + 2
        self.interval = 0

    def gather(self, packed: Array) -> list[Array]:
        """Every rank's rows, from this rank's (rows, 8)."""
        mine = torch.zeros(self.capacity, 8, dtype=torch.float64)
        taken = min(len(packed), self.capacity - 1)
        mine[0, 0], mine[0, 1] = taken, self.interval
        mine[1 : taken + 1] = torch.from_numpy(packed[:taken])
        everyone = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(everyone, mine, group=self.group)  # type: ignore[arg-type]  # NON_GROUP_MEMBER is no answer here
        self.interval = int(everyone[0].numpy()[0, 1])
        return [one.numpy()[1 : int(one.numpy()[0, 0]) + 1] for one in everyone]


def key(kind: str, name: str) -> float:
    """52 bits of a hash, which a float64 holds exactly: the same name on all ranks, whatever its number there."""
    return float(int.from_bytes(hashlib.blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest()) >> 12)


def pack(rows: Array, values: Array, born: dict[int, float], names: list[tuple[str, str]], sharded: set[int]) -> Array:
    """This rank's rows as the collective sends them."""
    packed = np.zeros((len(rows), 8))
    if len(rows):
        packed[:, _KEY] = [key(*names[row]) for row in rows.tolist()]
        packed[:, _N : _VARIANCE + 1] = values[:, [LEAN.index(s) for s in ("n", "mean", "std")]]
        packed[:, _VARIANCE] **= 2
        packed[:, [_LOW, _HIGH]] = values[:, [LEAN.index(s) for s in ("min", "max")]]
        packed[:, _BORN] = [born.get(row, -1.0) for row in rows.tolist()]
        packed[:, _SHARDED] = [row in sharded for row in rows.tolist()]
    return packed


def merge_row(parts: list[tuple[int, Array]], kind: str, world: int) -> tuple[Array, float, int]:
    """One row of all ranks as LEAN values, where it was born (-1: nowhere), and the rank of the extreme."""
    if kind not in _OF_DATA and not any(part[_SHARDED] for _, part in parts):
        parts = parts[:1] + [p for p in parts[1:] if not np.isfinite(p[1][_HIGH])]  # copies: one, and any that differs
    ranks, table = [rank for rank, _ in parts], np.stack([part for _, part in parts])
    n = table[:, _N]
    mean = float((n * table[:, _MEAN]).sum() / n.sum())
    variance = float((n * (table[:, _VARIANCE] + (table[:, _MEAN] - mean) ** 2)).sum() / n.sum())
    low, high = float(table[:, _LOW].min()), float(table[:, _HIGH].max())
    if kind == "grad":  # of the mean over the whole batch, as the averaged gradients of the parameters are
        mean, variance, low, high = mean / world, variance / world**2, low / world, high / world
    extremes = np.maximum(np.abs(table[:, _LOW]), np.abs(table[:, _HIGH]))
    absmax = float(extremes.max()) / (world if kind == "grad" else 1)
    worst = int(np.argmax(np.where(np.isnan(extremes), np.inf, extremes)))
    nan, inf = float(np.isnan(absmax)), float(np.isinf(absmax))
    values = [n.sum(), mean, np.sqrt(variance + mean**2), np.sqrt(variance), low, high, absmax, nan, inf]
    return np.array(values), float(table[:, _BORN].max()), ranks[worst]


def is_sharded(tensor: Any) -> bool:
    return any(placement.is_shard() for placement in getattr(tensor, "placements", ()))
