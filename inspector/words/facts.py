"""What can be read off an attribution before it is drawn or described: its parts, their kind, the words for its target.

No matplotlib here, so that describing a record loads nothing to draw with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from inspector.records import Attribution, Samples
from inspector.sites import Site
from inspector.tensors import Leaf, format_leaf, shape_text, walk

View = Literal["image", "sequence", "tokens", "row", "other"]


class Piece(NamedTuple):
    """One explained tensor of an attribution with the input it belongs to; heat is None where it has no positions.
    positions: their names, where they have any. leaf: where the input lies among the inputs."""

    name: str
    values: Tensor
    heat: Tensor | None
    input: Tensor | None
    view: View
    positions: tuple[str, ...] = ()
    leaf: Leaf = ()


def pieces(attribution: Attribution) -> list[Piece]:
    """One piece for each explained tensor, in order; inputs of one position each, such as user and item, are one row."""
    explained = list(walk(attribution.values))
    axes = [axes for _, axes in attribution._with_axes()]
    found = [_piece(attribution, leaf, v, a, len(explained)) for (leaf, v), a in zip(explained, axes, strict=True)]
    single = all(piece.heat is not None and piece.heat.numel() == len(piece.heat) for piece in found)
    return [_row_of(found)] if len(found) > 1 and single else found


def _row_of(found: list[Piece]) -> Piece:
    heat = torch.stack([piece.heat.reshape(-1) for piece in found if piece.heat is not None], dim=1)
    given = [p.input.reshape(-1).double() for p in found if p.input is not None and p.input.numel() == len(heat)]
    together = torch.stack(given, dim=1) if len(given) == len(found) else None
    return Piece("", heat, heat, together, "row", tuple(piece.name for piece in found))


def _piece(attribution: Attribution, leaf: Leaf, values: Tensor, axes: Any, count: int) -> Piece:
    place, given = _input_for(attribution, leaf, values)
    try:
        heat = replace(attribution, values=values, axes=axes).heat if values.dim() else None
    except ValueError:
        heat = None
    name = format_leaf(leaf).strip("[]") if count > 1 else ""
    known = attribution.samples.names.get("features", ())
    fits = heat is not None and heat.dim() == 2 and len(known) == heat.shape[1]
    view = _view(attribution.samples, heat, given)
    return Piece(name, values, heat, given, view, tuple(map(str, known)) if fits and view == "row" else (), place)


def _input_for(attribution: Attribution, leaf: Leaf, values: Tensor) -> tuple[Leaf, Tensor]:
    inputs = list(walk(attribution.samples.inputs))
    for place, tensor in inputs:
        if place == leaf and (leaf or attribution.layer is not None or tensor.shape[:2] == values.shape[:2]):
            return place, tensor
    alike = [each for each in inputs if each[1].shape == values.shape]
    floating = [each for each in inputs if each[1].is_floating_point()]
    return [*alike, *floating, *inputs][0]


def _view(samples: Samples, heat: Tensor | None, given: Tensor | None) -> View:
    if heat is None or heat.dim() not in (2, 3):
        return "other"
    if heat.dim() == 3:
        return "image"
    if given is None:
        return "row"
    if "tokens" in samples.names or (given.dim() == 2 and not given.is_floating_point() and given.shape == heat.shape):
        return "tokens"
    return "sequence" if given.dim() == 3 else "row"


def tokens_of(samples: Samples, index: int, length: int) -> list[str]:
    """The tokens of one sample, cut or filled to ``length``; their ids where there are no names."""
    named = samples.names.get("tokens")
    if named is not None:
        words = [str(word) for word in named[index]][:length]
        return words + ["<pad>"] * (length - len(words))
    first = next(iter(walk(samples.inputs)))[1]
    return [str(item) for item in first[index].reshape(-1)[:length].tolist()]


def valid_of(samples: Samples, index: int, length: int) -> Tensor:
    """(length,) bool, False where the sample is padded."""
    if samples.valid is None or samples.valid.shape[1] != length:
        return torch.ones(length, dtype=torch.bool)
    return samples.valid[index].cpu()


def evidence_of(samples: Samples, index: int, leaf: Leaf) -> Tensor | None:
    """The true evidence of one sample in one of its inputs, or None where it is not known or has none."""
    whole = samples.evidence_at(leaf)
    mask = None if whole is None else whole[index]
    return mask if mask is not None and bool(mask.any()) else None


def class_name(samples: Samples, index: Any) -> str:
    """A class by its name where the samples have names for classes."""
    names = samples.names.get("classes")
    number = isinstance(index, int) or (isinstance(index, float) and index.is_integer())
    return str(names[int(index)]) if names is not None and number and 0 <= index < len(names) else str(index)


def target_of(attribution: Attribution, index: int | None = None) -> str:
    """What one sample (or, without an index, all of them) is explained for, in words; "" where it differs by sample."""
    target = attribution.target
    if isinstance(target, (list, tuple)) and not hasattr(target, "_fields"):
        target = torch.as_tensor(target) if all(isinstance(t, (int, float)) for t in target) else target
    if isinstance(target, Tensor) and target.dim() and target.numel() > 1:
        return _of_sample(attribution, target, index)
    if isinstance(target, Tensor):
        target = target.reshape(-1)[0].item() if target.numel() else None
    if target is None:
        return "the output"
    if callable(target):
        return f"function {getattr(target, '__qualname__', type(target).__name__)}"
    return class_name(attribution.samples, target) if isinstance(target, (int, float)) else str(target)


def _of_sample(attribution: Attribution, target: Tensor, index: int | None) -> str:
    if index is None:
        same = bool((target == target[:1]).all()) and target.dim() == 1
        return class_name(attribution.samples, target[0].item()) if same else ""
    one = target[index] if index < len(target) else target[0]
    return class_name(attribution.samples, one.item()) if one.numel() == 1 else str(one.tolist())


def true_of(samples: Samples, index: int) -> str:
    """The known answer for one sample, or "" where none is known."""
    if not isinstance(samples.target, Tensor) or samples.target.dim() != 1:
        return ""
    return class_name(samples, samples.target[index].item())


def baseline_of(attribution: Attribution) -> str:
    """What the explanation is measured against, in words; "" where nothing was given."""
    given = attribution.baselines
    if given is None:
        return ""
    if not isinstance(given, Tensor) and (leaves := [tensor for _, tensor in walk(given)]):
        same = {baseline_of(replace(attribution, baselines=tensor)) for tensor in leaves}
        return same.pop() if len(same) == 1 else f"{len(leaves)} tensors"
    if isinstance(given, Tensor):
        constant = given.numel() > 0 and bool((given == given.reshape(-1)[0]).all())
        return f"{given.reshape(-1)[0].item():g}" if constant else f"tensor {shape_text(given)}"
    if callable(given):
        return f"function {getattr(given, '__qualname__', type(given).__name__)}"
    return f"{given:g}" if isinstance(given, (int, float)) else _short(given)


def options_of(attribution: Attribution) -> list[str]:
    """The plain options as ``name=value``; tensors and long ones are named by their kind."""
    return [f"{name}={_short(value)}" for name, value in attribution.options.items() if value is not None]


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {shape_text(value)}"
    if callable(value):
        return f"function {getattr(value, '__qualname__', type(value).__name__)}"
    text = str(value)
    return text if len(text) <= 30 else f"{text[:29]}…"


def where_of(attribution: Attribution) -> str:
    """The method and its layer, as a title."""
    return attribution.method + (f" at {attribution.layer}" if attribution.layer is not None else "")


def innermost(names: Sequence[str]) -> list[str]:
    """Of some sites those whose module holds no other of them: a container only hands on what its parts made."""
    paths = [Site.parse(name).path.replace("(model)", "") for name in names]
    held = {path[: at.start()] for path in paths for at in re.finditer(r"\.", path)} | ({""} if any(paths) else set())
    return [name for name, path in zip(names, paths, strict=True) if path not in held]


def earliest(names: Sequence[str], kind: str) -> str:
    """Of the sites (in run order) that are wrong the one where it began: gradients run backwards."""
    found = innermost(names)
    return found[-1 if kind.startswith("grad") else 0]


def wilson(rate: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of n, by Wilson's score (1927); also true at shares of 0 and 1 and for few samples."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    return (0.0 if rate == 0 else middle - half), (1.0 if rate == 1 else middle + half)
