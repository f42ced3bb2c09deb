"""What of a tensor there is to reduce: its real numbers, in any order."""

from __future__ import annotations

import torch
from torch import Tensor

_PLAIN = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
OWN = (Tensor, torch.nn.Parameter)


def flat(tensor: Tensor) -> Tensor | None:
    """The elements in any order as a flat tensor without a graph; None for what has no real numbers to reduce.

    Of a sharded tensor the local part; of a sparse gradient the stored values; of complex numbers the magnitudes.
    """
    if is_plain(tensor) and tensor.is_contiguous() and tensor.numel():
        return tensor.detach().view(-1)
    return _awkward(local(tensor.detach()))


def is_plain(tensor: Tensor) -> bool:
    """Real numbers that are there, in the usual layout, of no subclass that may mean something else."""
    usual = type(tensor) in OWN and tensor.dtype in _PLAIN and tensor.layout is torch.strided
    return usual and not (tensor.is_nested or tensor.is_meta)


def _awkward(tensor: Tensor) -> Tensor | None:
    if tensor.layout != torch.strided:
        if tensor.layout != torch.sparse_coo:
            return None
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = tensor.abs()
    if not tensor.is_floating_point() or tensor.is_meta or tensor.is_nested or not tensor.numel():
        return None
    if tensor.is_contiguous():
        return tensor.view(-1)
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor.permute(0, 2, 3, 1).reshape(-1)
    return tensor.reshape(-1)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
