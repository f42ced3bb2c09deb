"""What a training says: where the curves went, whether it fits only what it has seen, and what the rules found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from inspector.records import Finding, History
from inspector.records.stats import Column
from inspector.words.say import Say, ended

SHOWN = 6
HELD_OUT = ("val_", "valid_", "validation_", "test_", "eval_", "val/", "val.")


def tell(h: History, say: Say) -> list[str]:
    """Paragraphs: findings first, then each scalar, then training against held-out data."""
    name = str(h.meta.get("class") or say("history.name"))
    count = max((len(steps) for steps, _ in h.scalars.values()), default=0) or len(h.stats.steps)
    if not count:
        return [say("history.nothing", name=name)]
    head = say.of(count, "history.what", name=name, count=say.of(count, f"count.{h.unit}"))
    scalars = [" ".join(_scalar(h, scalar, say)) for scalar in list(h.scalars)[:SHOWN]]
    return [head, *_findings(h, say), *scalars, *_against_held_out(h, say)]


def _findings(h: History, say: Say) -> list[str]:
    if h.findings:
        return tell_findings(h.findings, say, unit=h.unit)
    return [say("history.none_found") if h.stats.rows else say("history.no_stats")]


def tell_findings(findings: Sequence[Finding], say: Say, *, unit: str = "step") -> list[str]:
    """A sentence for how many, then one paragraph each for the gravest, the earliest of these first."""
    if not findings:
        return [say("finding.none")]
    told = [say.of(len(findings), "history.found")]
    told += [_finding(finding, unit, say) for finding in sorted(findings[:SHOWN], key=lambda finding: finding.step)]
    rest = len(findings) - SHOWN
    return told + ([say.of(rest, "history.more_findings")] if rest > 0 else [])


def _finding(finding: Finding, unit: str, say: Say) -> str:
    advice = f" {ended(finding.advice[:1].upper() + finding.advice[1:])}" if finding.advice else ""
    value, threshold = say.figure(finding.value), say.figure(finding.threshold)
    message = finding.message.rstrip(".")
    return say(
        "finding.one",
        unit=say(f"unit.{unit}"),
        step=finding.step,
        message=message,
        value=value,
        threshold=threshold,
        advice=advice,
    )


def _scalar(h: History, name: str, say: Say) -> Iterator[str]:
    steps, values = (np.asarray(column) for column in h.scalars[name])
    good = np.isfinite(values)
    if not good.all():
        first = int(steps[~good][0])
        every, unit = say.of(len(values), f"count.{h.unit}"), say(f"unit.{h.unit}")
        yield say.of(int((~good).sum()), "history.broken_scalar", scalar=name, all=every, unit=unit, step=first)
    if good.sum() < 2:
        return
    steps, values = steps[good], values[good]
    falls = values[-1] <= values[0]
    at = int(values.argmin() if falls else values.argmax())
    ends = {"first": say.figure(values[0]), "last": say.figure(values[-1]), "best": say.figure(values[at])}
    extreme = say("history.lowest" if falls else "history.highest")
    yield say("history.scalar", scalar=name, extreme=extreme, unit=say(f"unit.{h.unit}"), step=int(steps[at]), **ends)


def _against_held_out(h: History, say: Say) -> Iterator[str]:
    for name in h.scalars:
        prefix = next((p for p in HELD_OUT if name.lower().startswith(p)), None)
        seen = h.scalars.get(name[len(prefix) :]) if prefix else None
        if seen is None:
            continue
        held = h.scalars[name]
        if len(seen[1]) and len(held[1]) and np.isfinite([seen[1][-1], held[1][-1]]).all():
            values = {"value": say.figure(float(seen[1][-1])), "held": say.figure(float(held[1][-1]))}
            yield say("history.gap", scalar=name[len(prefix or "") :], **values)
        if "loss" in name.lower():
            yield from _overfit(h, name, name[len(prefix or "") :], say)


def _overfit(h: History, held: str, training: str, say: Say) -> Iterator[str]:
    """Held-out loss that rose from its lowest by more than a tenth of what it had fallen, while training went on."""
    (steps, values), (_, seen) = _finite(h, held), _finite(h, training)
    if len(values) < 4 or len(seen) < 4:
        return
    at = int(values.argmin())
    fallen, risen = values[0] - values[at], values[-1] - values[at]
    ahead = seen[-1] < seen[round(at / (len(values) - 1) * (len(seen) - 1))]
    if at < len(values) - 1 and risen > 0.1 * max(fallen, 0.0) and risen > 0 and ahead:
        numbers = {"best": say.figure(values[at]), "last": say.figure(values[-1]), "now": say.figure(seen[-1])}
        yield say(
            "history.overfit", scalar=held, unit=say(f"unit.{h.unit}"), step=int(steps[at]), training=training, **numbers
        )


def _finite(h: History, name: str) -> tuple[Column, Column]:
    steps, values = (np.asarray(column) for column in h.scalars[name])
    good = np.isfinite(values)
    return steps[good], values[good]
