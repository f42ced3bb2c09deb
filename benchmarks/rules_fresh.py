"""Runs that no rule was made with: other data, widths, depths, rates, onsets and layers, drawn anew for each seed."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from rules_tuned import AFTERMATH, KINDS, Branches, Run, at, data_at, grow, scaled, shift
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from torch import Tensor, nn

ACTS: list[type[nn.Module]] = [nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU]
NORMS: list[type[nn.Module] | None] = [None, None, nn.LayerNorm, nn.BatchNorm1d]
Data = Callable[[], tuple[Tensor, Tensor]]
Build = Callable[[], nn.Module]
Spoil = Callable[[int, nn.Module, Tensor], Tensor]
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def table(load: Callable[[], object]) -> Data:
    def data() -> tuple[Tensor, Tensor]:
        found = load()
        x = torch.tensor(found.data, dtype=torch.float32)  # type: ignore[attr-defined]
        y = torch.tensor(found.target)  # type: ignore[attr-defined]
        y = ((y - y.mean()) / y.std()).float() if load is load_diabetes else y
        return (x - x.mean(0)) / x.std(0).clamp(min=1e-3), y

    return data


def blobs(seed: int) -> Data:
    def data() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        y = torch.randint(5, (1000,), generator=generator)
        centres = 2.0 * torch.randn(5, 20, generator=generator)
        return centres[y] + torch.randn(1000, 20, generator=generator), y

    return data


DATA: dict[str, tuple[Data, int, int]] = {
    "digits": (table(load_digits), 64, 10),
    "wine": (table(load_wine), 13, 3),
    "cancer": (table(load_breast_cancer), 30, 2),
    "blobs": (blobs(3), 20, 5),
    "diabetes": (table(load_diabetes), 10, 1),
}


def mlp(draw: random.Random, sizes: tuple[int, int], depth: int, act: type[nn.Module], norm: object = None) -> nn.Sequential:
    width = draw.choice([24, 48, 96, 160])
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(sizes[0] if i == 0 else width, width), *([norm(width)] if norm else []), act()]  # type: ignore[operator]
    return nn.Sequential(*layers, nn.Linear(width, sizes[1]))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))))


def resnet(draw: random.Random) -> nn.Sequential:
    c = draw.choice([8, 12, 24])
    blocks = [Residual(c) for _ in range(draw.randint(1, 3))]
    stem = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


def cnn(draw: random.Random) -> nn.Sequential:
    c, norm = draw.choice([6, 20, 40]), draw.random() < 0.5
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for a, b in ((1, c), (c, c), (c, 2 * c)):
        layers += [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * c * 16, 10))


class Rows(nn.Module):
    """Digits as rows in time."""

    def __init__(self, cell: Callable[..., nn.Module], width: int, **options: object) -> None:
        super().__init__()
        self.body, self.head = cell(8, width, batch_first=True, **options), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.view(-1, 8, 8))[0][:, -1])  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Digits as eight tokens in a transformer."""

    def __init__(self, width: int, heads: int, layers: int, first: bool) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.1, batch_first=True, norm_first=first)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.view(-1, 8, 8)) + self.place).mean(1))  # type: ignore[no-any-return]


class Attend(nn.Module):
    """One layer of attention, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Linear(8, width), nn.Linear(width, 3 * width)
        self.weights, self.head, self.width = nn.Softmax(dim=-1), nn.Linear(width, 10), width

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.view(-1, 8, 8))
        q, k, v = self.qkv(h).chunk(3, -1)
        return self.head((h + self.weights(q @ k.transpose(1, 2) / self.width**0.5) @ v).mean(1))  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """Predicts a regression target from a narrow code; a sigmoid ends its decoder."""

    def __init__(self, inputs: int, code: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, code))
        self.decode = nn.Sequential(nn.Linear(code, 32), nn.ReLU(), nn.Linear(32, inputs), nn.Sigmoid())
        self.head = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decode(self.encode(x)))  # type: ignore[no-any-return]


class Broken(nn.Module):
    """Passes its input on, until at one step it does something that has no number."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.sick = how, False

    def forward(self, x: Tensor) -> Tensor:
        if not self.sick:
            return x
        if self.how == "log":
            return (x * 0.0).log()
        return x * 1e30 * 1e30 if self.how == "overflow" else (x - x).abs().sqrt()


