"""``python -m inspector.metrics.benchmark [arma] [gaussian] [planted] [states]``: our numbers beside the published ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from inspector.metrics.benchmark import arma, gaussian, planted, states, table_of
from inspector.metrics.benchmark.states import WHOLE, Size

SMALL = Size(train=400, test=20, epochs=25, hidden=64)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m inspector.metrics.benchmark", description=__doc__)
    parser.add_argument("names", nargs="*", default=["arma", "gaussian", "planted"], choices=list(_RUN), help="which to run")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the data (and of the trained model)")
    parser.add_argument("--whole", action="store_true", help="the published size of the states task: long on a CPU")
    parser.add_argument("--series", type=int, help="of the states task: how many test series are explained")
    given = parser.parse_args(arguments)
    size = WHOLE if given.whole else SMALL
    size = size if given.series is None else size._replace(test=given.series)
    for name in given.names:
        print(f"\n{_head(name, given.seeds, size)}\n{_RUN[name](given.seeds, size)}", flush=True)


def _head(name: str, seeds: int, size: Size) -> str:
    """What was drawn; the planted tasks come with their trained models, so that there is one draw."""
    if name == "planted":
        return "planted, one draw: mean and interval over samples"
    several = f"seeds 0 to {seeds - 1}: mean +- standard deviation over {seeds} draws"
    sizes = ", ".join(f"{key}={value}" for key, value in size._asdict().items())
    return f"{name}, {several if seeds > 1 else 'seed 0 alone, no spread'}" + f"; {sizes}" * (name == "states")


def _planted(seeds: int, size: Size) -> str:
    return "\n\n".join(f"{name}\n{found}" for name, found in planted().items())


_RUN: dict[str, Callable[[int, Size], str]] = {
    "arma": lambda seeds, size: table_of(arma(seeds)),
    "gaussian": lambda seeds, size: table_of(gaussian(seeds=seeds)),
    "planted": _planted,
    "states": lambda seeds, size: table_of(states(seeds, size=size)),
}

if __name__ == "__main__":
    main()
