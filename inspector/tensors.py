"""Walk and rebuild whatever modules return: tensors nested in tuples, lists, mappings, dataclasses and namedtuples.

A position inside a value is a *leaf*: the keys that lead to one tensor, () for a bare tensor. Objects of other
kinds (numbers, None, caches, generators) are carried along untouched, because copying what we do not know may
consume it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Leaf = tuple[int | str, ...]


class Struct(dict[str, Any]):
    """A dataclass or model output as data: a dict with attribute access, where its own class must not be run."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"{name!r} is not one of the fields {list(self)}")


class Inputs(dict[str, Any]):
    """What a call was given, by the forward parameters' names and also by position: ``inputs["x"]``, ``inputs[0]``."""

    def __missing__(self, key: Any) -> Any:
        if isinstance(key, int) and -len(self) <= key < len(self):
            return list(self.values())[key]
        raise KeyError(f"{key!r} is no input of this call; it had {', '.join(self) or 'none'}")


class Placeholder:
    """Stands in a nested value where a tensor will be read later: a borrowed one, or a gradient yet to come."""

    __slots__ = ()

    def read(self) -> Tensor | None:
        """The tensor now, or None where none came."""
        return None


class Opaque:
    """Stands in a saved value where an object was that is neither data nor a nesting of it, such as a cache."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{self.name} (not saved)"


class Part(NamedTuple):
    key: int | str
    value: Any


def is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def parts(value: Any) -> list[Part]:
    """The direct children of a nested value; empty for tensors and for objects that are not taken apart."""
    if isinstance(value, (Tensor, Placeholder)):
        return []
    if is_namedtuple(value):
        return [Part(name, item) for name, item in zip(value._fields, value, strict=True)]
    if isinstance(value, (tuple, list)):
        return [Part(i, item) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return [Part(name, item) for name, item in zip(_key_names(value), value.values(), strict=True)]
    if is_record(value):
        names = [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]
        return [Part(name, getattr(value, name)) for name in names]
    return []


def _key_names(mapping: Mapping[Any, Any]) -> list[int | str]:
    """Its keys as steps of a leaf: other keys than text and integers (graph networks use tuples) by how they print."""
    names = [key if isinstance(key, (str, int)) else str(key) for key in mapping]
    return names if len(set(names)) == len(names) else [f"#{i}" for i in range(len(names))]


def walk(value: Any) -> Iterator[tuple[Leaf, Tensor]]:
    """Every tensor in a nested value with its leaf, in order."""
    if isinstance(value, Tensor):
        yield (), value
        return
    for key, item in parts(value):
        for leaf, tensor in walk(item):
            yield (key, *leaf), tensor


def _as_it_is(value: Any) -> Any:
    return value


def rebuild(
    value: Any, change: Callable[[Leaf, Tensor], Any], leaf: Leaf = (), *, other: Callable[[Any], Any] = _as_it_is
) -> Any:
    """The same nesting with each tensor replaced by ``change(leaf, tensor)``; types are kept. other: what to put for an
    object that is not taken apart."""
    if isinstance(value, (Tensor, Placeholder)):
        return change(leaf, value)  # type: ignore[arg-type]  # only its maker puts placeholders in and reads them
    children = parts(value)
    if not children:
        return other(value)
    return _with_parts(value, {key: rebuild(item, change, (*leaf, key), other=other) for key, item in children})


def _with_parts(value: Any, new: dict[int | str, Any]) -> Any:
    if is_namedtuple(value):
        return tuple.__new__(type(value), new.values())  # PackedSequence's own constructor rejects what is no tensor
    if isinstance(value, (tuple, list)):
        return _plain_sequence(value)(new.values())
    twin = _shallow(value)
    if isinstance(value, Mapping):
        for key, item in zip(value, new.values(), strict=True):
            twin[key] = item
        return twin
    for name, item in new.items():
        object.__setattr__(twin, str(name), item)  # frozen dataclasses too
    return twin


def _plain_sequence(value: tuple[Any, ...] | list[Any]) -> type:
    """A tuple or list of an unknown subclass becomes a plain one: its constructor may want something else."""
    return tuple if isinstance(value, tuple) else list


def _shallow(value: Any) -> Any:
    """A shallow copy that may be written to: ModelOutput keeps its class. A mapping of a kind of its own becomes a
    dict: it may be read-only, or its copy may share what it holds, and the copy's writes would reach the model."""
    if isinstance(value, Mapping) and not isinstance(value, (dict, UserDict)):
        return dict(value)
    return copy.copy(value)


