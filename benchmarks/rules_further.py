"""Diseases that came later than the rules, planted to see what these miss; drawn anew for each seed like the rest."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rules_fresh import DATA, Attend, Build, Encoder, Spoil, drawn, mlp, sane
from rules_tuned import AFTERMATH, Run, at, grow, scaled
from torch import Tensor, nn

Worsen = Callable[[int, Tensor, Tensor], Tensor]


class Spare(nn.Module):
    """A layer that its author forgot to call."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.first, self.spare, self.head = nn.Linear(inputs, 48), nn.Linear(48, 48), nn.Linear(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu())  # type: ignore[no-any-return]


def deep_cnn() -> nn.Module:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for i in range(6):
        layers += [nn.Conv2d(12 if i else 1, 12, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10))


def further(draw: random.Random) -> list[Run]:
    """Eleven runs, each with one disease."""
    onset, depth = draw.randrange(40, 120), draw.randint(3, 6)
    hidden = draw.randint(1, depth - 1)
    linear, after, last = str(2 * hidden), str(2 * hidden + 1), str(2 * depth)
    data, *sizes = DATA[draw.choice(["digits", "cancer", "blobs"])]
    size, digits = (sizes[0], sizes[1]), DATA["digits"][0]
    once = {"onset": onset}

    def of(act: type[nn.Module], layers: int = depth) -> Build:
        state = draw.randrange(10**6)
        return lambda: mlp(random.Random(state), size, layers, act)

    def run(title: str, build: Build, rule: str, *layers: str, **options: object) -> Run:
        optimizer = options.pop("optimizer", None) or sane(draw)
        options = {"data": data, "also": AFTERMATH, **options}
        return drawn(draw, title, build, optimizer, rule=rule, layers=layers or ("",), **options)  # type: ignore[arg-type]

    width, first = draw.choice([32, 64]), draw.random() < 0.5
    encoder = lambda: Encoder(width, 4, 2, first)  # noqa: E731
    small, large = of(nn.Tanh, 12), draw.uniform(4, 8)
    return [
        run("nan in a weight", of(nn.GELU), "nan", linear, spoil=at(onset, _nan(linear)), **once),
        run("log of zero in the loss", of(nn.ReLU), "nan", last, worsen=_log_of_zero(onset), **once),
        run("loss out of scale", of(nn.SiLU), "exploding|loss_spike", worsen=_louder(onset), **once),
        run("a layer runs away", of(nn.ReLU), _AWAY, linear, after, spoil=_for_three(onset, _scatter(linear)), **once),
        run("sigmoid saturates", of(nn.Sigmoid, 3), "saturated", "3", spoil=at(onset, grow("2", 400.0)), **once),
        run("never called", lambda: Spare(*size), "frozen", "spare"),
        run("encoder collapses", encoder, "attention", _FUSED, spoil=at(onset, _sharpen), data=digits, **once),
        run("logits grow", lambda: Attend(32), "attention", "weights", spoil=_grows(onset), data=digits, **once),
        run(
            "half near its end",
            of(nn.ReLU),
            "low_precision|nan",
            linear,
            after,
            spoil=at(onset, _push(linear)),
            **once,
            **_HALF,
        ),
        run("starts too large, cnn", lambda: scaled(deep_cnn(), large), "poor_initialisation", data=digits),
        run("shrinks with depth", lambda: scaled(small(), 0.2), "vanishing|poor_initialisation"),
    ]


_FUSED = "encoder.layers.0.self_attn"
_AWAY = "loss_spike|exploding|nan"
_HALF: dict[str, object] = {  # nothing underflows
    "dtype": torch.float16,
    "optimizer": lambda m: torch.optim.SGD(m.parameters(), lr=1e-2 / 256),
    "worsen": lambda now, loss, output: 2.0**20 * loss,
}


def _nan(layer: str) -> Callable[[nn.Module], object]:
    return lambda m: m.get_submodule(layer).weight.data[0, :1].fill_(float("nan"))


def _scatter(layer: str) -> Callable[[nn.Module], object]:
    """Noise over a weight, thirty times as large as it."""
    return lambda m: (w := m.get_submodule(layer).weight.data).add_(30.0 * w.std() * torch.randn_like(w))


def _for_three(onset: int, change: Callable[[nn.Module], object]) -> Spoil:
    def spoil(now: int, model: nn.Module, x: Tensor) -> Tensor:
        return at(now, change)(now, model, x) if onset <= now < onset + 3 else x  # type: ignore[arg-type]

    return spoil


def _push(layer: str) -> Callable[[nn.Module], object]:
    return lambda m: m.get_submodule(layer).bias.data[:1].add_(40_000.0)


def _sharpen(model: nn.Module) -> None:
    attention = model.get_submodule(_FUSED)
    attention.in_proj_weight.data[: 2 * attention.embed_dim].mul_(12.0)  # type: ignore[union-attr, index, operator]


def _grows(onset: int) -> Spoil:
    def spoil(now: int, model: nn.Module, x: Tensor) -> Tensor:
        if now >= onset:
            model.qkv.weight.data[:64].mul_(1.1)  # type: ignore[union-attr, index]
        return x

    return spoil


def _log_of_zero(onset: int) -> Worsen:
    def worsen(now: int, loss: Tensor, output: Tensor) -> Tensor:
        return loss - F.softmax(1e4 * output, -1).log().mean() if now == onset else loss

    return worsen


def _louder(onset: int) -> Worsen:
    return lambda now, loss, output: 1000.0 * loss if now >= onset else loss
