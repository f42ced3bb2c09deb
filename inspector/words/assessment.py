"""What an assessment says: how good, worst where, and which group fares worse, each with how sure that is."""

from __future__ import annotations

from collections.abc import Iterator

from inspector.records import Assessment, Disparity
from inspector.words.facts import wilson
from inspector.words.say import Say

SMALL_GROUP = 30
SHOWN = 4


def tell(a: Assessment, say: Say) -> list[str]:
    """Paragraphs: over all, by class, and one for each column of groups."""
    name = a.name or say("assessment.name")
    if not a.n:
        return [say("assessment.nothing", name=name)]
    low, high = map(say.percent, _bounds(a))
    overall = say.of(a.n, "assessment.overall", name=name, accuracy=say.percent(a.accuracy), low=low, high=high)
    rates = {"precision": say.percent(a.precision), "recall": say.percent(a.recall), "f1": say.percent(a.f1)}
    groups = [" ".join(_column(a, column, say)) for column in a.groups]
    groups += [" ".join(_tested(a, say))]
    return [f"{overall} {say('assessment.macro', **rates)}", " ".join(_classes(a, say)), *groups]


def _classes(a: Assessment, say: Say) -> Iterator[str]:
    counts = a.confusion.double()
    totals, right = counts.sum(dim=1), counts.diagonal()
    if right.sum() == counts.sum():
        yield say("assessment.perfect")
        return
    recall = (right / totals).nan_to_num(nan=2.0)
    worst = int(recall.argmin())
    found, mistaken = f"{int(right[worst]):,}", _mistaken(a, worst, say)
    yield say.of(int(totals[worst]), "assessment.worst_class", label=a.classes[worst], found=found, mistaken=mistaken)
    silent = [a.classes[i] for i in range(len(a.classes)) if counts[:, i].sum() == 0 and totals[i] > 0]
    if silent:
        yield say("assessment.silent_class", labels=say.listing(silent))


def _mistaken(a: Assessment, true: int, say: Say) -> str:
    row = a.confusion[true].clone()
    row[true] = -1
    other = int(row.argmax())
    return say("assessment.mistaken", count=f"{int(row[other]):,}", other=a.classes[other]) if row[other] > 0 else ""


def _column(a: Assessment, column: str, say: Say) -> Iterator[str]:
    groups = {label: g for label, g in a.groups[column].items() if g.n}
    if len(groups) < 2:
        yield say("assessment.one_group", column=column)
        return
    best, worst = (pick(groups, key=lambda label: groups[label].accuracy) for pick in (max, min))
    one, other = groups[best], groups[worst]
    rates = {"best_rate": say.percent(one.accuracy), "worst_rate": say.percent(other.accuracy)}
    sizes = {"best_n": f"{one.n:,}", "worst_n": f"{other.n:,}"}
    gap = f"{100 * (one.accuracy - other.accuracy):.1f}"
    if gap == "0.0":
        second = next(label for label in groups if label != best)
        yield say("assessment.alike", column=column, best=best, worst=second, **rates)
    else:
        yield say("assessment.groups", column=column, best=best, worst=worst, gap=gap, **rates, **sizes)
        yield _doubt(one, other, len(groups), say)
    small = [f"{label} ({g.n})" for label, g in groups.items() if g.n < SMALL_GROUP]
    if small:
        yield say("assessment.small_group", limit=SMALL_GROUP, groups=say.listing(small))


def _tested(a: Assessment, say: Say) -> Iterator[str]:
    """What the record's own test over all columns, rates and groups found."""
    if any(g.intervals for row in a.groups.values() for g in row.values()):
        yield from (_unequal(found, say) for found in a.disparities[:SHOWN])
        if len(a.disparities) > SHOWN:
            yield say.of(len(a.disparities) - SHOWN, "assessment.more_unequal")
        if not a.disparities:
            yield say("assessment.none_unequal")


def _unequal(found: Disparity, say: Say) -> str:
    low, high = (f"{100 * bound:+.1f}" for bound in found.interval)
    rate = say.known(f"rate.{found.rate}") or found.rate.replace("_", " ")
    few = say.of(found.n, "assessment.few") if found.small else ""
    bounds = {"low": low, "high": high, "p": f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001"}
    rates = {"rate": rate, "value": say.percent(found.value), "rest": say.percent(found.rest)}
    return say("assessment.unequal", column=found.column, group=found.group, few=few, **rates, **bounds)


def _bounds(a: Assessment) -> tuple[float, float]:
    """The record's own interval of the accuracy, or Wilson's where it has none."""
    low, high = a.intervals.get("accuracy") or wilson(a.accuracy, a.n)
    return low, high


def _doubt(best: Assessment, worst: Assessment, count: int, say: Say) -> str:
    upper, lower = _bounds(best), _bounds(worst)
    bounds = {"best_low": say.percent(upper[0]), "best_high": say.percent(upper[1])}
    bounds |= {"worst_low": say.percent(lower[0]), "worst_high": say.percent(lower[1])}
    if lower[1] >= upper[0]:
        return say("assessment.gap_doubt", **bounds)
    return say("assessment.gap_sure_two", **bounds) if count == 2 else say.of(count, "assessment.gap_sure", **bounds)
