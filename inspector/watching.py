"""Follow a run at the terminal by its folder alone: the curves, the layers, and what is wrong, anomalies first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector import printing
from inspector.records import History
from inspector.report.tables import Table, findings

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = "▁▂▃▄▅▆▇█"
TELLING = ("rms", "absmax", "zeros", "dead", "nan", "inf")  # a terminal is not wide enough for all
LAYERS = 30  # rows of the table of layers; a terminal has not many more


def watch(run: str, *, every: float, once: bool) -> None:
    """Show the run until Ctrl-C, or once. Raises FileNotFoundError where there is none."""
    from rich.live import Live

    if once:
        return printing.console().print(view(History.load(run)))
    with Live(view(History.load(run)), console=printing.console(), screen=False, auto_refresh=False) as live:
        while True:
            try:
                time.sleep(every)
            except KeyboardInterrupt:
                return None
            live.update(view(History.load(run)), refresh=True)


def view(history: History) -> RenderableType:
    """Everything at one glance."""
    from rich.console import Group
    from rich.text import Text

    wrong = [printing.rich(table) for table in findings(history.findings)]
    calm = [] if wrong else [Text("Nothing found wrong so far.", style="green")]
    return Group(printing.plain(history), *wrong, *calm, printing.rich(curves(history)), printing.rich(layers(history)))


def curves(history: History) -> Table:
    """Each scalar with its course in forty characters."""
    rows = [[n, f"{v[0]:.4g}", f"{v[-1]:.4g}", sparkline(v)] for n, (_, v) in history.scalars.items() if len(v)]
    return Table("Curves", ["curve", "first", "last", "course"], rows, frozenset({1, 2}))


def layers(history: History) -> Table:
    """The latest value of the telling statistics per layer and kind, in execution order."""
    stats = history.stats
    latest: dict[tuple[str, str], dict[str, float]] = {}
    known = any(series.statistic in TELLING for series in stats.series)
    for at, series in enumerate(stats.series):
        measured = np.flatnonzero(stats.present[:, at])
        if measured.size and (series.statistic in TELLING or not known):
            row = latest.setdefault((series.name or "(model)", series.kind), {})
            row[series.statistic] = float(stats.cells[measured[-1], at])
    names = list(dict.fromkeys(name for row in latest.values() for name in row))
    rows = [[n, k, *(f"{row[s]:.3g}" if s in row else "" for s in names)] for (n, k), row in list(latest.items())[:LAYERS]]
    shown = f" ({len(rows)} of {len(latest)} shown)" if len(rows) < len(latest) else ""
    return Table(f"Layers, latest{shown}", ["layer", "kind", *names], rows, frozenset(range(2, len(names) + 2)))


def sparkline(values: Any, width: int = 40) -> str:
    """A curve in one line of text, from its least to its largest finite value; a gap where it is not finite."""
    picked = np.asarray(values, dtype=float)
    picked = picked[np.linspace(0, len(picked) - 1, min(width, len(picked))).round().astype(int)]
    finite = picked[np.isfinite(picked)]
    if not finite.size:
        return "·" * len(picked)
    low, span = finite.min(), np.ptp(finite) or 1.0
    heights = np.where(np.isfinite(picked), (picked - low) / span * (len(BARS) - 1), -1).round().astype(int)
    return "".join("·" if h < 0 else BARS[h] for h in heights)


def data(history: History) -> dict[str, Any]:
    """The same for machines: the last of each scalar, and every finding."""
    last = {name: {"step": int(s[-1]), "value": float(v[-1])} for name, (s, v) in history.scalars.items() if len(v)}
    return {"unit": history.unit, "scalars": last, "findings": [vars(f) for f in history.findings], "meta": history.meta}
