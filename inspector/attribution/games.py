"""Methods that switch features on and off in combination: Shapley values, KernelSHAP, LIME, RISE. The whole batch shares
the combinations, so that no example waits for another."""

from __future__ import annotations

from math import comb
from typing import Any

import torch
from torch import Tensor

from inspector.attribution.features import Features, features, smooth_masks
from inspector.attribution.perturb import Masks, Values, taken_away
from inspector.attribution.question import Question


def feature_ablation(question: Question, *, feature_mask: Any = "elements") -> Values:
    """The score lost when a feature is replaced by the baseline. feature_mask: integers like one sample's values (or the
    batch's), the elements of one number are one feature; "elements" (each its own), "grid" or "superpixels"."""
    cut = features(question, feature_mask)
    return taken_away(question, [_each_feature(numbers) for numbers in cut.numbers], average=False)


def feature_permutation(question: Question, *, feature_mask: Any = None) -> Values:
    """The score lost when a feature's values are shuffled among the samples of the batch (Fisher et al. 2019)."""
    if question.size < 2:
        raise ValueError("feature_permutation shuffles values among samples, so it needs at least 2; take feature_ablation")
    orders = [torch.randperm(question.size) for _ in question.values]
    question.baselines = tuple(v[order.to(v.device)] for v, order in zip(question.values, orders, strict=True))
    cut = features(question, feature_mask)
    return taken_away(question, [_each_feature(numbers) for numbers in cut.numbers], average=False)


def _each_feature(numbers: Tensor) -> Masks:
    each = torch.unique(numbers).reshape(-1, *[1] * numbers.dim())
    return Masks(len(each), lambda start, n: numbers == each[start : start + n])


