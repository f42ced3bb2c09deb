"""Put another tensor in the place of one, whatever it is nested in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from inspector.sites import Site
from inspector.tensors import Inputs, Leaf, Placeholder, format_leaf, only_tensor, pick, rebuild, shape_text

Change = Tensor | Callable[[Tensor], Tensor]


def replaced(value: Any, site: Site, change: Change, name: str) -> Any:
    """The value with the site's leaf changed; name: what the value is called in errors."""
    target = _leaf_of(value, site, name)
    return rebuild(value, lambda leaf, tensor: _apart(tensor, change, name) if leaf == target else tensor)


def _apart(tensor: Tensor, change: Change, name: str) -> Tensor:
    """The model may write to what it gets, and the change to what it is given: neither may reach anybody else's tensor, such
    as a Store's, a parameter that a module answers with, or what a branch around the module reads."""
    given = tensor if isinstance(change, Tensor) else tensor.clone()
    new = fitted(given, change, name)
    return new if new is given else new.clone()


def _leaf_of(value: Any, site: Site, name: str) -> Leaf:
    """The leaf in the value's own keys: a position among named inputs becomes a name."""
    part = pick(value, site.leaf)
    tensor = only_tensor(part, f"{name}{format_leaf(site.leaf)}")
    found: list[Leaf] = []
    rebuild(value, lambda leaf, t: found.append(leaf) if t is tensor and _under(leaf, site.leaf, value) else None)
    return found[0]


def _under(leaf: Leaf, wanted: Leaf, value: Any) -> bool:
    """Tell apart two leaves that hold the same tensor."""
    if isinstance(value, Inputs) and wanted and isinstance(wanted[0], int):
        wanted = (list(value)[wanted[0]], *wanted[1:])
    return leaf[: len(wanted)] == wanted


def fitted(tensor: Tensor, change: Change, name: str) -> Tensor:
    """What stands for the tensor, in its shape and type. Raises TypeError for no tensor, ValueError for another shape."""
    new: Any = change if isinstance(change, Tensor) else change(tensor)
    if isinstance(new, Placeholder):
        new = new.read()
    if not isinstance(new, Tensor):
        raise TypeError(f"the edit at {name} answered with {type(new).__name__}; it must answer with a tensor")
    if new.shape != tensor.shape:
        try:
            new = new.expand(tensor.shape)
        except RuntimeError:
            raise ValueError(
                f"the edit at {name} has shape {shape_text(new)}, the value there has {shape_text(tensor)}; "
                "give one that broadcasts"
            ) from None
    return new.to(device=tensor.device, dtype=tensor.dtype)  # type: ignore[no-any-return]  # a tensor, by now
