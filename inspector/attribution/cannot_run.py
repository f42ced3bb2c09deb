"""Why a model cannot run on what it was given: what that was, what the model holds, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from inspector.attribution.places import input_name
from inspector.attribution.question import Question
from inspector.attribution.targets import NoBatchError
from inspector.attribution.untouched import untouched
from inspector.tensors import walk

_SAME = (NotImplementedError, ValueError, TypeError, IndexError)  # others may not be made of a text alone
_ASKED = (
    "Inputs are what the model is called with, a tensor alone, a tuple by position or a dict by keyword, and their first "
    "axis is the batch: one sample alone is x[None]"
)


@contextmanager
def diagnosed(question: Question) -> Iterator[None]:
    """An error that the model itself raises on the user's inputs says what was given, what the model holds and what to
    do; it stays of its kind and is chained from the model's own. Every other error passes as it is."""
    try:
        yield
    except Exception as error:
        said = _said(question, error)
        if said is None:
            raise
        kind = next((kind for kind in _SAME if isinstance(error, kind)), RuntimeError)
        raise kind(f"{said}. {_given(question.inputs)}. {_held(question.model)}. {_advice(question, error)}") from error


def _said(question: Question, error: Exception) -> str | None:
    """What the model says to the inputs as they are, without anything of a method's; None where it answers."""
    failed = question.ledger.failed
    if isinstance(error, NoBatchError):
        return str(error)
    if not failed or _out_of_memory(error):
        return None
    fault = _fault(question, question.size)
    if fault is not None:
        return None if _out_of_memory(fault) else f"the model cannot run on these inputs: {_first_line(fault)}"
    fault = _fault(question, failed) if failed != question.size else None
    if fault is None or _out_of_memory(fault):
        return None
    return (
        f"the model runs on these {question.size} samples but not on {failed}, as methods do that put several copies of "
        f"the batch into one pass; its forward() has to take any number of samples: {_first_line(fault)}"
    )


def _fault(question: Question, rows: int) -> Exception | None:
    with untouched(question.model), torch.no_grad():
        try:
            question.run({}, torch.arange(rows) % question.size)
        except Exception as fault:
            return fault
    return None


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError))


def _first_line(fault: Exception) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0].rstrip(".!")


def _given(inputs: Any) -> str:
    return "Given: " + ", ".join(f"{input_name(leaf)} {_described(tensor)}" for leaf, tensor in walk(inputs))


def _described(tensor: Tensor) -> str:
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool or not tensor.numel())
    numbers = f" from {tensor.min()} to {tensor.max()}" if whole else ""  # ids may be beyond an embedding
    return f"{tuple(tensor.shape)} {_short(tensor.dtype)}{numbers} on {tensor.device}"


def _held(model: nn.Module) -> str:
    held = sorted({f"{_short(tensor.dtype)} on {tensor.device}" for tensor in _floating(model)})
    return f"The model's parameters: {', '.join(held)}" if held else "The model has no parameters"


def _floating(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point()]


def _advice(question: Question, error: Exception) -> str:
    if isinstance(error, NoBatchError):
        return _ASKED
    given, held = [tensor for _, tensor in walk(question.inputs)], _floating(question.model)
    kinds = _moved({str(t.dtype) for t in given if t.is_floating_point()}, {str(t.dtype) for t in held})
    places = _moved({repr(str(t.device)) for t in given}, {repr(str(t.device)) for t in held})
    return ". ".join([*kinds, *places]) or _ASKED


def _moved(given: set[str], held: set[str]) -> list[str]:
    """What to do where the inputs have a dtype or device that nothing in the model has."""
    other = given - held
    if not other or not held:
        return []
    return [f"Give the inputs as the model is, x.to({min(held)}), or the model as they are, model.to({min(other)})"]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
