"""What masks of samples must be: bool tensors, and evidence of several inputs nested as the inputs are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inspector.tensors import format_leaf, parts, rebuild, type_text, walk


def check(evidence: Any, valid: Any, inputs: Any) -> None:
    """Raises TypeError for what is no tensor; ValueError for numbers, or for evidence nested otherwise than the inputs."""
    if valid is not None:
        _bool(valid, "valid")
    if evidence is None:
        return
    if not isinstance(evidence, Tensor):
        _nested_alike(evidence, inputs)
    for name, mask in named(evidence):
        _bool(mask, name)


def named(evidence: Any) -> list[tuple[str, Tensor]]:
    """Each mask under the name that a message calls it by."""
    return [("evidence" + format_leaf(leaf), mask) for leaf, mask in walk(evidence)]


def without_one_channel(evidence: Any, inputs: Any) -> Any:
    """Images have a channel axis where their positions have none: (batch, 1, height, width) is (batch, height, width)."""
    tensors = dict(walk(inputs))

    def squeezed(leaf: Any, mask: Tensor) -> Tensor:
        alike = [tensors[leaf]] if leaf in tensors else list(tensors.values())
        images = [tuple(t.shape[2:]) for t in alike if t.dim() == mask.dim() >= 4]
        return mask[:, 0] if mask.dim() >= 4 and mask.shape[1] == 1 and tuple(mask.shape[2:]) in images else mask

    return rebuild(evidence, squeezed)


def _bool(mask: Any, name: str) -> None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} is of type {type_text(mask)}; give a bool tensor, such as torch.as_tensor({name}).bool()")
    if mask.dtype != torch.bool:
        raise ValueError(f"{name} must be a bool mask, not {mask.dtype}; write {name} > 0 or {name}.bool()")


def _nested_alike(evidence: Any, inputs: Any) -> None:
    """Every mask belongs to an input; a tuple has an entry for each, a dict may leave out what it knows nothing of."""
    nested = isinstance(evidence, (tuple, list, Mapping))
    if not nested or not any(True for _ in walk(evidence)):
        kind = type_text(evidence) + " without any tensor" * nested
        raise TypeError(f"evidence is a {kind}; give a bool tensor, or for several inputs one each, nested as they are")
    known = {leaf for leaf, _ in walk(inputs)}
    strange = [format_leaf(leaf) for leaf, _ in walk(evidence) if leaf not in known]
    short = not isinstance(evidence, Mapping) and len(parts(evidence)) != len(parts(inputs))
    if strange or short:
        there = ", ".join(format_leaf(leaf) for leaf in sorted(known, key=str) if leaf) or "a single tensor"
        given = f"a mask for {', '.join(strange)}" if strange else f"{len(parts(evidence))} entries"
        raise ValueError(
            f"evidence has {given}, but the inputs are {there}; give one mask for each, None for one that is not known"
        )
