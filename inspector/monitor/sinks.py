"""Where a run can go besides its folder: a sink is any function of (values, step).

    Monitor(model, to=["runs/first", tensorboard("tb/first"), csv("first.csv"), wandb(wandb_run)])

Values are one flat mapping, with names like "output/rms/layer1.conv"; a step may come in several parts, and a step late.
A sink that fails is left out from then on, with one warning; the run's folder and the training go on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Sink = Callable[[Mapping[str, float], int], Any]


def tensorboard(folder: str | Path) -> Sink:
    """TensorBoard's event files: one Summary a step, which takes a 24th of the time of one call for each scalar."""
    try:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped,unused-ignore]
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard(...) needs tensorboard: pip install 'inspector[tensorboard]'") from error
    writer = SummaryWriter(str(folder))

    def sink(values: Mapping[str, float], step: int) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]  # untyped in torch
        writer.flush()

    return sink


def wandb(run: Any) -> Sink:
    """A run of Weights & Biases, online or offline: ``wandb(wandb.init(...))``. The step is a value of its own, since
    wandb drops what comes for a step before its latest one."""
    run.define_metric("*", step_metric="step")

    def sink(values: Mapping[str, float], step: int) -> None:
        run.log({**values, "step": step})

    return sink


def csv(path: str | Path) -> Sink:
    """A long table, one line a value: step, name, value. The file must be new."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as file:
        file.write("step,name,value\n")

    def sink(values: Mapping[str, float], step: int) -> None:
        lines = "".join(f"{step},{_quoted(name)},{value!r}\n" for name, value in values.items())
        with target.open("a", encoding="utf-8", newline="") as file:
            file.write(lines)

    return sink


def cautious(sink: Sink) -> Sink:
    """The same sink, until it fails for the first time."""
    off = False

    def send(values: Mapping[str, float], step: int) -> None:
        nonlocal off
        if off:
            return
        try:
            sink(values, step)
        except Exception as error:
            off = True
            said = f"a sink failed and is left out from here on, the run goes on: {type(error).__name__}: {error}"
            warnings.warn(said, RuntimeWarning, stacklevel=2)

    return send


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"' if any(c in name for c in ',"\r\n') else name
