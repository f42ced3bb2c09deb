"""Trainings as people run them, none of them sick: what the rules say of them is wrong, or noise.

The shipped models by their own recipes, models of torchvision from scratch and in transfer, and the habits that look
like diseases to a rule: warmup and decay to zero, layers frozen or left out, blocks that begin as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
import torchvision
from sklearn import datasets
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from inspector import Finding, Monitor
from inspector.models.answers import class_scores
from inspector.models.shipped import MODELS, build

Loss = Callable[[nn.Module], Tensor]  # of the next batch
Pair = tuple[Tensor, Tensor]
Told = list[tuple[int, Finding]]
KINDS = ("output", "grad", "param", "param_grad", "update")


@dataclass
class Real:
    """One training. start: the model, and the loss of its next batch; rate: the factor on the learning rate at a share
    of the run; accumulate: backward passes to a step; clip: the largest norm of a gradient."""

    name: str
    start: Callable[[], tuple[nn.Module, Loss]]
    optimizer: Callable[[nn.Module], Optimizer]
    steps: int = 150
    rate: Callable[[float], float] = lambda share: 1.0
    accumulate: int = 1
    clip: float | None = None
    half: bool = False  # under autocast to bfloat16


def train(real: Real) -> tuple[Told, Told]:
    """What is told as a Monitor comes, and with every kind measured at every step."""
    torch.manual_seed(0)
    model, loss_of = real.start()
    optimizer = real.optimizer(model.train())
    rate = LambdaLR(optimizer, lambda done: real.rate((done + 1) / real.steps))
    told: tuple[Told, Told] = ([], [])
    with Monitor(model, optimizer) as plain, Monitor(model, optimizer, every=1, what=KINDS) as full:
        for step in range(1, real.steps + 1):
            optimizer.zero_grad()
            total = torch.zeros(())
            for _ in range(real.accumulate):
                with torch.autocast("cpu", torch.bfloat16, enabled=real.half):
                    loss = loss_of(model) / real.accumulate
                loss.backward()
                total = total + loss.detach()
            if real.clip:
                nn.utils.clip_grad_norm_(model.parameters(), real.clip)
            optimizer.step()
            rate.step()
            for kept, monitor in zip(told, (plain, full), strict=True):
                kept += [(step, finding) for finding in monitor.log(loss=total)]
    return told


def cosine(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))


def warm(share: float) -> float:
    """A tenth of the run up from zero, then down to zero along a cosine."""
    return share / 0.1 if share < 0.1 else cosine((share - 0.1) / 0.9)


@lru_cache
def digits() -> Pair:
    """(1797, 3, 32, 32) grey digits in three channels, standardised; labels."""
    found = datasets.load_digits()
    small = torch.tensor(found.images, dtype=torch.float32)[:, None]
    large = F.interpolate(small, 32, mode="bilinear").repeat(1, 3, 1, 1)
    return (large - large.mean()) / large.std(), torch.tensor(found.target)


@lru_cache
def photographs() -> list[Tensor]:
    """Two photographs (3, 427, 640), standardised."""
    return [(torch.tensor(image).permute(2, 0, 1) / 255.0 - 0.45) / 0.25 for image in datasets.load_sample_images().images]


def crops(batch: int, size: int) -> Pair:
    """Random crops; the label is the photograph and the quarter of it."""
    kept, labels = [], []
    for which in torch.randint(2, (batch,)).tolist():
        image = photographs()[which]
        top, left = int(torch.randint(427 - size, ())), int(torch.randint(640 - size, ()))
        kept.append(image[:, top : top + size, left : left + size])
        labels.append(4 * which + 2 * (top > (427 - size) / 2) + (left > (640 - size) / 2))
    return torch.stack(kept), torch.tensor(labels)


@lru_cache
def text() -> Tensor:
    """The descriptions that come with scikit-learn's data sets, as bytes."""
    loaders = (datasets.load_digits, datasets.load_wine, datasets.load_breast_cancer, datasets.load_diabetes)
    words = "".join(load().DESCR for load in loaders)
    return torch.tensor(list(words.encode()), dtype=torch.long)


def on(batches: Callable[[], Pair], smoothing: float = 0.0) -> Callable[[nn.Module], Tensor]:
    def loss(model: nn.Module) -> Tensor:
        inputs, labels = batches()
        return F.cross_entropy(model(inputs), labels, label_smoothing=smoothing)

    return loss


def some(data: Callable[[], Pair], batch: int) -> Callable[[], Pair]:
    def batches() -> Pair:
        inputs, labels = data()
        rows = torch.randint(len(inputs), (batch,))
        return inputs[rows], labels[rows]

    return batches


DIGITS = on(some(digits, 16))
CROPS = on(partial(crops, 16, 64))


def vit(dropout: float = 0.0) -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 4, 4, 64, 128, dropout=dropout, num_classes=10)


