"""Small models of every awkward kind, each with inputs and a loss; the laws run over all of them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Pair = namedtuple("Pair", "first second")


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class Function(nn.Module):
    """A forward given as a function of (module, x), with the parts it may use."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


def in_place():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4), nn.ReLU(inplace=True))


def written_over():
    def forward(self, x):
        hidden = self.a(x)
        hidden += 1
        hidden.mul_(2)
        return self.b(hidden)

    return Function(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 4))


def residual_in_place():
    def forward(self, x):
        out = self.a(x)
        out += x
        return self.act(out)

    return Function(forward, a=nn.Linear(6, 6), act=nn.ReLU(inplace=True))


def shared():
    part = nn.Linear(6, 6)
    act = nn.Tanh()
    return Function(lambda s, x: s.a(s.act(s.b(s.act(s.a(x))))), a=part, b=part, act=act)


def loop():
    def forward(self, x):
        for _ in range(3):
            x = self.act(self.cell(x))
        return x

    return Function(forward, cell=nn.Linear(6, 6), act=nn.ReLU())


def recursion():
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x, depth=2):
            x = self.a(x)
            return self(x, depth - 1) if depth else x

    return Deep()


def dict_output():
    return Function(
        lambda s, x: {"logits": s.head(s.body(x)), "hidden": s.body(x)}, body=nn.Linear(6, 5), head=nn.Linear(5, 4)
    )


def dataclass_output():
    return Function(
        lambda s, x: Answer(s.head(h := s.body(x)), h),
        body=Function(lambda s, x: Answer(x * 2).logits),
        head=nn.Linear(6, 4),
    )


def nested_output():
    def inner(self, x):
        return Pair(self.a(x), [self.b(x), {"deep": (self.a(x) * 2, None, 3)}])

    return Function(
        lambda s, x: s.inner(x).first + s.inner(x).second[1]["deep"][0],
        inner=Function(inner, a=nn.Linear(6, 4), b=nn.Linear(6, 4)),
    )


def lstm():
    def forward(self, x):
        states, (h, _) = self.lstm(x.reshape(4, 3, 2))
        return self.head(states[:, -1] + h[-1])

    return Function(forward, lstm=nn.LSTM(2, 5, batch_first=True), head=nn.Linear(5, 4))


def packed():
    def forward(self, x):
        sequence = pack_padded_sequence(
            x.reshape(4, 3, 2), torch.tensor([3, 2, 1, 3]), batch_first=True, enforce_sorted=False
        )
        states, _ = self.gru(sequence)
        return self.head(pad_packed_sequence(states, batch_first=True)[0].sum(1))

    return Function(forward, gru=nn.GRU(2, 5, batch_first=True), head=nn.Linear(5, 4))


def frozen():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    for p in model.parameters():
        p.requires_grad_(False)
    return model


def half_frozen():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    for p in model[0].parameters():
        p.requires_grad_(False)
    return model


def views():
    return nn.Sequential(
        nn.Linear(6, 6), nn.Unflatten(1, (2, 3)), nn.Flatten(), nn.ReLU(inplace=True), nn.Identity(), nn.Dropout(0.0)
    )


def chunked():
    def forward(self, x):
        one, two = self.split(self.a(x))
        one.add_(1)
        return one * two

    return Function(forward, a=nn.Linear(6, 8), split=Function(lambda s, x: (x[:, :4], x[:, 4:])))


def keywords():
    return Function(
        lambda s, x: s.inner(scale=2.0, x=x), inner=Function(lambda s, *, x, scale: s.a(x) * scale, a=nn.Linear(6, 4))
    )


def norms():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.LayerNorm(5), nn.GELU())


def unused_branch():
    def forward(self, x):
        one, two = self.fork(x)
        return self.a(one)

    fork = Function(lambda s, x: (x * 2, s.b(x)), b=nn.Linear(6, 6))
    return Function(forward, fork=fork, a=nn.Linear(6, 4), never=nn.Linear(2, 2), bag=nn.ModuleList([nn.Linear(6, 6)]))


def embedded():
    return Function(
        lambda s, x: s.head(s.table((x.abs() * 3).long() % 7).mean(1)), table=nn.Embedding(7, 5), head=nn.Linear(5, 4)
    )


def parametrized():
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)),
        nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4)),
    )


def attention():
    def forward(self, x):
        tokens = x.reshape(4, 3, 2).repeat(1, 1, 2)
        mixed, _ = self.attn(tokens, tokens, tokens)
        return self.head(mixed.mean(1))

    return Function(forward, attn=nn.MultiheadAttention(4, 2, batch_first=True), head=nn.Linear(4, 4))


def encoder():
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, dropout=0.0, batch_first=True)
    return Function(
        lambda s, x: s.enc(x.reshape(4, 3, 2).repeat(1, 1, 2)).mean(1),
        enc=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
    )


def conv():
    return Function(
        lambda s, x: s.body(x.reshape(4, 1, 2, 3)).flatten(1),
        body=nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d((1, 2))),
    )


def functional():
    return Function(lambda s, x: s.b(F.relu(s.a(x), inplace=True)), a=nn.Linear(6, 5), b=nn.Linear(5, 4))


MAKERS = [
    in_place, written_over, residual_in_place, shared, loop, recursion, dict_output, dataclass_output, nested_output, lstm,
    packed, frozen, half_frozen, views, chunked, keywords, norms, unused_branch, embedded, parametrized, attention, encoder,
    conv, functional,
]  # fmt: skip
NAMES = [maker.__name__ for maker in MAKERS]


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A fresh model and a batch of four rows of six numbers, the same for the same name."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return MAKERS[NAMES.index(name)](), torch.randn(4, 6)


def loss_of(output: Any) -> torch.Tensor:
    """One number from whatever a model answers."""
    if isinstance(output, torch.Tensor):
        return (output**2).sum()
    if isinstance(output, dict):
        return loss_of(output["logits"])
    return loss_of(output.logits)
