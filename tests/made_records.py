"""Records made by hand, so that the viewers are tested without a model, a hook or Captum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inspector.records import (
    Assessment,
    Attribution,
    Call,
    Comparison,
    Cost,
    Coverage,
    Curve,
    Finding,
    History,
    Row,
    Samples,
    Scores,
    Status,
    Store,
    Summary,
)
from inspector.records.stats import Series, Stats
from inspector.sites import Site

WORDS = [
    "the",
    "plot",
    "was",
    "not",
    "good",
    "but",
    "<pad>",
    "</script>",
    "$x$",
    "it",
    "had\na",
    "certain",
    "charm",
    "that",
    "I",
    "did",
    "enjoy",
    "despite",
    "its",
    "length",
]


def bumps(n, height, width, seed=0):
    """Smooth signed maps with a positive and a negative blob."""
    torch.manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    centres = torch.rand(n, 4, 1, 1) * 1.2 - 0.6
    plus = torch.exp(-((x - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2) * 8)
    minus = torch.exp(-((x - centres[:, 2]) ** 2 + (y - centres[:, 3]) ** 2) * 14)
    return plus - 0.7 * minus + 0.03 * torch.randn(n, height, width)


def image_attribution(n=6, channels=1, size=(28, 28), heat=None, **more):
    shape = heat or size
    inputs = (bumps(n, *size, seed=1)[:, None] * torch.linspace(1, 0.4, channels)[:, None, None]).clamp(min=0)
    values = bumps(n, *shape)[:, None].expand(-1, channels if heat is None else 4, -1, -1) * 0.02
    samples = Samples(inputs, torch.arange(n) % 3, names={"classes": ["zero", "one", "two"]})
    known = {"target": torch.arange(n) % 3, "method": "integrated_gradients", "delta": torch.randn(n) * 1e-3}
    layer = "features.4" if heat else None
    return Attribution(values, samples, layer=layer, axes=(2, 3), baselines=0.0, options={"n_steps": 50}, **known | more)


def series_attribution(n=3, steps=120, channels=3, **more):
    torch.manual_seed(0)
    time = torch.linspace(0, 12, steps)[:, None]
    inputs = torch.sin(time * torch.linspace(1, 2.5, channels)) + 0.1 * torch.randn(n, steps, channels)
    values = torch.exp(-((time - 5) ** 2)) * torch.randn(n, steps, channels) * 0.1
    valid = torch.ones(n, steps, dtype=torch.bool)
    valid[-1, -steps // 5 :] = False
    names = {"features": [f"sensor {i}" for i in range(channels)], "classes": ["calm", "storm"]}
    samples = Samples(inputs, torch.arange(n) % 2, valid=valid, names=names)
    return Attribution(values, samples, target=1, method="occlusion", axes=(1,), **more)


def token_attribution(n=2, words=None):
    words = words or WORDS
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (n, len(words)))
    valid = torch.ones(n, len(words), dtype=torch.bool)
    valid[-1, -3:] = False
    heat = torch.randn(n, len(words), 8) * torch.rand(n, len(words), 1) ** 3
    names = {"tokens": [words] * n, "classes": ["bad", "good"]}
    return Attribution(heat, Samples(ids, torch.tensor([1] * n), valid=valid, names=names), 1, "saliency", axes=(1,))


def row_attribution(n=4, features=18):
    torch.manual_seed(0)
    names = {
        "features": ["income", "age", "a very long name of a feature that nobody reads", *map(str, range(features - 3))]
    }
    return Attribution(
        torch.randn(n, features) ** 3, Samples(torch.randn(n, features) * 20, names=names), 0, "deep_lift", axes=(1,)
    )


LABELS = ("integrated_gradients", "saliency", "grad_cam@features.4", "random")


def comparison_of(
    make, labels=LABELS, warnings=("grad_cam@features.4 uses the layer 'features.4', chosen because it is the last",)
):
    attributions = {label: make(seed) for seed, label in enumerate(labels)}
    n = len(next(iter(attributions.values())).samples)
    torch.manual_seed(1)
    x = torch.linspace(0, 1, 15)
    curves = {}
    for i, label in enumerate(labels):
        fall = torch.exp(-x * (6 - 1.5 * i)) + 0.05 * torch.randn(n, 15)
        curves[label] = {"deletion": Curve(x, fall), "insertion": Curve(x, 1 - fall.flip(1))}
    scores = {
        label: {name: c.area for name, c in row.items()} | {"completeness": torch.rand(n)} for label, row in curves.items()
    }
    scores["random"]["completeness"] = torch.full((n,), float("nan"))
    about = {"deletion": {"better": "low"}, "insertion": {"better": "high"}, "completeness": {"better": "low"}}
    agreement = {"spearman": torch.eye(len(labels)) * 0.8 + 0.2 - 0.4 * torch.rand(len(labels), len(labels)).triu(1)}
    cost = {label: Cost(10 * 3**i, 10, 60, 0.02 * 4**i) for i, label in enumerate(labels)}
    about_all = {"layer": "features.4", "seed": 0}
    return Comparison(attributions, Scores(scores, curves, about), agreement, cost, ("random",), warnings, about_all)


def images_compared():
    def make(seed):
        heat = (7, 7) if seed == 2 else None
        made = image_attribution(heat=heat)
        return replace(made, values=made.values.roll(seed * 3, -1) * 10.0**-seed, delta=made.delta if seed == 0 else None)

    return comparison_of(make)


def series_compared():
    return comparison_of(lambda seed: replace(series_attribution(), values=series_attribution().values.roll(9 * seed, 1)))


def tokens_compared():
    return comparison_of(lambda seed: replace(token_attribution(), values=token_attribution().values.roll(seed, 1)))


def rows_compared():
    return comparison_of(lambda seed: replace(row_attribution(), values=row_attribution().values * (seed - 1.5)))


def assessment(groups=True, classes=10):
    torch.manual_seed(0)
    confusion = torch.diag(torch.randint(30, 50, (classes,))) + torch.randint(0, 3, (classes, classes))
    part = assessed(confusion, "digits (test)", classes)
    if not groups:
        return part
    sizes = {"under 30": (30, 0.99), "30 to 60": (200, 0.95), "over 60": (12, 0.75)}
    rows = {label: replace(part, n=n, accuracy=rate, name="") for label, (n, rate) in sizes.items()}
    return replace(part, groups={"age": rows}, gaps={"age": {"accuracy": 0.24, "f1": 0.1}})


def assessed(confusion, name, classes):
    right, n = confusion.diag().double(), int(confusion.sum())
    recall, precision = right / confusion.sum(1), right / confusion.sum(0)
    f1 = 2 * precision * recall / (precision + recall)
    names = tuple(str(i) if classes <= 10 else f"class number {i}" for i in range(classes))
    means = [float(v.mean()) for v in (precision, recall, f1)]
    per_class = {"precision": precision, "recall": recall, "f1": f1}
    return Assessment(n, float(right.sum() / n), *means, per_class, confusion, names, name=name)


def history(layers=12, steps=200, findings=True, seed=0):
    random = np.random.default_rng(seed)
    at = np.arange(0, steps, 2)
    fall = np.exp(-at / steps * 3) + 0.03 * random.standard_normal(len(at))
    scalars = {"loss": (at, fall + 0.1), "val_loss": (at[::10], fall[::10] + 0.25)}
    scalars |= {"accuracy": (at, 1 - 0.8 * fall), "val_accuracy": (at[::10], 0.95 - 0.8 * fall[::10])}
    scalars |= {"learning_rate": (at, 1e-3 * (1 - at / steps))}
    names = [f"blocks.{i}.conv" for i in range(layers)]
    depth = np.linspace(0, 1, layers)[:, None]
    grad = 10 ** (-1 - 4 * (1 - depth)) * fall[None] * np.exp(0.2 * random.standard_normal((layers, len(at))))
    grad = np.abs(grad)
    out = 1 + 0.5 * depth + 0.1 * random.standard_normal((layers, len(at)))
    grad[layers // 2, len(at) // 2 :] = np.nan
    series = [Series("param_grad", name, "rms") for name in names] + [Series("output", name, "mean") for name in names]
    cells = np.concatenate([grad, out - 1.2]).T
    present = np.ones(cells.shape, dtype=bool)
    present[: len(at) // 4, 1] = False
    found = [
        Finding(
            "nan",
            names[layers // 2],
            int(at[len(at) // 2]),
            float("nan"),
            0,
            f"{names[layers // 2]}: gradients are not finite",
        )
    ]
    found += [
        Finding("dead_relu", names[1], 60, 0.93, 0.5, f"{names[1]}: 93% of the units never fired", "lower the learning rate")
    ]
    stats = Stats.dense(at, series, cells, present)
    return History("step", scalars, stats, found if findings else [], meta={"class": "CNN"})


def store(kinds=("output", "grad"), modules=8, scale=1.0):
    torch.manual_seed(0)
    made = Store(kinds, model="CNN")
    for i in range(modules):
        call = made.add(Call(Site(f"features.{i}.conv", 0), "Conv2d", kinds))
        maps = torch.randn(4, 8 + 8 * (i % 3), 20 - 2 * (i % 6), 20 - 2 * (i % 6)) * scale * 2.0**i
        call.values = {"output": maps.relu() if i % 2 else maps, "grad": maps * 1e-3}
        call.values["output"][:, 2] = 0
    last = made.add(Call(Site("fc", 0), "Linear", kinds))
    last.values = {"output": torch.randn(4, 10), "grad": None}
    last.why = {"grad": "backward did not run inside the block"}
    coverage = Coverage({"aux": Status("Linear", 0, "the branch was not taken")})
    made.coverage_of = lambda: coverage
    return made


def summarized(modules=12):
    rows = [Row("", "CNN", depth=0, output="4x10", dtype="float32")]
    for i in range(modules):
        work = {"multiply_adds": 10**6 * (i + 1), "saved_bytes": 4000 * (i % 4), "seconds": 1e-4 * i, "output_bytes": 100}
        rows.append(
            Row(
                f"features.{i}",
                "Conv2d",
                depth=1,
                output="4x32x26x26",
                dtype="float32",
                parameters=320 * i,
                trainable=320 * i,
                **work,
            )
        )
    return Summary(
        "CNN", tuple(rows), sum(r.parameters for r in rows), sum(r.trainable for r in rows), 0, 10**7, 1000, 2000, 0.01
    )
