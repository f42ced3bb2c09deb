"""Attention that hands nothing out is looked at all the same: entropy and logits are the true ones of a few queries."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inspector import Monitor
from inspector.monitor import attention


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """Every query of every sequence, so that what is told can be compared."""
    monkeypatch.setattr(attention, "_SEQUENCES", 100)
    monkeypatch.setattr(attention, "_QUERIES", 100)


def told(model, run):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with Monitor(model, every=1) as monitor:
        run().float().square().sum().backward()
        optimizer.step()
    stats = monitor.history.stats
    name = stats.where(statistic="entropy").unique("name")
    values = [stats.line("output", name[0], statistic)[1].tolist() for statistic in ("entropy", "logits")]
    return name, *[value[0] for value in values]


def entropy(weights, allowed):
    """Mean over queries with a choice, as a share of the largest possible."""
    shares = [
        torch.special.entr(row).sum().item() / math.log(int(may.sum()))
        for row, may in zip(weights.flatten(0, -2), allowed.expand_as(weights).flatten(0, -2), strict=True)
        if may.sum() > 1
    ]
    return sum(shares) / len(shares)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 5}])
@pytest.mark.parametrize("masked", ["no", "causal", "padding", "both"])
def test_a_stock_attention_module(batch_first, sizes, masked):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=batch_first, dropout=0.3, **sizes)
    holder = nn.ModuleDict({"att": module})
    query = torch.randn(3, 4, 8)
    key, value = (torch.randn(3, 4, sizes.get(k, 8)) * 3 for k in ("kdim", "vdim"))
    inputs = [t if batch_first else t.transpose(0, 1) for t in (query, key, value)]
    causal = torch.ones(4, 4).triu(1).bool()
    padding = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]).bool()
    options = {"attn_mask": causal} if masked in ("causal", "both") else {}
    options |= {"key_padding_mask": padding} if masked in ("padding", "both") else {}
    name, share, logits = told(holder, lambda: module(*inputs, need_weights=False, **options)[0])
    allowed = torch.ones(3, 2, 4, 4).bool()
    allowed = allowed & ~causal if "attn_mask" in options else allowed
    allowed = allowed & ~padding[:, None, None, :] if "key_padding_mask" in options else allowed
    module.eval()
    weights = module(*inputs, average_attn_weights=False, **options)[1]
    assert name == ["att"]
    assert share == pytest.approx(entropy(weights.detach(), allowed), rel=1e-4)
    scores = [f.flatten() for f in weights.detach().log()[allowed].split(1)]
    assert logits > 0
    assert len(scores) == int(allowed.sum())


class Fused(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.qkv, self.options = nn.Linear(8, 24), options

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, **self.options)


@pytest.mark.parametrize("causal", [False, True])
def test_a_module_of_one_s_own_that_calls_the_fused_function(causal):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), Fused(is_causal=causal))
    x = torch.randn(3, 5, 8) * 4
    name, share, logits = told(model, lambda: model(x))
    q, k, _ = model[1].qkv(model[0](x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    scores = (q @ k.mT / 2).detach()
    allowed = torch.ones(5, 5).bool().tril() if causal else torch.ones(5, 5).bool()
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    assert name == ["1"]
    assert share == pytest.approx(entropy(weights, allowed), rel=1e-4)
    assert logits == pytest.approx((scores.abs() * allowed).max().item(), rel=1e-5)


def test_looking_changes_nothing_and_leaves_nothing_behind():
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), Fused())
    x = torch.randn(3, 5, 8)
    outputs = []
    for monitored in (False, True):
        torch.manual_seed(5)
        monitor = Monitor(model, every=1)
        if monitored:
            monitor.start()
        outputs.append(model(x).detach())
        monitor.stop()
    assert torch.equal(*outputs)
    assert torch._C._len_torch_function_stack() == 0


def test_a_call_that_raises_leaves_no_mode_behind():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError("the user's own")

    model = nn.Sequential(nn.Linear(8, 8), Broken())
    with Monitor(model, every=1):
        for _ in range(2):
            with pytest.raises(KeyError):
                model(torch.randn(2, 8))
        assert torch._C._len_torch_function_stack() == 0
