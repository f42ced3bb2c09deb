"""What a model is made of and what a run costs: one honest table, in which every column adds up to its total.

Each row is one call of one module without its children's share, because a table in which containers repeat what
their children say cannot be added up, and totals that nobody can check are what other summaries get wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakIdKeyDictionary

from inspector.counting import MultiplyAdds, kept_for_backward
from inspector.dry_run import fresh, runnable, untouched
from inspector.hooks.eager import eager
from inspector.hooks.frame import Frame
from inspector.hooks.select import aliases, names, select, unwrap
from inspector.hooks.tap import mount
from inspector.provenance import provenance
from inspector.records import Row, Samples, Summary
from inspector.records.summary import Operations
from inspector.tensors import dtype_text, nbytes, run, shape_text, walk

MOST_READ = 4 * 2**30  # bytes of parameters of which a checksum is made
Parameters = dict[str, tuple[int, int, str | None]]  # module -> its own numbers, trainable ones, and whom it shares with


@dataclass
class _Call:
    """What one call of one module did by itself, its children's share left out."""

    name: str
    index: int
    kind: str
    depth: int
    output: str = ""
    dtype: str = ""
    multiply_adds: int = 0
    output_bytes: int = 0
    saved_bytes: int = 0


def summary(model: nn.Module, inputs: Any = None, *, runs: int = 3) -> Summary:
    """The modules of ``model`` by qualified name and call, with shapes, parameters and, given ``inputs``, their cost.

    inputs: a tensor, a tuple (by position), a dict (by keyword) or Samples; without them nothing is run and the rows
    stand in registration order. runs: how often to run for the median time. The model runs in the mode it is in;
    buffers, random numbers and inputs are put back. What the model raises is raised.

    >>> summary(nn.Linear(3, 8), torch.ones(5, 100, 3)).multiply_adds
    12000
    """
    if inputs is None:
        return _totals(model, _structure(model))
    if runs < 1:
        raise ValueError(f"runs={runs} times nothing; give at least 1")
    inputs = inputs.inputs if isinstance(inputs, Samples) else inputs
    twin = runnable(model, inputs)
    calls, counter = _count(twin, inputs)
    seconds, whole = _time(twin, inputs, runs)
    rows = [_row(call, seconds.get((call.name, call.index)), calls) for call in calls]
    costs = {
        "multiply_adds": counter.total,
        "output_bytes": sum(call.output_bytes for call in calls),
        "saved_bytes": sum(call.saved_bytes for call in calls),
        "seconds": whole,
        "operations": _operations(counter),
    }
    return replace(_totals(twin, _with_parameters(twin, rows)), **costs)  # type: ignore[arg-type]  # by name


def _totals(model: nn.Module, rows: list[Row]) -> Summary:
    sizes = [(_numel(p), p.requires_grad) for p in model.parameters()]
    return Summary(
        model=type(unwrap(model)).__name__,
        extra={"origin": _origin(model)},
        rows=tuple(rows),
        parameters=sum(size for size, _ in sizes),
        trainable=sum(size for size, trainable in sizes if trainable),
        buffers=sum(_numel(b) for b in model.buffers()),
    )


def _origin(model: nn.Module) -> dict[str, Any]:
    """Where the summary comes from; the parameters of a very large model are not read for a look at its structure."""
    small = sum(nbytes(p) for p in model.parameters() if not is_lazy(p)) <= MOST_READ
    return provenance(model) if small else provenance(nn.Identity()) | {"class": type(model).__qualname__, "checksum": None}


def _structure(model: nn.Module) -> list[Row]:
    chosen = select(model)
    rows = [Row(name, type(module).__name__, depth=_depth(name)) for name, module in chosen.items()]
    return _with_parameters(model, rows)


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _count(model: nn.Module, inputs: Any) -> tuple[list[_Call], MultiplyAdds]:
    """One run with gradients on: shapes, multiply-adds and what autograd keeps, each told to the call it happens in."""
    calls: list[_Call] = []
    outside = _Call("", 0, "", 0)  # pre-hooks of the model itself run before its call begins
    stack = [outside]

    def enter(frame: Frame, args: Any, kwargs: Any) -> None:
        frame.scratch = _Call(frame.path, frame.index, type(frame.module).__name__, len(stack) - 1)
        stack.append(frame.scratch)
        calls.append(frame.scratch)

    def leave(frame: Frame, output: Any) -> None:
        stack.pop()
        if frame.raised is None:
            _describe_output(frame.scratch, output, known)

    def multiply_adds(count: int) -> None:
        stack[-1].multiply_adds += count

    def kept(count: int) -> None:
        stack[-1].saved_bytes += count

    known = WeakIdKeyDictionary()  # tensors that some call has handed out already
    with untouched(model, inputs), _honest(), ExitStack() as block:
        block.enter_context(torch.inference_mode(False))
        block.enter_context(torch.set_grad_enabled(not any(p.is_inference() for p in model.parameters())))
        block.enter_context(mount(select(model), enter=enter, leave=leave))
        block.enter_context(kept_for_backward(model, kept))
        given = fresh(inputs)
        counter = block.enter_context(MultiplyAdds(multiply_adds))
        keep = run(model, given)  # alive until the block ends, so that what it keeps is not freed and counted twice
        del keep
    return calls, counter