def broken(draw: random.Random, sizes: tuple[int, int], how: str) -> tuple[nn.Module, str]:
    layers = list(mlp(draw, sizes, draw.randint(2, 5), nn.ReLU))
    place = draw.randrange(2, len(layers) - 1)
    return nn.Sequential(*layers[:place], Broken(how), *layers[place:]), str(place)


def breaks(step: int) -> Spoil:
    def spoil(now: int, model: nn.Module, x: Tensor) -> Tensor:
        for module in model.modules():
            if isinstance(module, Broken):
                module.sick = now == step
        return x

    return spoil


def sane(draw: random.Random, times: float = 1.0) -> Optimizer:
    """An optimizer with a rate as people use them, ``times`` higher or lower."""
    kind, u = draw.choice(["adam", "adamw", "sgd", "rmsprop"]), draw.random()
    if kind == "sgd":
        return lambda m: torch.optim.SGD(m.parameters(), lr=times * 10 ** (-2.3 + u), momentum=0.9)
    if kind == "rmsprop":
        return lambda m: torch.optim.RMSprop(m.parameters(), lr=times * 10 ** (-3.5 + 0.7 * u))
    made = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
    return lambda m: made(m.parameters(), lr=times * 10 ** (-3.6 + u))


def adam(draw: random.Random, low: float, high: float) -> Optimizer:
    lr = 10 ** draw.uniform(low, high)
    return lambda m: torch.optim.Adam(m.parameters(), lr=lr)


def without(layer: str) -> Optimizer:
    return lambda m: torch.optim.AdamW([p for n, p in m.named_parameters() if not n.startswith(f"{layer}.")], lr=1e-3)


def healthy(draw: random.Random) -> list[Run]:
    """Sixteen runs that learn as they should."""

    def tabular(name: str) -> Run:
        data, *sizes = DATA[draw.choice(list(DATA))]
        depth, act, norm = draw.randint(1, 7), draw.choice(ACTS), draw.choice(NORMS)
        state = draw.randrange(10**6)
        build = lambda: mlp(random.Random(state), (sizes[0], sizes[1]), depth, act, norm)  # noqa: E731
        return drawn(draw, name, build, sane(draw), data=data)

    def digits(name: str, build: Callable[[random.Random], nn.Module], **options: object) -> Run:
        state = draw.randrange(10**6)
        return drawn(draw, name, lambda: build(random.Random(state)), sane(draw), data=DATA["digits"][0], **options)

    def recurrent(d: random.Random) -> nn.Module:
        cell = d.choice([nn.LSTM, nn.GRU, nn.RNN])
        return Rows(cell, d.choice([16, 48, 96]), num_layers=d.choice([1, 2]))

    def encoder(d: random.Random) -> nn.Module:
        return Encoder(d.choice([16, 32, 64]), d.choice([2, 4]), d.choice([1, 2, 3]), d.random() < 0.5)

    runs = [tabular(f"mlp {i}") for i in range(6)]
    runs += [digits("cnn 0", cnn), digits("cnn 1", cnn), digits("resnet 0", resnet), digits("resnet 1", resnet)]
    runs += [digits("recurrent 0", recurrent), digits("recurrent 1", recurrent)]
    runs += [digits("encoder 0", encoder), digits("encoder 1", encoder)]
    runs += [digits("attention", lambda d: Attend(d.choice([16, 48]))), digits("bottleneck", lambda d: Autoencoder(64, 4))]
    return runs


