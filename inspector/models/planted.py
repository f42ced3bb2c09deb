"""Planted tasks: made-up data in which we put the evidence ourselves, so that an explanation can be right or wrong.

Each also holds distractors that look like evidence and mean nothing; a map that marks whatever stands out fails here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from inspector.models.attention import PADDING
from inspector.records.samples import Samples, Task

PATTERNS = ("rows", "columns", "checks", "diagonals")
MOTIFS = ("rise", "fall", "bump", "dip")


def planted_patches(
    *, train: int = 3000, test: int = 500, size: int = 28, patch: int = 7, noise: float = 0.2, seed: int = 0
) -> Task:
    """Images (1, size, size) with three textured squares: one striped in the way that is the class, one plain, one of
    random dots, all equally bright. evidence: (batch, size, size), the striped square."""
    if not 4 <= patch <= size // 3:
        raise ValueError(f"patch must be 4 to {size // 3}, a third of the size {size}, so that three fit; not {patch}")
    draw = torch.Generator().manual_seed(seed)
    count = train + test
    labels = torch.randint(len(PATTERNS), (count,), generator=draw)
    images = noise * torch.randn(count, 1, size, size, generator=draw)
    evidence = torch.zeros(count, size, size, dtype=torch.bool)
    for i, label in enumerate(labels.tolist()):
        dots = torch.randint(2, (patch, patch), generator=draw).float()
        squares = (_pattern(label, patch, draw), torch.full((patch, patch), 0.5), dots)
        for square, (y, x) in zip(squares, _places(size, patch, draw), strict=False):
            images[i, 0, y : y + patch, x : x + patch] += square
            evidence[i, y : y + patch, x : x + patch] |= square is squares[0]
    samples = Samples(images, labels, evidence, names={"classes": PATTERNS})
    return Task(samples[:train], samples[train:], "planted_patches", "which way is the striped square striped?")


def _pattern(label: int, size: int, draw: torch.Generator) -> Tensor:
    """One of PATTERNS in zeros and ones (size, size), with two pixels a stripe, at a random phase."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    y, x = (axis + int(torch.randint(4, (), generator=draw)) for axis in (y, x))
    stripes = (y // 2, x // 2, y // 2 + x // 2, (x + y) // 2)
    return (stripes[label] % 2).float()


def _places(size: int, patch: int, draw: torch.Generator) -> list[tuple[int, int]]:
    """Corners of nine squares that do not overlap, one in each cell of a grid, in random order."""
    cell = size // 3
    corners = torch.randint(cell - patch + 1, (9, 2), generator=draw)
    order = torch.randperm(9, generator=draw).tolist()
    return [(i // 3 * cell + int(corners[i, 0]), i % 3 * cell + int(corners[i, 1])) for i in order]


def planted_steps(
    *,
    train: int = 4000,
    test: int = 500,
    steps: int = 40,
    features: int = 4,
    motif: int = 8,
    noise: float = 0.3,
    shortest: int | None = None,
    seed: int = 0,
) -> Task:
    """Time series (steps, features): slow noise, a burst of fast noise, and one motif whose form is the class.

    evidence: (batch, steps), the motif's steps; the feature it lies on is random. With ``shortest`` the lengths vary
    from there to ``steps``: inputs are then (series, valid).
    """
    if not 2 * motif <= (shortest or steps) <= steps:
        raise ValueError(f"the shortest of the series must have {2 * motif} to {steps} steps, not {shortest or steps}")
    draw = torch.Generator().manual_seed(seed)
    count = train + test
    labels = torch.randint(len(MOTIFS), (count,), generator=draw)
    lengths = torch.randint(shortest or steps, steps + 1, (count,), generator=draw)
    series = _slow_noise(count, steps, features, noise, draw)
    evidence = torch.zeros(count, steps, dtype=torch.bool)
    for i, label in enumerate(labels.tolist()):
        start, burst = _two_places(int(lengths[i]), motif, draw)
        series[i, start : start + motif, int(torch.randint(features, (), generator=draw))] += _motif(label, motif)
        series[i, burst : burst + motif, int(torch.randint(features, (), generator=draw))] += torch.randn(
            motif, generator=draw
        )
        evidence[i, start : start + motif] = True
    valid = torch.arange(steps) < lengths[:, None]
    inputs = series if shortest is None else (series * valid[..., None], valid)
    names = {"classes": MOTIFS, "features": tuple(f"sensor {i}" for i in range(features))}
    samples = Samples(inputs, labels, evidence, None if shortest is None else valid, names=names)
    return Task(samples[:train], samples[train:], "planted_steps", "which form does the one motif have?")


def _slow_noise(count: int, steps: int, features: int, scale: float, draw: torch.Generator) -> Tensor:
    """x_t = 0.7 x_{t-1} + e_t, of deviation ``scale``: (count, steps, features)."""
    series = torch.randn(count, steps, features, generator=draw)
    for t in range(1, steps):
        series[:, t] = 0.7 * series[:, t - 1] + (1 - 0.7**2) ** 0.5 * series[:, t]
    return scale * series


def _two_places(length: int, motif: int, draw: torch.Generator) -> tuple[int, int]:
    """First steps of two stretches that do not overlap, in random order."""
    gap = length - 2 * motif
    early, late = sorted(torch.randint(gap + 1, (2,), generator=draw).tolist())
    pair = (early, late + motif)
    return pair if int(torch.randint(2, (), generator=draw)) else (pair[1], pair[0])


def _motif(label: int, size: int) -> Tensor:
    """One of MOTIFS, (size,), of height 2."""
    ramp = torch.linspace(-2, 2, size)
    bump = 2 * torch.hann_window(size + 2, periodic=False)[1:-1]
    return (ramp, -ramp, bump, -bump)[label]


THINGS = ("soup", "bread", "fish", "coffee", "waiter", "room", "bed", "view", "music", "garden")
GOOD = ("good", "lovely", "perfect", "great", "charming", "pleasant")
BAD = ("bad", "awful", "dull", "poor", "dirty", "boring")
VERY = ("very", "quite", "really", "rather")
ASIDES = (
    "we came by train",
    "we did not stay long",
    "i do not live here",
    "it was late",
    "it was not raining",
    "the door was not locked",
    "we had heard {} things",
    "a friend had told us {} things",
)
VOCABULARY = (
    "<pad>",
    *sorted({*THINGS, *GOOD, *BAD, *VERY, *(w for a in ASIDES for w in a.split() if w != "{}"), "not", ",", "and", "."}),
)


def planted_words(*, train: int = 3000, test: int = 500, seed: int = 0) -> Task:
    """Sentences as token ids (batch, longest), such as "it was not raining , the soup was not very good ."

    The class is what is said of the thing; evidence: its adjective, and the "not" that turns it. Asides hold adjectives
    and a "not" of their own that mean nothing. names: tokens per sample (padded too), classes, vocabulary by id.
    """
    dice = random.Random(seed)
    found: dict[str, tuple[list[str], list[bool], int]] = {}
    while len(found) < train + test:  # no sentence twice, so that the halves share none
        words, marks, label = _sentence(dice)
        found[" ".join(words)] = (words, marks, label)
    samples = _encode(list(found.values()))
    return Task(samples[:train], samples[train:], "planted_words", "does the sentence praise the thing or not?")


def _sentence(dice: random.Random) -> tuple[list[str], list[bool], int]:
    """One sentence: its words, which of them are evidence, and its class (1 = praise)."""
    good, negated = dice.random() < 0.5, dice.random() < 0.5
    said = [*["not"] * negated, *[dice.choice(VERY)] * (dice.random() < 0.5), dice.choice(GOOD if good else BAD)]
    start = [*_aside(dice), ","] if dice.random() < 0.5 else []
    end = [",", "and", *_aside(dice)] if dice.random() < 0.5 else []
    subject = ["the", dice.choice(THINGS), "was"]
    marks = [word not in VERY for word in said]
    marks = [False] * len(start + subject) + marks + [False] * (len(end) + 1)
    return [*start, *subject, *said, *end, "."], marks, int(good != negated)


def _aside(dice: random.Random) -> list[str]:
    return dice.choice(ASIDES).format(dice.choice(GOOD + BAD)).split()


def _encode(sentences: Sequence[tuple[list[str], list[bool], int]]) -> Samples:
    """Sentences as ids, padded to the longest with id 0."""
    number = {word: i for i, word in enumerate(VOCABULARY)}
    longest = max(len(words) for words, _, _ in sentences)
    ids = torch.full((len(sentences), longest), PADDING)
    evidence = torch.zeros(len(sentences), longest, dtype=torch.bool)
    for i, (words, marks, _) in enumerate(sentences):
        ids[i, : len(words)] = torch.tensor([number[word] for word in words])
        evidence[i, : len(words)] = torch.tensor(marks)
    tokens = [[VOCABULARY[j] for j in row] for row in ids.tolist()]
    names = {"tokens": tokens, "classes": ("complaint", "praise"), "vocabulary": VOCABULARY}
    return Samples(ids, torch.tensor([label for _, _, label in sentences]), evidence, ids != PADDING, names=names)
