"""What keeping a run costs: bytes a value on disk beside other formats, and opening and drawing a very large one.

    python benchmarks/history.py [--layers 1000] [--steps 10000]

The first table trains small models, and counts a value as a row of the statistics or of the scalars that were logged
(histograms and what every step is checked for are not counted, though their bytes are). "right" says that what is read
back equals what the monitor remembers. The second writes seven statistics of many layers for many steps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inspector import History, Monitor, show
from inspector.monitor import csv, tensorboard
from inspector.monitor.folder import create
from inspector.records.history import Series
from inspector.records.runfolder import FILE

KINDS = ("output", "grad", "param_grad", "update")
STATISTICS = ("n", "mean", "rms", "std", "min", "max", "absmax")


def small(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def deep(layers: int, width: int) -> nn.Sequential:
    return nn.Sequential(*[layer for _ in range(layers) for layer in (nn.Linear(width, width), nn.ReLU())])


def bytes_a_value(name: str, model: nn.Module, width: int, every: int, steps: int) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        others = [tensorboard(place / "tb"), csv(place / "run.csv")]
        with Monitor(model, every=every, what=KINDS, to=[place / "run", *others]) as monitor:
            for _ in range(steps):
                loss = model(torch.randn(16, width)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                monitor.log(loss=loss)
        kept, remembered = History.load(place / "run"), monitor.history
        values = kept.stats.rows + len(kept.scalars["loss"][0])
        sizes = [
            (place / "run" / FILE).stat().st_size,
            sum(f.stat().st_size for f in (place / "tb").rglob("*") if f.is_file()),
        ]
        sizes.append((place / "run.csv").stat().st_size)
        right = np.array_equal(kept.stats.cells, remembered.stats.cells, equal_nan=True)
        print(f"{name:26} {every:>6} {values:>9,} " + "".join(f"{size / values:>13.1f}" for size in sizes) + f"{right!s:>8}")


def open_and_draw(layers: int, steps: int) -> None:
    series = [Series("output", f"blocks.{i}.conv", s) for i in range(layers) for s in STATISTICS]
    base, at = np.random.default_rng(0).random(len(series), dtype=np.float32), np.arange(len(series))
    with tempfile.TemporaryDirectory() as folder:
        run = create(Path(folder) / "run", {"class": "Large"})
        for step in range(1, steps + 1):
            run.frame(step, series, at, base * np.float32(step))
            run.rows([(step, {"loss": 1.0 / step})], "scalars")
        run.close()
        size = (Path(folder) / "run" / FILE).stat().st_size
        begin = time.perf_counter()
        history = History.load(Path(folder) / "run")
        opened = time.perf_counter()
        show(history).png()
        drawn = time.perf_counter()
    last = history.stats.line("output", f"blocks.{layers - 1}.conv", "absmax")[1]
    right = np.array_equal(last, (base[-1] * np.arange(1, steps + 1, dtype=np.float32)).astype(np.float64))
    print(f"\n{layers:,} layers x {steps:,} steps x {len(STATISTICS)} statistics, {size / 2**20:.0f} MiB")
    print(f"opened in {opened - begin:.1f} s, drawn in {drawn - opened:.1f} s (goal: under 10 s together); right: {right}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--layers", type=int, default=1000)
    arguments.add_argument("--steps", type=int, default=10_000)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print("bytes a value on disk (goal: at most 8)\n")
    print(f"{'model':26} {'every':>6} {'values':>9} {'run folder':>13}{'TensorBoard':>13}{'CSV':>13}{'right':>8}")
    for every in (1, 10):
        bytes_a_value("2 layers of 8", small(8), 8, every, 500)
        bytes_a_value("16 layers of 64", deep(16, 64), 64, every, 200)
    open_and_draw(given.layers, given.steps)


if __name__ == "__main__":
    main()