def sick(draw: random.Random) -> list[Run]:
    """Twenty-seven runs, each with one disease."""
    onset, depth = draw.randrange(40, 120), draw.randint(3, 6)
    hidden = draw.randint(1, depth - 1)  # a hidden layer, not the first
    linear, after = str(2 * hidden), str(2 * hidden + 1)
    name = draw.choice(["digits", "cancer", "blobs"])
    data, *sizes = DATA[name]
    size = (sizes[0], sizes[1])

    def of(act: type[nn.Module], layers: int = depth) -> Build:
        state = draw.randrange(10**6)
        return lambda: mlp(random.Random(state), size, layers, act)

    def scaled_by(act: type[nn.Module], layers: int, factor: float) -> Build:
        build = of(act, layers)
        return lambda: scaled(build(), factor)

    def run(title: str, build: Build, optimizer: Optimizer, rule: str, *layers: str, **options: object) -> Run:
        options = {"data": data, "also": AFTERMATH, **options}
        return drawn(draw, title, build, optimizer, rule=rule, layers=layers or ("",), **options)

    def pictures(build: Callable[[random.Random], nn.Module]) -> Build:
        state = draw.randrange(10**6)
        return lambda: build(random.Random(state))

    def fails(how: str) -> tuple[Build, str]:
        state = draw.randrange(10**6)
        return lambda: broken(random.Random(state), size, how)[0], broken(random.Random(state), size, how)[1]

    digits = DATA["digits"][0]
    once = {"onset": onset}
    runs = [
        run("rate too high, sgd", of(nn.ReLU), lambda m: torch.optim.SGD(m.parameters(), lr=8.0), _HIGH),
        run("rate too high, momentum", of(nn.GELU), lambda m: torch.optim.SGD(m.parameters(), 3.0, momentum=0.9), _HIGH),
        run("rate too high, adam", of(nn.Tanh), adam(draw, -0.7, 0.0), "update_ratio"),
        run("rate too high, adam cnn", pictures(cnn), adam(draw, -0.7, 0.0), "update_ratio", data=digits),
        run("rate too low", of(nn.GELU), adam(draw, -9.5, -8.5), "update_ratio"),
        run("deep sigmoid", of(nn.Sigmoid, draw.randint(10, 14)), sane(draw), "vanishing", "0"),
        run("large weights, tanh", scaled_by(nn.Tanh, depth, draw.uniform(6, 12)), sane(draw), "saturated"),
        run("starts too large", scaled_by(nn.ReLU, 6, draw.uniform(5, 9)), sane(draw), "poor_initialisation"),
        run("starts too small", scaled_by(nn.ReLU, 6, draw.uniform(0.1, 0.25)), sane(draw), "poor_initialisation"),
        run("starts at zero", scaled_by(nn.ReLU, depth, 0.0), sane(draw), "poor_initialisation", "0"),
    ]
    runs += [
        run("dead layer", of(nn.ReLU), sane(draw), "dead_relu", after, spoil=at(onset, shift(linear, -60.0)), **once),
        run("dead channels", pictures(cnn), sane(draw), "dead_relu", spoil=at(onset, _kill), data=digits, **once),
        run("dormant", of(nn.ReLU), _slow, "dormant", after, spoil=_held(onset, _quiet(linear)), **once),
        run("nan in one input", of(nn.Tanh), sane(draw), "nan", spoil=data_at(onset, _one(float("nan"))), **once),
        run("inf in one input", of(nn.GELU), sane(draw), "nan", spoil=data_at(onset, _one(float("inf"))), **once),
    ]
    for how in ("log", "overflow", "root"):
        build, place = fails(how)
        before = str(int(place) - 1)
        layers = (place, before) if how == "root" else (place,)
        runs.append(run(f"{how} without a number", build, sane(draw), "nan", *layers, spoil=breaks(onset), **once))
    runs += [
        run("steps are skipped", of(nn.ReLU), sane(draw), "skipped", spoil=_overflows(onset), scaler=True, **once),
        run("not in the optimizer", of(nn.SiLU), without(linear), "frozen", linear),
        run("cut off", lambda: Branches(True), sane(draw), "frozen", "right", data=digits),
        run("bad batch", of(nn.ReLU), sane(draw), "loss_spike", spoil=data_at(onset, _noise(draw.uniform(80, 500))), **once),
        run(
            "attention collapses",
            pictures(lambda d: Attend(32)),
            sane(draw),
            "attention",
            "weights",
            data=digits,
            spoil=at(onset, _sharpen),
            **once,
        ),
        run(
            "massive unit",
            of(nn.ReLU),
            adam(draw, -3.6, -2.6),
            "massive",
            linear,
            after,
            spoil=at(onset, _massive(linear)),
            **once,
        ),
        run(
            "recurrence explodes",
            _relu_rnn,
            sane(draw),
            "exploding|loss_spike|nan",
            data=digits,
            spoil=at(onset, _recur),
            **once,
        ),
        run("tanh saturates", of(nn.Tanh), sane(draw), "saturated", after, spoil=at(onset, grow(linear, 300.0)), **once),
        run(
            "half underflows",
            of(nn.ReLU),
            lambda m: torch.optim.SGD(m.parameters(), lr=1e-4),
            "low_precision",
            dtype=torch.float16,
        ),
    ]
    return runs


