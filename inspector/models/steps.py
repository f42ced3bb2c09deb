"""What sequence models need to know about padding: which step is the last valid one, and how to average valid steps."""

from __future__ import annotations

import torch
from torch import Tensor


def check(steps: Tensor, valid: Tensor | None) -> None:
    """Raise ValueError unless ``steps`` are (batch, time, features) and ``valid``, if given, is a bool mask (batch, time)
    of some True steps, then only False ones."""
    if steps.dim() != 3:
        raise ValueError(f"inputs must be (batch, time, features), not {tuple(steps.shape)}; one sequence is a batch of 1")
    if valid is None:
        return
    if valid.shape != steps.shape[:2] or valid.dtype != torch.bool:
        given, wanted = f"{valid.dtype} {tuple(valid.shape)}", tuple(steps.shape[:2])
        raise ValueError(f"valid must be a bool mask of shape {wanted} (batch, time), not {given}")
    if bool((valid[:, 1:] & ~valid[:, :-1]).any()) or not bool(valid[:, :1].all()):
        raise ValueError("valid must be True from the first step on and False only at the end; move the padding there")


def last(states: Tensor, valid: Tensor | None) -> Tensor:
    """The state at the last valid step: (batch, time, features) -> (batch, features)."""
    if valid is None:
        return states[:, -1]
    end = valid.sum(1) - 1
    return states.take_along_dim(end[:, None, None], 1).squeeze(1)


def mean(states: Tensor, valid: Tensor | None) -> Tensor:
    """The mean over the valid steps: (batch, time, features) -> (batch, features)."""
    if valid is None:
        return states.mean(1)
    weights = valid / valid.sum(1, keepdim=True)
    return (states * weights[..., None].to(states)).sum(1)
