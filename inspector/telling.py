"""What the commands print of what they found: tables and the gist in words for people, plain data for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspector import describe, printing
from inspector.demo import TITLES, Demo
from inspector.records import Assessment, Comparison
from inspector.report import tables

METHOD = ("explains", "needs", "complete", "signed", "passes", "captum", "paper", "limits")  # what a method says of itself


def demo(made: Demo, out: Path) -> None:
    for found in made.chapters:
        printing.heading(TITLES[found.name])
        printing.tables([next(tables.assessment(found.assessment)), next(tables.scores(found.comparison.scores))])
        printing.say(describe(found.assessment), "", *gist(found.comparison), "")
    if made.folder != out:
        printing.say(f"{out} was there already, so this went into {made.folder}.")
    pictures = len(list(made.folder.glob("*.png")))
    printing.say(f"Look at {made.page}: one page that needs no network. {pictures} pictures lie beside it.")


def gist(found: Comparison) -> list[str]:
    """The first sentences about a comparison, and how many warnings the page has of it."""
    told = describe(found).split("\n")
    agreement = 1 + len(found.scores.metrics)
    warned = [f"{len(found.warnings)} warnings on the page say what not to believe."] if found.warnings else []
    return [*told[:2], *told[agreement : agreement + 1], *warned]


def comparison(found: Comparison, folder: Path | None) -> None:
    printing.tables(tables.scores(found.scores, found.controls))
    printing.say(describe(found))
    if folder:
        printing.say("", f"Written to {folder}: the page report.html, comparison.png and comparison.safetensors.")


def walked(made: Demo) -> dict[str, Any]:
    found = {c.name: {"assessment": rates(c.assessment), "comparison": scores(c.comparison)} for c in made.chapters}
    return {"folder": made.folder, "page": made.page, "models": found}


def rates(assessment: Assessment) -> dict[str, Any]:
    return {name: getattr(assessment, name) for name in ("n", "accuracy", "precision", "recall", "f1")}


def scores(found: Comparison) -> dict[str, Any]:
    """Mean and 95 % interval per method and metric."""
    scores = found.scores
    intervals = {
        label: {m: dict(zip(("mean", "low", "high"), scores.interval(label, m), strict=True)) for m in scores[label]}
        for label in scores
    }
    cost = {label: cost._asdict() for label, cost in found.cost.items()}
    return {"scores": intervals, "controls": found.controls, "cost": cost, "warnings": found.warnings}
