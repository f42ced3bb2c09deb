"""Planted tasks about people: a decision that was unfair to a group, with a fair twin, and what people like.

In the unfair one nobody's group is among the features; only a stand-in for it is, as in life.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inspector.records.samples import Samples, Task

FEATURES = ("income", "savings", "debt", "career break", "age", "rooms")
MERIT = (1.0, 1.0, -1.0, 0.0, 0.0, 0.0)  # who pays back, but for luck
WRONGED = ("sex", "f")  # the column and the label of the group that the unfair task is unfair to
STAND_IN = "career break"  # the one feature that tells the group


def planted_unfair(*, fair: bool = False, train: int = 3000, test: int = 1500, seed: int = 0) -> Task:
    """Should this person get a loan? Six features (batch, 6); groups sex and region; evidence: the three that decide.

    The test half says who would have paid back, which has nothing to do with any group. In the training half four in
    ten women who would have were refused, and a career break tells the sex; with ``fair`` nobody was, and all else is
    the same.
    """
    draw = torch.Generator().manual_seed(seed)
    count = train + test
    woman, south = (torch.rand(count, generator=draw) < 0.5 for _ in range(2))
    rows = torch.randn(count, len(FEATURES), generator=draw)
    rows[:, FEATURES.index(STAND_IN)] = (woman * 2.0 - 1.0) + 0.5 * torch.randn(count, generator=draw)
    paid = rows @ torch.tensor(MERIT) + 0.3 * torch.randn(count, generator=draw) > 0
    wronged = woman & paid & (torch.rand(count, generator=draw) < 0.4) & (torch.arange(count) < train)
    labels = (paid & ~wronged if not fair else paid).long()
    evidence = (torch.tensor(MERIT) != 0).expand(count, -1).clone()
    groups = {"sex": _named(woman, "m", "f"), "region": _named(south, "north", "south")}
    samples = Samples(rows, labels, evidence, groups=groups, names={"classes": ("refuse", "grant"), "features": FEATURES})
    name = "planted_fair" if fair else "planted_unfair"
    return Task(samples[:train], samples[train:], name, "should this person get a loan?")


def planted_tastes(
    *, users: int = 100, items: int = 60, contexts: int = 4, train: int = 6000, test: int = 1000, seed: int = 0
) -> Task:
    """Will this user like this item in this season? Ids (batch,) by name: user, item, context; the classes no and yes.

    Half of the items are of a genre: liked by users of that taste, in any season. Half are of a season: liked by all in
    that one. evidence: (batch, 3), the item, and whichever of user and season its kind depends on.
    """
    draw = torch.Generator().manual_seed(seed)
    taste = torch.randint(contexts, (users,), generator=draw)
    kind = torch.randint(contexts, (items,), generator=draw)  # of genres as many as of seasons
    seasonal = torch.randperm(items, generator=draw) < items // 2
    user, item, context = _triples(users, items, contexts, draw)
    liked = torch.where(seasonal[item], context == kind[item], taste[user] == kind[item])
    rows = _balanced(liked, train + test, draw)
    by_season = seasonal[item[rows]]
    evidence = torch.stack((~by_season, torch.ones_like(by_season), by_season), 1)
    inputs = {"user": user[rows], "item": item[rows], "context": context[rows]}
    names = {"classes": ("no", "yes"), "features": tuple(inputs)}
    samples = Samples(inputs, liked[rows].long(), evidence, names=names)
    return Task(samples[:train], samples[train:], "planted_tastes", "will this user like this item in this season?")


def _named(mask: Tensor, no: str, yes: str) -> list[str]:
    return [yes if chosen else no for chosen in mask.tolist()]


def _triples(users: int, items: int, contexts: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Every combination once, in random order."""
    order = torch.randperm(users * items * contexts, generator=draw)
    return order // (items * contexts), order // contexts % items, order % contexts


def _balanced(liked: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """``count`` row numbers, half of them liked, in random order; ValueError where there are not enough of either."""
    yes, no = liked.nonzero().flatten(), (~liked).nonzero().flatten()
    if min(len(yes), len(no)) < count - count // 2:
        raise ValueError(f"only {len(yes)} of {len(liked)} combinations are liked; ask for fewer samples than {count}")
    rows = torch.cat((yes[: count // 2], no[: count - count // 2]))
    return rows[torch.randperm(count, generator=draw)]
