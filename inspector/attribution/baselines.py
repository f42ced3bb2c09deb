"""Baselines: what "absent" means. Whatever form they are given in, what was used is a tensor like the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inspector.attribution.positions import Axes
from inspector.tensors import shape_text

_WORDS = ("zero", "mean", "blur", "noise")


def make(given: Any, value: Tensor, positions: Axes, name: str) -> Tensor:
    """One baseline like ``value``: None (zero), a number, a word, a tensor or a function of the value."""
    if given is None:
        return torch.zeros_like(value)
    if isinstance(given, str):
        return _word(given, value, positions, name)
    made = given(value) if callable(given) and not isinstance(given, Tensor) else given
    made = torch.as_tensor(made, device=value.device).detach()
    try:
        return made.to(value.dtype).expand_as(value).clone()
    except RuntimeError:
        raise ValueError(
            f"the baseline of {name} has shape {shape_text(made)}, the values have {shape_text(value)}; give a number, "
            f"one of {', '.join(_WORDS)}, or a tensor of that shape or of ({1}, ...)"
        ) from None


def distribution(given: Any, value: Tensor, positions: Axes, name: str) -> Tensor:
    """Baselines (n, ...) to average over: a tensor of reference samples, or one baseline in any other form."""
    if isinstance(given, Tensor) and given.dim() == value.dim() and given.shape[1:] == value.shape[1:]:
        return given.detach().to(value)
    return (
        make(given, value, positions, name)[:1]
        if given is None or isinstance(given, (int, float))
        else make(given, value, positions, name)
    )


def of_slot(given: Any, index: int, count: int, key: Any) -> Any:
    """The part of ``baselines=`` that belongs to one of several explained inputs."""
    if isinstance(given, Mapping):
        return given.get(key)
    if isinstance(given, (tuple, list)):
        if len(given) != count:
            raise ValueError(f"baselines has {len(given)} entries but {count} inputs are explained; give one each")
        return given[index]
    return given


def _word(word: str, value: Tensor, positions: Axes, name: str) -> Tensor:
    made: Mapping[str, Callable[[], Tensor]] = {
        "zero": lambda: torch.zeros_like(value),
        "mean": lambda: _mean(value, positions),
        "blur": lambda: blur(value, positions, name),
        "noise": lambda: torch.randn_like(value) * value.std(),
    }
    if word not in made:
        raise ValueError(f"baselines={word!r} is no word for a baseline; there are {', '.join(_WORDS)}")
    return made[word]()


def _mean(value: Tensor, positions: Axes) -> Tensor:
    """Each sample's mean over its positions; of rows, each feature's mean over the batch."""
    axes = [0] if value.dim() == 2 or not positions else list(positions)
    return value.mean(dim=axes, keepdim=True).expand_as(value).clone()


def blur(value: Tensor, positions: Axes, name: str, sigma: float = 5.0) -> Tensor:
    """Gaussian smoothing along every axis of positions, with mirrored edges (sigma in positions)."""
    if not positions or value.dim() < 3:
        raise ValueError(f"{name} ({shape_text(value)}) has no neighbouring positions to blur; take another baseline")
    for axis in positions:
        value = _smooth(value, axis, sigma)
    return value


def _smooth(value: Tensor, axis: int, sigma: float) -> Tensor:
    line = value.movedim(axis, -1)
    reach = min(int(3 * sigma), line.shape[-1] - 1)
    steps = torch.arange(-reach, reach + 1, dtype=value.dtype, device=value.device)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    padded = F.pad(line.reshape(-1, 1, line.shape[-1]), (reach, reach), mode="reflect")
    smooth = F.conv1d(padded, (kernel / kernel.sum())[None, None])
    return smooth.reshape(line.shape).movedim(-1, axis)