def shapley_value_sampling(question: Question, *, n_samples: int = 25, feature_mask: Any = None) -> tuple[Values, Tensor]:
    """Each feature's mean gain over n_samples random orders of adding features to the baseline (Castro et al. 2009)."""
    with torch.no_grad():
        cut = features(question, feature_mask)
        here, there = cut.ends()
        worth = torch.zeros(question.size, cut.count, device=here.device, dtype=here.dtype)
        together = max(1, question.copies() // cut.count)
        for start in range(0, n_samples, together):
            orders = torch.rand(min(together, n_samples - start), cut.count).argsort(1)
            worth += _gains(cut, orders, here, there) / n_samples
    return cut.spread(worth), worth.sum(1) - (here - there)


def _gains(cut: Features, orders: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """(batch, features) what each feature gains when it is added, summed over the orders (orders, features)."""
    place = orders.argsort(1)
    on = place[:, None] <= torch.arange(cut.count - 1)[:, None]  # (orders, features added, features)
    middle = cut.scores(on.flatten(0, 1)).reshape(len(orders), cut.count - 1, -1) if cut.count > 1 else None
    first, last = (end.expand(len(orders), 1, -1) for end in (there, here))
    scores = torch.cat([first, last] if middle is None else [first, middle, last], 1)
    steps = scores[:, 1:] - scores[:, :-1]
    return steps.gather(1, place.to(steps.device)[..., None].expand_as(steps)).sum(0).T


def kernel_shap(question: Question, *, n_samples: int | None = None, feature_mask: Any = None) -> tuple[Values, Tensor]:
    """Shapley values by weighted regression on coalitions (Lundberg and Lee 2017), summing to the difference exactly.

    n_samples: coalitions, by default 2 * features + 256; where these are all there are, the answer is exact.
    """
    with torch.no_grad():
        cut = features(question, feature_mask)
        here, there = cut.ends()
        if cut.count == 1:
            worth = (here - there)[:, None]
        else:
            on, weight = _coalitions(cut.count, n_samples or 2 * cut.count + 256)
            gains, whole = (cut.scores(on) - there).cpu().double(), (here - there).cpu().double()
            on, weight = on.double(), weight.double()
            worth = cut.each_own(lambda own, some: _summing(on[:, own], gains[:, some], whole[some], weight)).to(here)
    return cut.spread(worth), worth.sum(1) - (here - there)


def _coalitions(count: int, n: int) -> tuple[Tensor, Tensor]:
    """(coalitions, features) and weights: all of them where they are few, else drawn by the Shapley kernel in pairs."""
    if count < 20 and 2**count - 2 <= n:
        on = (torch.arange(1, 2**count - 1)[:, None] >> torch.arange(count)) & 1
        sizes = on.sum(1).double()
        ways = torch.tensor([comb(count, int(size)) for size in sizes.tolist()]).double()
        return on.bool(), (count - 1) / (ways * sizes * (count - sizes))
    sizes = torch.arange(1, count).double()
    drawn = 1 + torch.multinomial((count - 1) / (sizes * (count - sizes)), max(1, n // 2), replacement=True)
    ranks = torch.rand(len(drawn), count).argsort(1).argsort(1)
    half = ranks < drawn[:, None]
    return torch.cat([half, ~half]), torch.ones(2 * len(half))


def _summing(on: Tensor, gains: Tensor, whole: Tensor, weight: Tensor) -> Tensor:
    """(batch, features): weighted least squares under the constraint that each row sums to ``whole``."""
    if on.shape[1] == 1:
        return whole[:, None]
    design = on[:, :-1] - on[:, -1:]
    wanted = gains - on[:, -1:] * whole
    root = weight.sqrt()[:, None]
    some = torch.linalg.lstsq(root * design, root * wanted, driver="gelsd").solution
    return torch.cat([some, whole[None] - some.sum(0, keepdim=True)]).T


def lime(
    question: Question,
    *,
    n_samples: int | None = None,
    feature_mask: Any = None,
    alpha: float = 0.01,
    kernel_width: float = 0.25,
) -> Values:
    """The coefficients of a ridge regression on random combinations of features, near ones weighted more (Ribeiro et al.
    2016). n_samples: by default 2 * features + 256; alpha: of the ridge; kernel_width: in cosine distance."""
    with torch.no_grad():
        cut = features(question, feature_mask)
        question.weigh()
        on = torch.rand(n_samples or 2 * cut.count + 256, cut.count) < 0.5
        on[0] = True
        scores, on = cut.scores(on).cpu().double(), on.double()
        worth = cut.each_own(lambda own, some: _ridge(on[:, own], scores[:, some], alpha, kernel_width))
    return cut.spread(worth.to(question.values[0].device, question.values[0].dtype))


def _ridge(on: Tensor, scores: Tensor, alpha: float, kernel_width: float) -> Tensor:
    """(batch, features) coefficients with a free intercept, states near the one with everything there weighted more."""
    weight = torch.exp(-(((1 - on.mean(1).sqrt()) / kernel_width) ** 2))
    share = weight / weight.sum()
    design, wanted = on - (share[:, None] * on).sum(0), scores - (share[:, None] * scores).sum(0)
    square = design.T @ (weight[:, None] * design) + alpha * torch.eye(on.shape[1], dtype=on.dtype)
    found: Tensor = torch.linalg.solve(square, design.T @ (weight[:, None] * wanted))
    return found.T


def rise(question: Question, *, n_samples: int = 500, keep: float = 0.5) -> Values:
    """The mean score where a position was kept, over n_samples smooth random masks (Petsiuk et al. 2018), less the mean
    score of all masks, so that a position that does not matter is near 0. keep: the chance of a cell to be kept."""
    with torch.no_grad():
        question.weigh()
        total = [torch.zeros_like(v) for v in question.values]
        seen = [torch.zeros_like(v[:1]) for v in question.values]
        overall = torch.zeros(question.size, device=question.values[0].device, dtype=question.values[0].dtype)
        for _, count in question.parts(n_samples):
            masks = [_masks(v, s.positions, count, keep) for v, s in zip(question.values, question.slots, strict=True)]
            score = question.score(*_mixed(question, masks)).reshape(count, -1)
            overall += score.sum(0) / n_samples
            for i, mask in enumerate(masks):
                total[i] += (score.reshape(count, -1, *[1] * (mask.dim() - 1)) * mask[:, None]).sum(0)
                seen[i] += mask.sum(0, keepdim=True)
    flat = [overall.reshape(-1, *[1] * (v.dim() - 1)) for v in question.values]
    return tuple(t / s.clamp(min=1e-6) - o for t, s, o in zip(total, seen, flat, strict=True))


def _masks(value: Tensor, positions: Any, count: int, keep: float) -> Tensor:
    return smooth_masks(value.shape[1:], positions or (), count, keep).to(value)


def _mixed(question: Question, masks: list[Tensor]) -> list[Tensor]:
    parts = zip(question.values, question.baselines, masks, strict=True)
    return [(base + mask[:, None] * (value - base)).flatten(0, 1) for value, base, mask in parts]
