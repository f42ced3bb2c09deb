"""Where a record comes from: the model's class, a checksum of its parameters, the seed and the versions."""

from __future__ import annotations

import hashlib
import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def provenance(model: nn.Module, *, seed: int | None = None) -> dict[str, Any]:
    """Plain data that lets a reader a year later see whether a record belongs to the model at hand."""
    from inspector import __version__

    versions = {"inspector": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {"class": type(model).__qualname__, "checksum": checksum(model), "seed": seed, "versions": versions}


def checksum(model: nn.Module) -> str:
    """16 hex digits over the names, shapes and values of all parameters and buffers; meta tensors by name and shape."""
    total = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        total.update(f"{name} {_shape(tensor)} {tensor.dtype}".encode())
        total.update(_bytes(tensor))
    return total.hexdigest()[:16]


def _shape(tensor: Tensor) -> str:
    lazy = is_lazy(tensor)
    return "uninitialized" if lazy else str(tuple(tensor.shape))


def _bytes(tensor: Tensor) -> bytes:
    if tensor.is_meta or is_lazy(tensor) or not tensor.numel():
        return b""
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    return dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
