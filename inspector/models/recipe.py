"""How the shipped weights came to be, and come again: ``python -m inspector.models.recipe``, seeded.

On one core each takes less than a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from inspector.models.assessing import assess
from inspector.models.fitting import Report, fit
from inspector.models.shipped import MODELS, build, read, write
from inspector.records.history import History

WEIGHTS = Path(__file__).with_name("weights")


def train(name: str, *, seed: int = 0, progress: bool | Report = True) -> tuple[nn.Module, History]:
    """A shipped model trained anew, in eval mode, and how it went."""
    model, row = build(name, seed=seed), MODELS[name]
    history = fit(model, row.task(), epochs=row.epochs, lr=row.lr, batch_size=row.batch_size, seed=seed, progress=progress)
    return model.eval(), history


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m inspector.models.recipe", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(MODELS), help=f"which to train: {', '.join(MODELS)} (all)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights (the package's own)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for name in given.names:
        model, history = train(name, seed=given.seed)
        path = write(model, given.out / f"{name}.safetensors")
        read(model, path)  # what is judged is what is shipped, rounding included
        print(name, history, assess(model, MODELS[name].task()), f"{path}: {path.stat().st_size / 1000:.0f} kB", sep="\n")


if __name__ == "__main__":
    main()
