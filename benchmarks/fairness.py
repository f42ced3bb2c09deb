"""Does it find an unfair decision, and is it quiet about a fair one? Both error rates, over seeds.

    python benchmarks/fairness.py --first 100 --seeds 40

The thresholds were chosen while looking at seeds 0 to 19, so that the error rates are those of seeds never looked at. Each
seed plants a new population, trains a small network on its unfair decisions and one on the fair twin, and asks
``assess`` which group is treated differently and ``blame`` which feature does it.
"""

import argparse

import torch
from torch import nn

from inspector import attribute, models
from inspector.metrics import blame
from inspector.models.people import FEATURES, STAND_IN, WRONGED


def judged(fair, seed):
    """The first disparity and the first blame of a network trained on one population, None where there is none."""
    task = models.tasks.planted_unfair(fair=fair, seed=seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(len(FEATURES), 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    models.fit(model, task, epochs=8, lr=5e-3, seed=seed, progress=False)
    unequal = models.assess(model, task, seed=seed).disparities
    blamed = blame(attribute(model, task.test, target=1, method="integrated_gradients"), seed=seed)
    return next(iter(unequal), None), next(iter(blamed), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=40)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    unfair, fair = ([judged(kind, seed) for seed in seeds] for kind in (False, True))
    groups = [d is not None and (d.column, d.group) == WRONGED for d, _ in unfair]
    features = [b is not None and b.feature == STAND_IN for _, b in unfair]
    n = len(seeds)
    print(f"unfair task, {n} seeds: missed or wrong group {n - sum(groups)}, missed or wrong feature {n - sum(features)}")
    alarms = [str(item) for pair in fair for item in pair if item is not None]
    wrong = [sum(pair[i] is not None for pair in fair) for i in (0, 1)]
    print(f"fair twin,   {n} seeds: false alarm about a group {wrong[0]}, about a feature {wrong[1]}")
    print("e.g.", *(str(item) for item in unfair[0]), sep="\n  ")
    print(*(f"false alarm: {alarm}" for alarm in alarms), sep="\n")


if __name__ == "__main__":
    main()