_HIGH = "exploding|nan|loss_spike|dead_relu|update_ratio"


def drawn(draw: random.Random, name: str, build: Build, optimizer: Optimizer, **options: object) -> Run:
    batch, every = draw.choice([16, 32, 128]), draw.choice([1, 3, 5, 8, 10])
    return Run(name, build, optimizer, batch=batch, every=every, seed=draw.randrange(10**6), what=KINDS, **options)  # type: ignore[arg-type]


def _slow(model: nn.Module) -> torch.optim.Optimizer:
    """Too slow to wake what was put to sleep."""
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def _held(step: int, change: Callable[[nn.Module], None]) -> Spoil:
    """Does it again at each step, so that it does not heal."""

    def spoil(now: int, model: nn.Module, x: Tensor) -> Tensor:
        return at(now, change)(now, model, x) if now >= step else x

    return spoil


def _overflows(step: int) -> Spoil:
    return lambda now, model, x: x * (1e38 if now > step and now % 5 == 0 else 1.0)


def _relu_rnn() -> nn.Module:
    return Rows(nn.RNN, 48, nonlinearity="relu")


def _recur(model: nn.Module) -> None:
    model.body.weight_hh_l0.data.mul_(5.0)  # type: ignore[union-attr, operator]


def _sharpen(model: nn.Module) -> None:
    model.qkv.weight.data[:64].mul_(40.0)  # type: ignore[union-attr, index]


def _kill(model: nn.Module) -> None:
    """The bias, or the shift of the norm, before the second rectifier."""
    before = [m for a, m in zip(list(model)[1:], model, strict=False) if isinstance(a, nn.ReLU)][1]  # type: ignore[call-overload]
    before.bias.data.sub_(60.0)


def _quiet(layer: str) -> Callable[[nn.Module], None]:
    """All units but a few do almost nothing, and yet something; the few do the work, so they must not be dead."""

    def change(model: nn.Module) -> None:
        module = model.get_submodule(layer)
        few = max(len(module.bias) // 12, 1)  # type: ignore[arg-type]
        module.bias.data[:few].clamp_(min=1.0)  # type: ignore[index, operator]
        module.weight.data[few:].mul_(1e-7)  # type: ignore[index, operator]
        module.bias.data[few:].fill_(1e-7)  # type: ignore[index, operator]

    return change


def _massive(layer: str) -> Callable[[nn.Module], None]:
    return lambda m: m.get_submodule(layer).bias.data[-1:].add_(20_000.0)  # type: ignore[operator, index]


def _one(value: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[1, 2] = value
        return x

    return change


def _noise(factor: float) -> Callable[[Tensor], Tensor]:
    """Other inputs: a rectifier's answer to a multiple of the right ones is the right one."""
    return lambda x: factor * torch.randn_like(x)
