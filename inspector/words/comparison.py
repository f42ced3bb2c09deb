"""What a comparison says: which method is best by each metric, whether that is more than chance, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator

from inspector.records import Comparison, Cost
from inspector.records.resampling import Interval
from inspector.words.say import Say, ended

FEW = 8  # samples below which an interval says little
AGREE, PART = 0.7, 0.4  # mean rank correlation from which methods are said to agree, and to agree in part


RANKED = ("spearman", "kendall", "pearson")


def tell(c: Comparison, say: Say) -> list[str]:
    """Paragraphs: what was compared, one for each metric, agreement, cost, and the warnings of the record."""
    told = [" ".join(_metric(c, metric, say)) for metric in c.scores.metrics]
    agreed = list(_agreements(c, say))
    warned = [say("comparison.warning", warning=ended(warning)) for warning in c.warnings]
    return [_what(c, say), *told, *agreed, *_cost(c, say), *warned]


def _what(c: Comparison, say: Say) -> str:
    methods, n = c.methods, len(c.samples)
    controls = say.of(len(c.controls), "comparison.controls", controls=say.listing(c.controls)) if c.controls else ""
    text = say.of(len(methods), "comparison.what", samples=say.of(n, "count.samples"), controls=controls)
    return f"{text} {say('comparison.few')}" if n < FEW else text


def _metric(c: Comparison, metric: str, say: Say) -> Iterator[str]:
    scored = [label for label in c.methods if metric in c.scores[label]]
    defined = {label: c.scores.interval(label, metric) for label in scored}
    undefined = [label for label, interval in defined.items() if math.isnan(interval.mean)]
    defined = {label: interval for label, interval in defined.items() if label not in undefined}
    better = c.scores.better(metric)
    if defined and better in ("high", "low"):
        yield from _ranked(c, metric, defined, better, say)
    elif defined:
        values = say.listing(f"{label} {say.figure(interval.mean)}" for label, interval in defined.items())
        yield say("comparison.direction", metric=metric, values=values)
    if undefined:
        yield say("comparison.undefined", metric=metric, labels=say.listing(undefined))


def _ranked(c: Comparison, metric: str, defined: dict[str, Interval], better: str, say: Say) -> Iterator[str]:
    pick = max if better == "high" else min
    best = pick(defined, key=lambda label: defined[label][0])
    yield best_of(metric, better, best, defined[best], len(defined), say)
    tied = [label for label in defined if label != best and not c.difference(best, label, metric).excludes_zero]
    if tied:
        yield say("comparison.tie", labels=say.listing(tied))
    yield from _against_controls(c, metric, list(defined), better, say)


def best_of(metric: str, better: str, label: str, found: Interval, count: int, say: Say) -> str:
    """Which of so many is best by a metric, with what the metric measures."""
    direction, known = say(f"better.{better}"), say.known(f"metric.{metric}")
    meaning = say("metric.meaning", meaning=known, better=direction) if known else direction
    mean, interval = say.figure(found.mean), say.interval(found.low, found.high)
    return say.of(count, "comparison.best", metric=metric, meaning=meaning, label=label, mean=mean, interval=interval)


def _against_controls(c: Comparison, metric: str, labels: list[str], better: str, say: Say) -> Iterator[str]:
    controls = [name for name in c.controls if metric in c.scores.by_label.get(name, {})]
    controls = [name for name in controls if not math.isnan(c.scores.interval(name, metric).mean)]
    for i, control in enumerate(controls):
        beating = [label for label in labels if beats(c, label, control, metric, better)]
        key = ("comparison.none_beats", "comparison.also_none")[i > 0]
        if beating:
            key = ("comparison.beats", "comparison.also_beats")[i > 0]
        yield say.of(len(labels), key, count=len(beating), labels=say.listing(beating), control=control)


def beats(c: Comparison, label: str, control: str, metric: str, better: str) -> bool:
    """Whether a method is better than a control on the same samples beyond chance (95 % bootstrap interval)."""
    difference = c.difference(label, control, metric)
    return bool(difference.low > 0 if better == "high" else difference.high < 0)


def _agreements(c: Comparison, say: Say) -> Iterator[str]:
    """A sentence for each correlation of ranks, and one for all other measures together."""
    told = {name: text for name in c.agreement if (text := _agreement(c, name, say))}
    yield from (text for name, text in told.items() if name in RANKED)
    others = [text for name, text in told.items() if name not in RANKED]
    if others:
        yield say("comparison.others", others=say.listing(others, most=len(others)))


def _agreement(c: Comparison, name: str, say: Say) -> str:
    at = [i for i, label in enumerate(c.labels) if label not in c.controls]
    matrix = c.agreement[name].detach().cpu().double()
    pairs = {(i, j): matrix[i, j].item() for i in at for j in at if i < j and not math.isnan(matrix[i, j].item())}
    if not pairs:
        return ""
    mean, (first, second) = sum(pairs.values()) / len(pairs), min(pairs, key=lambda pair: pairs[pair])
    key = "agree" if mean >= AGREE else "partly" if mean >= PART else "disagree"
    if name not in RANKED:  # what 0.5 means is known of correlations only
        key = name if name in ("top_k", "sign") else "other"
    lowest = pairs[first, second]
    numbers = {"mean": f"{mean:.2f}", "lowest": f"{lowest:.2f}"}
    numbers |= {"share": say.percent(mean), "lowest_share": say.percent(lowest)}
    named = {"name": say.known(f"agreement.{name}") or name, "first": c.labels[first], "second": c.labels[second]}
    return say(f"comparison.{key}", **named, **numbers)


def _cost(c: Comparison, say: Say) -> Iterator[str]:
    costs = {label: c.cost.get(label, Cost()).seconds for label in c.methods}
    if len(costs) < 2 or not all(costs.values()):
        return
    cheap, dear = min(costs, key=lambda label: costs[label]), max(costs, key=lambda label: costs[label])
    text = {label: say("comparison.seconds", seconds=say.figure(seconds)) for label, seconds in costs.items()}
    yield say("comparison.cost", cheap=cheap, cheap_cost=text[cheap], dear=dear, dear_cost=text[dear])