@contextmanager
def _honest() -> Iterator[None]:
    """Run what the model says rather than a fused shortcut that hides its attention."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with eager():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _describe_output(call: _Call, output: Any, known: WeakIdKeyDictionary) -> None:
    tensors = [tensor for _, tensor in walk(output)]
    call.output = ", ".join(map(shape_text, tensors))
    call.dtype = ", ".join(dict.fromkeys(map(dtype_text, tensors)))
    new = [tensor for tensor in tensors if tensor not in known]  # a container hands on what its last child made
    for tensor in new:
        known[tensor] = True
    call.output_bytes = sum(map(nbytes, new))


def _time(model: nn.Module, inputs: Any, runs: int) -> tuple[dict[tuple[str, int], float], float]:
    """Median seconds of each call without its children, and of whole runs, without gradients and after one warm-up."""
    device = next((t.device for _, t in walk(inputs)), torch.device("cpu"))
    every: dict[tuple[str, int], list[float]] = {}
    whole: list[float] = []
    spent = [0.0]  # time inside children, per open call

    def enter(frame: Frame, args: Any, kwargs: Any) -> None:
        spent.append(0.0)
        frame.scratch = _now(device)

    def leave(frame: Frame, output: Any) -> None:
        took = _now(device) - frame.scratch
        every.setdefault((frame.path, frame.index), []).append(took - spent.pop())
        spent[-1] += took

    for index in range(runs + 1):
        with untouched(model, inputs), eager(), torch.no_grad(), mount(select(model), enter=enter, leave=leave):
            given, began = fresh(inputs), _now(device)
            run(model, given)
            whole.append(_now(device) - began)
        if not index:
            every.clear()
    return {call: median(times) for call, times in every.items()}, median(whole[1:])


def _now(device: torch.device) -> float:
    """The clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _row(call: _Call, seconds: float | None, calls: list[_Call]) -> Row:
    several = sum(other.name == call.name for other in calls) > 1
    return Row(
        name=call.name,
        kind=call.kind,
        call=call.index if several else None,
        depth=call.depth,
        output=call.output,
        dtype=call.dtype,
        multiply_adds=call.multiply_adds,
        output_bytes=call.output_bytes,
        saved_bytes=call.saved_bytes,
        seconds=seconds,
    )


def _with_parameters(model: nn.Module, rows: list[Row]) -> list[Row]:
    """Each parameter is counted in the first row that has it; modules that hold some and never ran come last."""
    owned, seen = _owned(model), set[str]()
    other_names = {kept: name for name, kept in aliases(names(model), select(model)).items()}
    counted = []
    for row in rows:
        numbers, trainable, shared = owned.get(row.name, (0, 0, None))
        first = row.name not in seen
        seen.add(row.name)
        note = f"also called {other_names[row.name]}" if row.name in other_names else row.note
        mine = {"parameters": numbers, "trainable": trainable} if first else {}
        counted.append(replace(row, **mine, shared_with=shared, note=note))  # type: ignore[arg-type]  # by name
    return [*counted, *_silent(model, owned, seen)]


def _silent(model: nn.Module, owned: Parameters, seen: set[str]) -> list[Row]:
    every = {name: type(module).__name__ for name, module in names(model).items()}
    missing = [name for name, (numbers, _, _) in owned.items() if numbers and name not in seen]
    note = "not called as a module"
    return [Row(n, every[n], depth=_depth(n), parameters=owned[n][0], trainable=owned[n][1], note=note) for n in missing]


def _owned(model: nn.Module) -> Parameters:
    """Per module the parameters that no module before it has."""
    owner: dict[int, str] = {}
    found: Parameters = {}
    for name, module in names(model).items():
        mine = [p for p in module._parameters.values() if p is not None]
        own = [p for p in mine if owner.setdefault(id(p), name) == name]
        shared = next((owner[id(p)] for p in mine if owner[id(p)] != name), None)
        found[name] = (sum(map(_numel, own)), sum(_numel(p) for p in own if p.requires_grad), shared)
    return found


def _numel(tensor: torch.Tensor) -> int:
    return 0 if is_lazy(tensor) else tensor.numel()


def _operations(counter: MultiplyAdds) -> Operations:
    counted = sum(counter.counted.values())
    skipped = dict(counter.skipped.most_common())
    return Operations(counted, counted + sum(skipped.values()), skipped)
