"""``python -m inspector.metrics.benchmark [arma] [gaussian] [planted] [states]``: our numbers beside the published ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from inspector.metrics.benchmark import arma, gaussian, planted, states, table_of
from inspector.metrics.benchmark.states import WHOLE, Size

SMALL = Size(train=400, test=20, epochs=25, hidden=64, ends=20)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m inspector.metrics.benchmark", description=__doc__)
    parser.add_argument("names", nargs="*", default=["arma", "gaussian", "planted"], choices=list(_RUN), help="which to run")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the data (and of the trained model)")
    parser.add_argument("--whole", action="store_true", help="the published size of the states task: hours on a CPU")
    given = parser.parse_args(arguments)
    for name in given.names:
        print(f"\n{name}, {given.seeds} seeds\n{_RUN[name](given.seeds, given.whole)}")


def _planted(seeds: int, whole: bool) -> str:
    return "\n\n".join(f"{name}\n{found}" for name, found in planted().items())


_RUN: dict[str, Callable[[int, bool], str]] = {
    "arma": lambda seeds, whole: table_of(arma(seeds)),
    "gaussian": lambda seeds, whole: table_of(gaussian(seeds=seeds)),
    "planted": _planted,
    "states": lambda seeds, whole: table_of(states(seeds, size=WHOLE if whole else SMALL)),
}

if __name__ == "__main__":
    main()
