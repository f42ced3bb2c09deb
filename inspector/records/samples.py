"""Samples: what is explained, and what is known about it. They travel together so that no mask is ever misaligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from inspector.records import masks, splitting
from inspector.records.html import as_html
from inspector.records.saved import Saved
from inspector.tensors import Leaf, batch_size, rebuild, shape_text, walk

Index = int | slice | Tensor | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class Samples(Saved):
    """A batch of inputs with everything known about it; ``samples[:100]`` cuts every per-sample field.

    inputs: a tensor, a tuple of tensors (by position) or a dict (by keyword), batch axis first.
    target: (batch,) class indices or values. evidence: bool, True where the true evidence lies, one value per
    position: (batch, height, width) for images, of which (batch, 1, height, width) is kept as that; with (batch, channels,
    height, width) each channel of a pixel is a position. Of several inputs one mask each, nested as they are; None is
    an input of which nothing is known, and it is left out of what is judged by evidence. valid: bool (batch,
    time), False is padding. groups: one label per sample, or a dict of columns of them.
    names: "classes" and "features" (one name each), "sensitive" (some of the features), "tokens" (a list per sample).
    Raises ValueError where a per-sample field has another length than the inputs, or the evidence another nesting.
    """

    inputs: Any
    target: Tensor | None = None
    evidence: Any = None
    valid: Tensor | None = None
    groups: Any = None
    names: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = batch_size(self.inputs)
        for name, column in self.group_columns().items():
            if isinstance(column, str) or not hasattr(column, "__len__") or getattr(column, "ndim", 1) != 1:
                text = f"of shape {tuple(column.shape)}" if hasattr(column, "shape") else f"{column!r}"
                raise TypeError(f"groups[{name!r}] is {text}; give one label per sample, or a dict of columns of them")
        for name, length in self._lengths():
            if length != size:
                raise ValueError(f"{name} has {length} samples but inputs have {size}; give one entry per sample")
        masks.check(self.evidence, self.valid, self.inputs)
        if self.evidence is not None:
            object.__setattr__(self, "evidence", masks.without_one_channel(self.evidence, self.inputs))

    def evidence_at(self, leaf: Leaf) -> Tensor | None:
        """The mask of one input, found by its leaf; a mask that is not nested is that of any. None: not known."""
        if self.evidence is None or isinstance(self.evidence, Tensor):
            return self.evidence
        return dict(walk(self.evidence)).get(leaf)

    def _lengths(self) -> list[tuple[str, int]]:
        fields = [("target", self.target), ("valid", self.valid), *masks.named(self.evidence)]
        found = [(name, value.shape[0]) for name, value in fields if isinstance(value, Tensor) and value.dim()]
        found += [(f"groups[{name!r}]", len(column)) for name, column in self.group_columns().items()]
        found += [("names['tokens']", len(self.names["tokens"]))] if "tokens" in self.names else []
        found += [("inputs" + "".join(f"[{k!r}]" for k in leaf), len(t)) for leaf, t in walk(self.inputs) if t.dim()]
        return found

    def group_columns(self) -> dict[str, Any]:
        """The groups as named columns; a single unnamed column is called "group"."""
        if self.groups is None:
            return {}
        return dict(self.groups) if isinstance(self.groups, Mapping) else {"group": self.groups}

    def __len__(self) -> int:
        return batch_size(self.inputs)

    def __getitem__(self, index: Index) -> Samples:
        """The chosen samples; an int gives a batch of one. Raises IndexError past the end."""
        rows = torch.arange(len(self))[_as_index(index)].reshape(-1)
        groups = {name: _rows(column, rows) for name, column in self.group_columns().items()}
        names = dict(self.names)
        if "tokens" in names:
            names["tokens"] = _rows(names["tokens"], rows)
        return replace(
            self,
            inputs=rebuild(self.inputs, lambda _, t: t[rows.to(t.device)] if t.dim() else t),
            target=_rows(self.target, rows),
            evidence=rebuild(self.evidence, lambda _, mask: _rows(mask, rows)),
            valid=_rows(self.valid, rows),
            groups=groups if isinstance(self.groups, Mapping) else groups.get("group"),
            names=names,
        )

    def to(self, device: str | torch.device) -> Self:
        """The same samples on another device."""
        moved = {n: rebuild(getattr(self, n), lambda _, t: t.to(device)) for n in ("inputs", "target", "evidence", "valid")}
        return replace(self, **moved)

    def __repr__(self) -> str:
        shapes = ", ".join(shape_text(t) for _, t in walk(self.inputs))
        known = [n for n in ("target", "evidence", "valid", "groups") if getattr(self, n) is not None]
        return f"Samples({len(self)}: inputs {shapes}{'; with ' * bool(known)}{', '.join(known)})"

    _repr_html_ = as_html


@dataclass(frozen=True, eq=False)
class Task(Saved):
    """A data set in two halves that share no sample: ``train`` to fit on and ``test`` to judge by."""

    train: Samples
    test: Samples
    name: str = ""
    about: str = ""
    standardization: tuple[Tensor, Tensor] | None = None  # mean and deviation, of the training half only

    @classmethod
    def from_arrays(
        cls,
        inputs: Any,
        labels: Any,
        *,
        test_size: float = 0.25,
        seed: int = 0,
        standardize: bool = True,
        valid: Any = None,
        groups: Any = None,
        names: Mapping[str, Any] | None = None,
    ) -> Self:
        """Your own data, checked, split class by class, and scaled by the training half's mean and deviation.

        inputs: (samples, ...), numbers without NaN; labels: (samples,) class indices or names. valid: bool (samples,
        time); the model then gets it as its second input. groups and names as in Samples.
        """
        tensor = splitting.as_inputs(inputs)
        known = dict(names or {})
        if hasattr(inputs, "columns"):  # a data frame
            known.setdefault("features", [str(column) for column in inputs.columns])
        target, known["classes"] = splitting.as_labels(labels, len(tensor), known.get("classes"))
        mask = None if valid is None else splitting.as_mask(valid, tensor)
        whole = Samples(tensor if mask is None else (tensor, mask), target, None, mask, groups, known)
        train, test = (whole[rows] for rows in splitting.stratified(target, test_size, seed))
        if not (standardize and tensor.is_floating_point()):
            return cls(train, test)
        scale = splitting.scale_of(train.inputs if mask is None else train.inputs[0], train.valid)
        return cls(_scaled(train, *scale), _scaled(test, *scale), standardization=scale)

    def to_tree(self) -> dict[str, Any]:
        return super().to_tree() | {"train": self.train.to_tree(), "test": self.test.to_tree()}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        return cls(**tree | {"train": Samples.from_tree(tree["train"]), "test": Samples.from_tree(tree["test"])})

    def __repr__(self) -> str:
        return f"Task({self.name!r}: train {len(self.train)}, test {len(self.test)})"

    _repr_html_ = as_html


def as_samples(inputs: Any, target: Any = None) -> Samples:
    """Samples as they are, anything else wrapped; an own ``target`` is left to the caller."""
    if isinstance(inputs, Samples):
        return inputs
    known = target if isinstance(target, Tensor) and target.dim() and len(target) == batch_size(inputs) else None
    return Samples(inputs, known)


def _scaled(samples: Samples, mean: Tensor, deviation: Tensor) -> Samples:
    """The samples with their floating input standardized; padding becomes 0, the mean."""
    if samples.valid is None:
        return replace(samples, inputs=(samples.inputs - mean) / deviation)
    inputs = ((samples.inputs[0] - mean) / deviation) * samples.valid[..., None]
    return replace(samples, inputs=(inputs, samples.valid))


def _as_index(index: Any) -> Any:
    return torch.as_tensor(index) if isinstance(index, (list, tuple, np.ndarray, range)) else index


def _rows(value: Any, rows: Tensor) -> Any:
    if value is None:
        return None
    if isinstance(value, (Tensor, np.ndarray)):
        return value[rows.to(value.device)] if isinstance(value, Tensor) else value[rows.numpy()]
    return (
        type(value)(value[i] for i in rows.tolist()) if isinstance(value, (list, tuple)) else np.asarray(value)[rows.numpy()]
    )