def convnext() -> nn.Module:
    """Its blocks begin as nearly the identity: their scale is a millionth."""
    setting = [torchvision.models.convnext.CNBlockConfig(c, d, 2) for c, d in ((24, 48), (48, 96), (96, None))]
    return torchvision.models.ConvNeXt(setting, stochastic_depth_prob=0.1, num_classes=10)


def headless(make: Callable[[], nn.Module], head: str) -> nn.Module:
    """A head that begins at zero: at the first step no gradient passes it."""
    model = make()
    nn.init.zeros_(model.get_submodule(head).weight)  # type: ignore[arg-type]
    return model


def trained(kept: Callable[[nn.Module], nn.Module], steps: int = 60) -> tuple[nn.Module, Loss]:
    """A resnet18 that learned the photographs, made ready by ``kept`` to learn the digits."""
    model = torchvision.models.resnet18(num_classes=8)
    optimizer = AdamW(model.parameters(), 1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        on(partial(crops, 16, 32))(model).backward()
        optimizer.step()
    model.fc = nn.Linear(512, 10)
    return kept(model), DIGITS


def frozen(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    return model


def half_frozen(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("fc.", "layer4.")))
    return model


class Adapted(nn.Module):
    """A linear layer that is kept, and a small one beside it that begins at zero (LoRA)."""

    def __init__(self, kept: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.kept, self.down = kept.requires_grad_(False), nn.Linear(kept.in_features, rank, bias=False)
        self.up = nn.Linear(rank, kept.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.kept(x) + self.up(self.down(x))  # type: ignore[no-any-return]


def adapted() -> nn.Module:
    layers = [layer for _ in range(4) for layer in (Adapted(nn.Linear(128, 128)), nn.GELU())]
    flat = [nn.Flatten(), nn.Linear(3072, 128).requires_grad_(False)]
    return nn.Sequential(*flat, *layers, nn.Linear(128, 10))


class Writer(nn.Module):
    """A small GPT on bytes, its embedding also its head."""

    def __init__(self, width: int = 64, layers: int = 3, length: int = 48) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, width), nn.Embedding(length, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 256, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        h = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.blocks(h, mask=mask, is_causal=True))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.tokens, self.body = nn.Embedding(256, width), nn.LSTM(width, width, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(width, 256)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.tokens(ids))[0])  # type: ignore[no-any-return]


def writing(batch: int = 16, length: int = 48) -> Loss:
    def loss(model: nn.Module) -> Tensor:
        starts = torch.randint(len(text()) - length - 1, (batch, 1))
        ids = text()[starts + torch.arange(length + 1)]
        return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    return loss


class Experts(nn.Module):
    """Four experts, of which each sample asks the best one, told with noise so that none is forgotten."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed, self.gate = nn.Linear(3072, width), nn.Linear(width, 4)
        one = lambda: nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))  # noqa: E731
        self.experts, self.head = nn.ModuleList(one() for _ in range(4)), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.flatten(1)).relu()
        score = self.gate(h)
        weight, which = (score + torch.randn_like(score)).softmax(-1).max(-1)
        mixed = torch.zeros_like(h)
        for i, expert in enumerate(self.experts):
            rows = which == i
            if rows.any():
                mixed = mixed.index_add(0, rows.nonzero()[:, 0], weight[rows, None] * expert(h[rows]))
        return self.head(h + mixed)  # type: ignore[no-any-return]


class Variational(nn.Module):
    """Digits through a narrow code with noise, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 16))
        self.decode = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, 64), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encode(x).chunk(2, -1)
        spread = (log_variance.exp() - 1.0 - log_variance + mean**2).sum(1).mean() / 2
        return self.decode(mean + torch.randn_like(mean) * (0.5 * log_variance).exp()), spread


@lru_cache
def flat_digits() -> Tensor:
    return torch.tensor(datasets.load_digits().data, dtype=torch.float32) / 16.0


def rebuilding(model: nn.Module) -> Tensor:
    x = flat_digits()[torch.randint(1797, (64,))]
    again, spread = model(x)
    return F.binary_cross_entropy(again, x, reduction="sum") / len(x) + spread  # type: ignore[no-any-return]


def game() -> tuple[nn.Module, Loss]:
    """A critic of digits, against a generator that learns between its steps."""
    critic = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
    maker = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64), nn.Sigmoid())
    optimizer = torch.optim.Adam(maker.parameters(), 2e-4, (0.5, 0.999))

    def loss(model: nn.Module) -> Tensor:
        optimizer.zero_grad()
        F.softplus(-model(maker(torch.randn(64, 16)))).mean().backward()
        optimizer.step()
        model.zero_grad()
        made = maker(torch.randn(64, 16)).detach()
        real = flat_digits()[torch.randint(1797, (64,))]
        return F.softplus(-model(real)).mean() + F.softplus(model(made)).mean()

    return critic, loss


