"""Odd models: what is captured is what raw hooks see, looking changes nothing, and what was seen comes back from disk."""

import functools
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from survey import forward_and_backward, judge
from torch import nn
from zoo import Function

from inspector import Store, capture
from inspector.sites import KINDS, Site
from inspector.tensors import walk

pytestmark = pytest.mark.filterwarnings("ignore")  # of nested tensors and old checkpoints


@dataclass(frozen=True)
class Deep:
    inner: Any
    parts: list = field(default_factory=list)
    nothing: None = None


@dataclass(slots=True)
class Slotted:
    value: torch.Tensor
    other: torch.Tensor | None = None


def frozen_dataclasses():
    inner = Function(lambda s, x: Deep(Slotted(s.a(x)), [s.a(x), None, (x,)]), a=nn.Linear(6, 6))
    return Function(lambda s, x: s.inner(x).inner.value * 2, inner=inner)


def odd_names():
    names = ["a@0", "b[1]", "c:output", "d'e", "f g", "ünï", 'q"q', "back\\slash"]
    parts = nn.ModuleDict({name: nn.Linear(6, 6) for name in names})
    return Function(lambda s, x: functools.reduce(lambda v, part: part(v), s.parts.values(), x), parts=parts)


def experts():
    def forward(self, x):
        weights, out = self.gate(x).softmax(-1), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            chosen = weights.argmax(-1) == i
            if chosen.any():
                out[chosen] = expert(x[chosen]) * weights[chosen, i : i + 1]
        return out

    return Function(forward, gate=nn.Linear(6, 4), experts=nn.ModuleList(nn.Linear(6, 6) for _ in range(4)))


def gradient_inside():
    def forward(self, x):
        x = x.detach().requires_grad_()
        return self.head(torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0])

    return Function(forward, energy=nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1)), head=nn.Linear(6, 2))


def complex_values():
    inner = Function(lambda s, x: torch.fft.rfft(s.a(x)).conj(), a=nn.Linear(6, 6))
    return Function(lambda s, x: s.inner(x) * 2, inner=inner)


def strange_containers():
    def inner(self, x):
        kept = defaultdict(list, a=[self.a(x), x])
        return {"kept": kept, "set": {1, 2}, ("t", 1): x * 2, 3: deque([x])}

    return Function(lambda s, x: s.inner(x)["kept"]["a"][0] * 2, inner=Function(inner, a=nn.Linear(6, 6)))


def called_its_own_way():
    class Around(nn.Linear):
        def __call__(self, x):
            return super().__call__(x * 2) + 1

    return nn.Sequential(Around(6, 6), nn.ReLU())


def hooks_that_replace():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[0].register_forward_hook(lambda module, args, output: output * 3)
    model[2].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return model


def views_written_before():
    def forward(self, x):
        y = self.view(self.a(x))
        y.add_(1)
        y[0] = 0
        return self.act(y)

    return Function(forward, a=nn.Linear(6, 6), view=Function(lambda s, x: x.view(2, 12)), act=nn.ReLU(inplace=True))


ODD = [
    frozen_dataclasses, odd_names, experts, gradient_inside, complex_values, strange_containers, called_its_own_way,
    hooks_that_replace, views_written_before,
]  # fmt: skip


def made(maker):
    torch.manual_seed(0)
    return maker(), forward_and_backward((torch.randn(4, 6),))


@pytest.mark.parametrize("maker", ODD, ids=lambda maker: maker.__name__)
def test_an_odd_model_is_captured_as_raw_hooks_see_it(maker):
    model, run = made(maker)
    assert judge(model, run) == []


@pytest.mark.parametrize("maker", ODD, ids=lambda maker: maker.__name__)
def test_every_value_of_an_odd_model_has_an_address_and_comes_back_from_disk(maker, tmp_path):
    model, run = made(maker)
    with capture(model, what=KINDS) as store:
        run(model)
    back = Store.load(store.save(tmp_path / "store.safetensors"))
    assert repr(back) == repr(store)
    for call in store.values():
        for kind in KINDS:
            for leaf, value in walk(getattr(call, kind)):
                site = Site(call.site.path, call.site.call, kind, leaf)
                assert Site.parse(str(site)) == site
                assert torch.equal(back.at(str(site)), value.detach())
