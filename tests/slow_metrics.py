"""Each metric once more, the slow way: one sample, one step and one position at a time, read off its paper."""

import math
from fractions import Fraction

import numpy as np
import torch
from torch import nn

from inspector.tensors import run


class Case:
    """A model, samples of one kind, and a map of them, with everything a slow definition needs spelled out."""

    def __init__(self, model, attribution, explained, axes, base):
        self.model, self.attribution = model.eval(), attribution
        self.samples = attribution.samples
        self.explained, self.axes, self.base = explained, axes, base  # the tensor that is explained; its positions
        self.heat = attribution.input_heat.double().flatten(1)
        valid = self.samples.valid
        self.valid = torch.ones_like(self.heat, dtype=torch.bool) if valid is None else valid

    def __len__(self):
        return len(self.samples)

    def order(self, i):
        """Valid positions of one sample, most relevant first, ties by the shuffle that the library states."""
        shuffle = torch.randperm(self.heat.shape[1], generator=torch.Generator().manual_seed(0)).tolist()
        positions = [p for p in shuffle if self.valid[i, p]]
        return sorted(positions, key=lambda p: -self.heat[i, p].item())  # sorted() is stable

    def output(self, i, removed):
        """The score of sample i with these positions replaced, in a batch of one."""
        x = self.explained[i : i + 1].clone()
        sizes = [x.shape[a] for a in self.axes]
        for p in removed:
            place = [slice(None)] * x.dim()
            for axis, index in zip(self.axes, np.unravel_index(p, sizes), strict=True):
                place[axis] = int(index)
            x[tuple(place)] = self.base[i : i + 1][tuple(place)]
        with torch.no_grad():
            inputs = (x, self.samples.valid[i : i + 1]) if isinstance(self.samples.inputs, tuple) else x
            return run(self.model, inputs)[0, self.attribution.target[i]].item()


def removal_curve(case, steps, *, insert=False, order="most"):
    rows = []
    steps = min(steps, max(int(v.sum()) for v in case.valid))
    for i in range(len(case)):
        ranked = case.order(i) if order == "most" else case.order(i)[::-1]
        row = []
        for step in range(steps + 1):
            count = math.floor(Fraction(step * len(ranked), steps) + Fraction(1, 2))
            row.append(case.output(i, ranked[count:] if insert else ranked[:count]))
        rows.append(row)
    return np.array(rows)


def area(curve):
    return np.trapezoid(curve, np.linspace(0, 1, curve.shape[1]), axis=1)


def eraser(case, shares, *, sufficient):
    found = []
    for i in range(len(case)):
        ranked, falls = case.order(i), []
        for share in shares:
            count = max(1, math.ceil(round(share * len(ranked), 9)))
            falls.append(case.output(i, []) - case.output(i, ranked[count:] if sufficient else ranked[:count]))
        found.append(np.mean(falls))
    return np.array(found)


def draws_of(case, removed):
    """(foretold, fall) for every sample and draw."""
    for i in range(len(case)):
        foretold = [case.heat[i][mask[i]].sum().item() for mask in removed]
        fall = [case.output(i, []) - case.output(i, mask[i].nonzero().flatten().tolist()) for mask in removed]
        yield np.array(foretold), np.array(fall)


def infidelity(case, removed):
    found = []
    for foretold, fall in draws_of(case, removed):
        scale = (foretold @ fall) / (foretold @ foretold)
        found.append(np.mean((scale * foretold - fall) ** 2) / np.mean(fall**2))
    return np.array(found)


def sensitivity_n(case, removed_by_size):
    sizes = [[np.corrcoef(*pair)[0, 1] for pair in draws_of(case, removed)] for removed in removed_by_size]
    return np.mean(sizes, axis=0)


def gini(values):
    """Half the mean absolute difference over the mean."""
    values = np.abs(values)
    return np.abs(values[:, None] - values[None]).sum() / (2 * len(values) ** 2 * values.mean())


def entropy(values):
    shares = np.abs(values) / np.abs(values).sum()
    return -sum(p * math.log(p) for p in shares if p > 0)


def auroc(values, truth):
    """The share of pairs in which the evidence is above, ties counting a half."""
    inside, outside = values[truth], values[~truth]
    return np.mean([(a > b) + 0.5 * (a == b) for a in inside for b in outside])


def relevance_rank(values, truth, trials=600):
    generator, count = np.random.default_rng(0), truth.sum()
    hits = []
    for _ in range(trials):
        shuffle = generator.permutation(len(values))
        top = shuffle[np.argsort(-values[shuffle], kind="stable")][:count]
        hits.append(truth[top].mean())
    return np.mean(hits)


def threshold_areas(values, truth):
    from sklearn.metrics import auc, precision_recall_curve

    scaled = (values - values.min()) / (values.max() - values.min())
    precision, recall, thresholds = precision_recall_curve(truth, scaled)
    return auc(thresholds, precision[:-1]), auc(thresholds, recall[:-1])


class TokenModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6, padding_idx=0)
        self.mix = nn.Linear(6, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, ids):
        return self.out(torch.tanh(self.mix(self.embedding(ids))).cumsum(1).tanh().mean(1))


class StepModel(nn.Module):
    """Takes its padding mask as a second input."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 6, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, steps, valid):
        states = self.lstm(steps)[0]
        return self.out((states * valid[..., None]).sum(1) / valid.sum(1, keepdim=True))


def pixel_model():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4 * 3, 3))


def row_model():
    return nn.Sequential(nn.Linear(7, 12), nn.Tanh(), nn.Linear(12, 3))
