"""The runs that the rules were made with: healthy ones, and sick ones with one disease each, planted at a known step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

KINDS = ("output", "grad", "param", "param_grad", "update")


def digits() -> tuple[Tensor, Tensor]:
    """8x8 digits: inputs (1797, 64) from 0 to 1, labels."""
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16.0, torch.tensor(found.target)


@dataclass
class Run:
    """One training run. rule and layers: what must be found; a layer is named by itself or by what lies inside it."""

    name: str
    build: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = lambda m: torch.optim.Adam(m.parameters(), lr=1e-3)
    rule: str = ""
    layers: tuple[str, ...] = ("",)
    onset: int = 1
    spoil: Callable[[int, nn.Module, Tensor], Tensor] | None = None
    worsen: Callable[[int, Tensor, Tensor], Tensor] | None = None  # (step, loss, output) -> another loss
    scaler: bool = False
    dtype: torch.dtype = torch.float32
    what: tuple[str, ...] = KINDS
    also: tuple[str, ...] = ()  # rules that may speak too, because the disease brings them on
    data: Callable[[], tuple[Tensor, Tensor]] = digits
    batch: int = 64
    every: int = 5
    seed: int = 0


def adam(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: torch.optim.Adam(m.parameters(), lr=lr)


def sgd(lr: float, momentum: float = 0.9) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: torch.optim.SGD(m.parameters(), lr=lr, momentum=momentum)


def adamw(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: torch.optim.AdamW(m.parameters(), lr=lr)


class Sequence(nn.Module):
    """Digits as sequences of rows."""

    def __init__(self, body: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.view(-1, 8, 8))[0][:, -1])


class Attention(nn.Module):
    def __init__(self, scale: float = 1.0, norm: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.norm = nn.LayerNorm(32) if norm else nn.Identity()
        self.query, self.key, self.value = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.softmax, self.head, self.scale = nn.Softmax(-1), nn.Linear(32, 10), scale

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.embed(x.view(-1, 8, 8)))
        weights = self.softmax(self.query(h) @ self.key(h).transpose(1, 2) * self.scale / 32**0.5)
        return self.head((h + weights @ self.value(h)).mean(1))


def mlp(depth: int = 3, width: int = 64, act: type[nn.Module] = nn.ReLU, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(64 if i == 0 else width, width), *([nn.LayerNorm(width)] if norm else []), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cnn(norm: bool = False) -> nn.Sequential:
    def block(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1), *([nn.BatchNorm2d(b)] if norm else []), nn.ReLU()]

    top = [nn.MaxPool2d(2), *block(16, 32), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(nn.Unflatten(1, (1, 8)), *block(1, 16), *top)


def image_cnn(norm: bool = False) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (8, 8)), *cnn(norm))


def lstm() -> nn.Module:
    return Sequence(nn.LSTM(8, 32, batch_first=True))


def rnn() -> nn.Module:
    return Sequence(nn.RNN(8, 32, batch_first=True))


def scaled(model: nn.Module, factor: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight)
            module.weight.data *= factor
            module.bias.data.zero_()
    return model


class Guarded(nn.Module):
    """Divides by something that becomes zero, or takes the root of zero, at one step."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.sick = kind, False

    def forward(self, x: Tensor) -> Tensor:
        if not self.sick:
            return x
        return x / x.new_zeros(()) if self.kind == "divide" else (x * 0.0).abs().sqrt()


def faulty(kind: str) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), Guarded(kind), nn.Linear(32, 10))


def sicken(step: int) -> Callable[[int, nn.Module, Tensor], Tensor]:
    def spoil(now: int, model: nn.Module, x: Tensor) -> Tensor:
        for module in model.modules():
            if isinstance(module, Guarded):
                module.sick = now == step
        return x

    return spoil


class Branches(nn.Module):
    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.left, self.right, self.head, self.cut = nn.Linear(64, 32), nn.Linear(64, 32), nn.Linear(32, 10), cut

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x).relu(), self.right(x).relu()
        return self.head(left + (right.detach() if self.cut else right))


def at(step: int, change: Callable[[nn.Module], None]) -> Callable[[int, nn.Module, Tensor], Tensor]:
    """Does something to the model once."""

    def spoil(now: int, model: nn.Module, x: Tensor) -> Tensor:
        if now == step:
            with torch.no_grad():
                change(model)
        return x

    return spoil


def data_at(step: int, change: Callable[[Tensor], Tensor]) -> Callable[[int, nn.Module, Tensor], Tensor]:
    return lambda now, model, x: change(x) if now == step else x


def shift(layer: str, by: float) -> Callable[[nn.Module], None]:
    return lambda m: m.get_submodule(layer).bias.data.add_(by)


def grow(layer: str, by: float) -> Callable[[nn.Module], None]:
    return lambda m: m.get_submodule(layer).weight.data.mul_(by)


def one_unit(layer: str) -> Callable[[nn.Module], None]:
    return lambda m: m.get_submodule(layer).bias.data[:1].add_(5000.0)


def quieten(now: int, model: nn.Module, x: Tensor) -> Tensor:
    """From step 50 on, nine in ten units of the second layer do almost nothing."""
    if now >= 50:
        with torch.no_grad():
            model.get_submodule("2").weight[6:].mul_(1e-7)
            model.get_submodule("2").bias[6:].fill_(1e-7)
    return x


def without(start: str) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda m: torch.optim.Adam([p for n, p in m.named_parameters() if not n.startswith(start)], lr=1e-3)


