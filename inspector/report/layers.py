"""What the page needs to draw a training layer by layer: every statistic over all layers and steps, thinned to fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from inspector.records import Finding, History
from inspector.records.stats import Stats
from inspector.report.markup import Html, join
from inspector.report.packing import Packed, viewer

BUDGET = 3_000_000  # numbers of one viewer, two bytes each before they are deflated
MOST_STEPS = 1000  # no screen shows more


def history_viewer(record: History) -> Html:
    """Layers down, steps to the right, any statistic; a layer opens as a curve. Nothing without statistics."""
    pairs = _pairs(record.stats)
    if not pairs:
        return join([])
    packed = Packed()
    thin = _thinning(record.stats)
    data = {
        "unit": record.unit,
        "grids": [_grid(record.stats, kind, statistic, thin, packed) for kind, statistic in pairs],
        "findings": [_finding(finding) for finding in record.findings],
        "thin": thin,
    }
    return viewer("layers", data, packed, "Statistics layer by layer")


def _pairs(stats: Stats) -> list[tuple[str, str]]:
    """Every (kind, statistic) there is; what is looked at first comes first, and counts of elements not at all."""
    found = list(dict.fromkeys((s.kind, s.statistic) for s in stats.series if s.statistic != "n"))
    return sorted(found, key=lambda pair: (pair[1] != "rms", pair[0] != "grad"))


def _thinning(stats: Stats) -> int:
    """Every how many steps are kept."""
    cells = max(stats.cells.size, 1)
    return max(1, -(-cells // BUDGET), -(-len(stats.steps) // MOST_STEPS))


def _grid(stats: Stats, kind: str, statistic: str, thin: int, packed: Packed) -> dict[str, Any]:
    found = stats.grid(kind, statistic)
    kept = slice(None, None, thin)
    place = packed.add_wide(np.asarray(found.values[:, kept]), found.present[:, kept])
    return place | {"kind": kind, "statistic": statistic, "names": _named(found.names), "steps": found.steps[kept].tolist()}


def _named(names: list[str]) -> list[str]:
    return [name or "(model)" for name in names]


def _finding(finding: Finding) -> dict[str, Any]:
    return {"name": finding.name or "(model)", "step": finding.step, "text": str(finding.message)}
