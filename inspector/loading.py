"""Models as a user names them at the terminal: shipped, torchvision's, or made by a function of the user's own.

Nothing downloads, and no file is read in a way that could run code: weights hold tensors only.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inspector.models import shipped
from inspector.models.vision import torchvision

_MODELS = f"{', '.join(shipped.MODELS)}, torchvision:NAME or package.module:factory"


def model_from(name: str, weights: str | None = None) -> nn.Module:
    """A shipped model, ``torchvision:resnet18`` or ``package.module:factory``, in eval mode, with weights from a file.

    weights: a safetensors file or a state dict that torch.save wrote. Raises LookupError for an unknown name, TypeError
    where the factory makes no model, ValueError where the weights do not fit.
    """
    place, _, attribute = name.partition(":")
    if not place or (not attribute and name not in shipped.MODELS):
        near = difflib.get_close_matches(name, shipped.MODELS, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise LookupError(f"{name!r} is no model; give one of {_MODELS}{hint}")
    model = _made(place, attribute) if attribute else shipped.load(place)
    return (_with_weights(model, weights) if weights else model).eval()


def _made(place: str, attribute: str) -> nn.Module:
    if place == "torchvision":
        return _torchvision(attribute)
    made = _found(place, attribute)
    if not isinstance(made, nn.Module):
        with saying(f"{place}:{attribute} made no model"):
            made = made()
    if not isinstance(made, nn.Module):
        raise TypeError(f"{place}:{attribute} made a {type(made).__name__}; it must be a torch.nn.Module or make one")
    return made


def _found(place: str, attribute: str) -> Any:
    sys.path.insert(0, "")  # as python -m does, so that a module beside the user is found
    try:
        with saying(f"{place!r} cannot be imported"):
            module = import_module(place)
    finally:
        sys.path.remove("")
    if not hasattr(module, attribute):
        raise LookupError(f"{place!r} has no {attribute!r}")
    return getattr(module, attribute)


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Whatever is raised inside, after ``what`` went wrong; the user's own code is not ours to blame or to shorten."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"{what}: {type(error).__name__}: {error}") from error


def _torchvision(name: str) -> nn.Module:
    models = torchvision("models", f"torchvision:{name}")
    try:
        return models.get_model(name, weights=None)  # type: ignore[no-any-return]  # torchvision is untyped
    except ValueError as error:
        near = ", ".join(m for m in models.list_models() if m.startswith(name[:4]))
        raise LookupError(f"torchvision has no model {name!r}; it has {near or ', '.join(models.list_models())}") from error


def _with_weights(model: nn.Module, path: str) -> nn.Module:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; give a safetensors file or a state dict that torch.save wrote")
    try:
        model.load_state_dict(_state(path))
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path} does not fit {type(model).__name__}: {first}") from error
    return model


def _state(path: str) -> dict[str, Tensor]:
    if path.endswith(".safetensors"):
        return tensors_in(Path(path))
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own text offers to run the code in the file
        raise ValueError(
            f"{path} is no state dict of tensors alone; save one: torch.save(model.state_dict(), path)"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict):
        raise TypeError(
            f"{path} holds a {type(found).__name__}; it must be a state dict: torch.save(model.state_dict(), path)"
        )
    return dict(found)


def tensors_in(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; ValueError where it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is truncated ({error})") from error