def sharpen(model: nn.Module) -> None:
    grow("query", 30.0)(model)
    grow("key", 30.0)(model)


def wide() -> nn.Module:
    return mlp(3, width=256)


def sigmoids() -> nn.Module:
    return mlp(3, act=nn.Sigmoid)


def relu_rnn() -> nn.Module:
    return Sequence(nn.RNN(8, 32, batch_first=True, nonlinearity="relu"))


def recur(model: nn.Module) -> None:
    model.body.weight_hh_l0.data.mul_(4.0)


def overflow(now: int, model: nn.Module, x: Tensor) -> Tensor:
    return x * (1e38 if now > 80 and now % 4 == 0 else 1.0)


HEALTHY = [
    Run("mlp adam", mlp),
    Run("mlp sgd", mlp, sgd(0.05)),
    Run("mlp norm adamw", lambda: mlp(norm=True), adamw(1e-3)),
    Run("mlp tanh sgd", lambda: mlp(act=nn.Tanh), sgd(0.05)),
    Run("mlp gelu adamw", lambda: mlp(act=nn.GELU), adamw(2e-3)),
    Run("deep mlp adam", lambda: mlp(8)),
    Run("cnn adam", image_cnn),
    Run("cnn sgd", image_cnn, sgd(0.02)),
    Run("cnn norm adam", lambda: image_cnn(True)),
    Run("cnn norm sgd", lambda: image_cnn(True), sgd(0.05)),
    Run("lstm adam", lstm, adam(3e-3)),
    Run("rnn adamw", rnn, adamw(2e-3)),
    Run("attention adam", Attention, adam(2e-3)),
    Run("attention sgd", Attention, sgd(0.05)),
    Run("attention no norm adamw", lambda: Attention(norm=False), adamw(2e-3)),
    Run("branches adam", lambda: Branches(False)),
]
TANHS = ("1", "3", "5", "7")
# What one disease brings on besides itself is no false alarm.
AFTERMATH = ("exploding", "loss_spike", "nan", "update_ratio", "dead_relu", "dormant", "massive", "saturated", "vanishing")
AFTERMATH = (*AFTERMATH, "frozen", "low_precision", "poor_initialisation")
SICK = [
    Run("lr too high, sgd mlp", mlp, sgd(5.0, 0.0), "exploding|nan|loss_spike|dead_relu", also=AFTERMATH),
    Run("lr too high, adam cnn", image_cnn, adam(0.3), "update_ratio", also=AFTERMATH),
    Run("lr too low", mlp, sgd(1e-9), "update_ratio"),
    Run("deep sigmoid mlp", lambda: mlp(12, act=nn.Sigmoid), rule="vanishing", layers=("0",), also=("update_ratio",)),
    Run("tanh from large weights", lambda: scaled(mlp(4, act=nn.Tanh), 8.0), rule="saturated", layers=TANHS, also=AFTERMATH),
    Run("initialised too large", lambda: scaled(mlp(6), 6.0), rule="poor_initialisation", also=AFTERMATH),
    Run("initialised too small", lambda: scaled(mlp(6), 0.2), rule="poor_initialisation", also=AFTERMATH),
    Run("initialised to zero", lambda: scaled(mlp(4), 0.0), rule="poor_initialisation", layers=("0",), also=AFTERMATH),
    Run("dead relu", mlp, rule="dead_relu", layers=("3",), onset=60, spoil=at(60, shift("2", -50.0)), also=AFTERMATH),
    Run(
        "dead relu, cnn",
        image_cnn,
        rule="dead_relu",
        layers=("6",),
        onset=40,
        spoil=at(40, shift("5", -50.0)),
        also=AFTERMATH,
    ),
    Run(
        "dormant units",
        mlp,
        sgd(1e-3),
        "dormant",
        ("3",),
        50,
        quieten,
        also=AFTERMATH,
    ),
    Run("nan in the data", mlp, rule="nan", onset=73, spoil=data_at(73, lambda x: x / 0.0)),
    Run("division by zero", lambda: faulty("divide"), rule="nan", layers=("2",), onset=75, spoil=sicken(75)),
    Run("root of zero, backward", lambda: faulty("root"), rule="nan", layers=("1", "2"), onset=75, spoil=sicken(75)),
    Run("layer not in the optimizer", mlp, without("2."), "frozen", ("2",)),
    Run("branch cut off", lambda: Branches(True), rule="frozen", layers=("right",)),
    Run("one bad batch", mlp, sgd(0.02), "loss_spike", onset=90, spoil=data_at(90, lambda x: x * 300.0), also=AFTERMATH),
    Run(
        "attention collapses",
        Attention,
        rule="attention",
        layers=("softmax",),
        onset=50,
        spoil=at(50, sharpen),
        also=AFTERMATH,
    ),
    Run(
        "massive activation", wide, rule="massive", layers=("2", "3"), onset=60, spoil=at(60, one_unit("2")), also=AFTERMATH
    ),
    Run("exploding recurrence", relu_rnn, sgd(0.05), "exploding|loss_spike", onset=60, spoil=at(60, recur), also=AFTERMATH),
    Run("overflow skips steps", mlp, sgd(0.05), "skipped", onset=80, spoil=overflow, scaler=True, also=AFTERMATH),
    Run("float16 underflow", mlp, sgd(1e-4), "low_precision", dtype=torch.float16, also=AFTERMATH),
    Run(
        "sigmoid saturates",
        sigmoids,
        rule="saturated",
        layers=("3",),
        onset=50,
        spoil=at(50, grow("2", 400.0)),
        also=AFTERMATH,
    ),
]