def from_noise() -> tuple[nn.Module, Loss]:
    """Predicts the noise that was laid over a digit, at any strength (diffusion)."""
    model = nn.Sequential(nn.Linear(65, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 64))

    def loss(model: nn.Module) -> Tensor:
        x = 2.0 * flat_digits()[torch.randint(1797, (64,))] - 1.0
        t, noise = torch.rand(64, 1), torch.randn(64, 64)
        seen = (1 - t).sqrt() * x + t.sqrt() * noise
        return F.mse_loss(model(torch.cat([seen, t], 1)), noise)

    return model, loss


def shipped(name: str) -> Real:
    """A shipped model, by its own recipe to its end."""
    row = MODELS[name]

    def start() -> tuple[nn.Module, Loss]:
        samples, order = row.task().train, torch.empty(0, dtype=torch.long)

        def loss(model: nn.Module) -> Tensor:
            nonlocal order
            if len(order) < row.batch_size:
                order = torch.randperm(len(samples))
            batch, order = samples[order[: row.batch_size]], order[row.batch_size :]
            return F.cross_entropy(class_scores(model, batch), torch.as_tensor(batch.target))

        return build(name), loss

    steps = row.epochs * (len(row.task().train) // row.batch_size)
    return Real(f"shipped {name}", start, lambda m: torch.optim.Adam(m.parameters(), row.lr), steps, cosine)


def sgd(lr: float, decay: float = 5e-4) -> Callable[[nn.Module], Optimizer]:
    return lambda m: SGD([p for p in m.parameters() if p.requires_grad], lr, momentum=0.9, weight_decay=decay)


def adamw(lr: float, decay: float = 0.01) -> Callable[[nn.Module], Optimizer]:
    return lambda m: AdamW([p for p in m.parameters() if p.requires_grad], lr, weight_decay=decay)


def decayed(lr: float) -> Callable[[nn.Module], Optimizer]:
    """Weight decay of 0.1 for matrices, none for the rest."""

    def made(model: nn.Module) -> Optimizer:
        matrices = [p for p in model.parameters() if p.dim() > 1]
        rest = [p for p in model.parameters() if p.dim() < 2]
        return AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr, (0.9, 0.95))

    return made


def fresh(make: Callable[[], nn.Module], loss: Loss) -> Callable[[], tuple[nn.Module, Loss]]:
    return lambda: (make(), loss)


resnet = partial(torchvision.models.resnet18, num_classes=10)
zero_resnet = partial(torchvision.models.resnet18, num_classes=10, zero_init_residual=True)
on_crops = partial(torchvision.models.resnet18, num_classes=8)
mobile2 = partial(torchvision.models.mobilenet_v2, num_classes=10)
mobile3 = partial(torchvision.models.mobilenet_v3_small, num_classes=10)

REAL = [
    Real("resnet18, SGD, cosine", fresh(resnet, DIGITS), sgd(0.05), rate=cosine),
    Real("resnet18, AdamW, warmup and cosine", fresh(resnet, DIGITS), adamw(1e-3, 0.1), rate=warm),
    Real("resnet18, zero-init residuals", fresh(zero_resnet, DIGITS), sgd(0.05), rate=warm),
    Real("resnet18, photographs, bfloat16", fresh(on_crops, CROPS), adamw(1e-3), rate=warm, half=True),
    Real("resnet18, accumulated, clipped", fresh(resnet, DIGITS), sgd(0.05), 60, cosine, accumulate=4, clip=1.0),
    Real("mobilenet v2, SGD", fresh(mobile2, DIGITS), sgd(0.01), rate=warm),
    Real("mobilenet v3, AdamW", fresh(mobile3, DIGITS), adamw(2e-3), rate=warm),
    Real("convnext, layer scale", fresh(convnext, DIGITS), adamw(4e-3, 0.05), rate=warm),
    Real("vit, dropout, smoothing", fresh(partial(vit, 0.1), on(some(digits, 16), 0.1)), decayed(1e-3), rate=warm),
    Real("vit, head from zero", fresh(partial(headless, vit, "heads.head"), DIGITS), decayed(1e-3), rate=cosine),
    Real("transfer, head only", partial(trained, frozen), adamw(1e-3)),
    Real("transfer, last stage", partial(trained, half_frozen), sgd(0.01), rate=cosine),
    Real("transfer, AdamW at 1e-5", partial(trained, nn.Module.train), adamw(1e-5)),
    Real("transfer, SGD at 1e-5", partial(trained, nn.Module.train), sgd(1e-5)),
    Real("adapters from zero", fresh(adapted, DIGITS), adamw(1e-3)),
    Real("gpt on bytes", fresh(Writer, writing()), decayed(1e-3), 300, warm, clip=1.0),
    Real("lstm on bytes", fresh(Recurrent, writing()), adamw(2e-3), 300, clip=1.0),
    Real("experts", fresh(Experts, DIGITS), adamw(1e-3)),
    Real("variational", fresh(Variational, rebuilding), adamw(1e-3), 400),
    Real("game", game, lambda m: torch.optim.Adam(m.parameters(), 2e-4, (0.5, 0.999)), 400),
    Real("from noise", from_noise, adamw(1e-3), 400),
    *(shipped(name) for name in MODELS),
]