def pick(value: Any, leaf: Leaf) -> Any:
    """What lies at ``leaf`` inside a nested value; raises LookupError that names what there is."""
    for depth, key in enumerate(leaf):
        children = parts(value)
        found = [item for name, item in children if name == key]
        if not found and isinstance(key, int) and _has_positions(value) and -len(children) <= key < len(children):
            found = [children[key].value]
        if not found:
            names = ", ".join(bracket(name) for name, _ in children) or "nothing to choose from"
            raise LookupError(f"{format_leaf(leaf[: depth + 1])} is not in this {type(value).__name__}: it has {names}")
        value = found[0]
    return value


def _has_positions(value: Any) -> bool:
    return isinstance(value, (tuple, list, Inputs))


def only_tensor(value: Any, name: str) -> Tensor:
    """The one tensor that a value is; a nested value is refused with its leaves named."""
    if isinstance(value, Tensor):
        return value
    leaves = [format_leaf(leaf) for leaf, _ in walk(value)]
    if isinstance(value, Inputs) and len(leaves) == 1:  # the only argument needs no name
        return next(walk(value))[1]
    if not leaves:
        raise LookupError(f"{name} holds no tensor but {type_text(value)}")
    raise LookupError(f"{name} is a {type(value).__name__} of several tensors; name one: {', '.join(leaves)}")


def bracket(key: int | str) -> str:
    """One step of a leaf as text: [0] for an index, [name] for a plain key, ["any text"] for the rest."""
    if isinstance(key, int):
        return f"[{key}]"
    if key.isidentifier():
        return f"[{key}]"
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'["{quoted}"]'


def format_leaf(leaf: Leaf) -> str:
    return "".join(bracket(key) for key in leaf)


def run(model: nn.Module | Callable[..., Any], inputs: Any) -> Any:
    """Call the model the way ``inputs`` says: a tensor alone, a tuple by position, a mapping by keyword."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple) and not is_namedtuple(inputs):
        return model(*inputs)
    return model(inputs)


def batch_size(inputs: Any) -> int:
    """The length of the first axis of the first tensor; raises ValueError where there is none."""
    for _, tensor in walk(inputs):
        if tensor.dim():
            return tensor.shape[0]
    raise ValueError(f"no batched tensor in inputs of type {type(inputs).__name__}; give a tensor with a batch axis")


def nbytes(tensor: Tensor) -> int:
    """Bytes of the tensor's elements; for sparse and nested tensors, of what they store."""
    if tensor.is_sparse:
        return nbytes(tensor._values()) + nbytes(tensor._indices())
    return tensor.numel() * tensor.element_size()


def type_text(value: Any) -> str:
    return value.name if isinstance(value, Opaque) else type(value).__name__


def shape_text(tensor: Tensor) -> str:
    """The shape as text, also of nested tensors, whose ``.shape`` raises."""
    if tensor.is_nested:
        return f"nested x{tensor.size(0)}"
    return "x".join(str(n) for n in tensor.shape) or "scalar"


def dtype_text(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def digest(tensor: Tensor) -> str:
    """One line on the values: mean, range, share of zeros, and how many are NaN or Inf."""
    if tensor.is_meta:
        return "no data (meta)"
    flat = _plain(tensor)
    if not flat.numel():
        return "empty"
    finite = flat[torch.isfinite(flat)]
    bad = _count_text(flat)
    if not finite.numel():
        return f"no finite value{bad}"
    mean, low, high = finite.double().mean().item(), finite.min().item(), finite.max().item()
    zeros = 100.0 * (flat == 0).double().mean().item()
    return f"mean {mean:.3g}, {low:.3g} to {high:.3g}, {zeros:.0f}% zeros{bad}"


def _plain(tensor: Tensor) -> Tensor:
    """The stored numbers as one real, dense, flat tensor on the CPU."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_nested:
        return torch.cat([_plain(item) for item in tensor.unbind()]) if tensor.size(0) else torch.empty(0)
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = tensor.abs()
    wide = torch.float64 if tensor.is_floating_point() else torch.int64
    return tensor.to("cpu", wide).reshape(-1)


def _count_text(flat: Tensor) -> str:
    if not flat.is_floating_point():
        return ""
    nan, inf = int(flat.isnan().sum()), int(flat.isinf().sum())
    return f", {nan} NaN" * bool(nan) + f", {inf} Inf" * bool(inf)
