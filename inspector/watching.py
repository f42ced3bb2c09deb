"""Follow a run at the terminal by its folder alone: what is wrong, then the curves, then the layers that matter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from inspector import printing
from inspector.records import Finding, History
from inspector.records.runfolder import Run
from inspector.records.stats import Column, Series, Stats
from inspector.report.tables import Table

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
FINDINGS, CURVES, LAYERS = 6, 6, 30  # of each at most; a terminal has not many more lines
NARROW = 90  # below so many characters a line has no room for the extremes
SHOWN = {  # which statistic shows what a rule is about
    "dead_relu": ("output", "dead"),
    "dormant": ("output", "dormant"),
    "saturated": ("output", "saturated"),
    "attention": ("output", "entropy"),
    "update_ratio": ("update", "ratio"),
    "poor_initialisation": ("output", "std"),
}
USUAL = (("param_grad", "rms"), ("grad", "rms"), ("update", "ratio"), ("output", "rms"), ("param", "rms"))


def watch(run: str, *, every: float, once: bool) -> None:
    """Show the run until Ctrl-C, or once. Raises FileNotFoundError where there is none."""
    from rich.live import Live

    console = printing.console()
    if once or not Path(run).is_dir():
        return console.print(view(History.load(run), width=console.width))
    reader = Run(Path(run))
    reader.update()
    with Live(_seen(reader, console), console=console, screen=False, auto_refresh=False) as live:
        while True:
            try:
                time.sleep(every)
            except KeyboardInterrupt:
                return None
            reader.update()
            live.update(_seen(reader, console), refresh=True)


def _seen(reader: Run, console: Console) -> RenderableType:
    """What fits the terminal; a higher view could not be drawn over the last one."""
    history = History(**reader.fields(histograms=False))
    silent = time.time() - reader.path.stat().st_mtime if reader.path.exists() else None
    return view(history, width=console.width, height=console.height - 1, silent=silent)


def view(history: History, *, width: int = 100, height: int | None = None, silent: float | None = None) -> RenderableType:
    """Everything at one glance, in ``height`` lines where that is given; ``silent``: seconds since it was written to."""
    from rich.console import Group

    wrong = [_finding(finding, history.unit) for finding in history.findings[:FINDINGS]]
    lines = sum(-(-len(text) // max(width, 1)) for text in wrong) + 1
    scalars = curves(history, width)
    room = LAYERS if height is None else height - lines - len(scalars.rows) - 10
    table = layers(history, max(min(room, LAYERS), 3), width)
    return Group(_head(history, silent), *wrong, *_rest(history), *(printing.rich(t) for t in (scalars, table) if t.rows))


def _head(history: History, silent: float | None = None) -> Text:
    count = max([len(steps) for steps, _ in history.scalars.values()] + [0])
    measured = len(history.stats.steps)
    facts = [f"{count:,} {history.unit}s", *([f"{measured:,} measured"] if measured else [])]
    if "cost" in history.meta:
        facts.append(f"finished; monitoring took {100 * float(history.meta['cost']):.1f} % of the time")
    elif silent is not None:
        facts.append(f"last heard of {_ago(silent)} ago")
    return _styled((history.meta.get("class") or "training", "bold"), (f" · {' · '.join(facts)}", ""))


def _ago(seconds: float) -> str:
    """1 s, 5 min, 3 h or 2 days."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0.0):.0f} s"


def _finding(finding: Finding, unit: str) -> Text:
    where = f" {finding.name}" if finding.name else ""
    head = f"▲ {finding.rule}{where}, since {unit} {finding.step}"
    return _styled((head, "bold red"), (f": {finding.message}. ", ""), (finding.advice, "dim"))


def _styled(*parts: tuple[object, str]) -> Text:
    from rich.text import Text

    return Text.assemble(*((printing.plain(words).plain, style) for words, style in parts))


def _rest(history: History) -> list[Text]:
    if not history.findings:
        return [_styled(("Nothing found wrong so far.", "green"))]
    rest = len(history.findings) - FINDINGS
    return [_styled((f"… {rest} more finding{'s' * (rest > 1)}", "red"))] if rest > 0 else []


def curves(history: History, width: int = 100) -> Table:
    """Each scalar with its course."""
    shown = [(name, values) for name, (_, values) in history.scalars.items() if len(values)]
    rows = [[_short(n), f"{v[0]:.4g}", f"{v[-1]:.4g}", sparkline(v, _wide(width))] for n, v in shown[:CURVES]]
    return Table(_caption("Curves", rows, shown), ["curve", "first", "last", "course"], rows, frozenset({1, 2}))


class Row(NamedTuple):
    """A series that is worth a line, and how far it has moved (in powers of ten; infinite where it is no number)."""

    series: Series
    values: Column
    moved: float


def layers(history: History, count: int = LAYERS, width: int = 100) -> Table:
    """The layers that findings are about, then those that changed most; in execution order, with their course."""
    named = [row for finding in history.findings if (row := _of(finding, history.stats))]
    told = list({row.series: row for row in named}.values())[:count]
    rest = [row for row in _moving(history.stats) if row.series not in {t.series for t in told}]
    most = sorted(rest, key=lambda row: row.moved, reverse=True)[: max(count - len(told), 0)]
    order = {series: i for i, series in enumerate(history.stats.series)}
    chosen = [*told, *sorted(most, key=lambda row: order[row.series])]
    head = ["layer", "what", *(["least", "largest"] if width >= NARROW else []), "latest", "course"]
    rows = [_line(row, width) for row in chosen]
    return Table(_caption("Layers that matter", rows, [*told, *rest]), head, rows, frozenset(range(2, len(head) - 1)))


def _of(finding: Finding, stats: Stats) -> Row | None:
    kind, statistic = SHOWN.get(finding.rule, ("", ""))
    wanted = [Series(kind, finding.name, statistic), *(Series(k, finding.name, s) for k, s in USUAL)]
    known = set(stats.series)
    return next((_row(series, stats) for series in wanted if series in known), None)


def _moving(stats: Stats) -> list[Row]:
    """One statistic of gradients and one of outputs, of all layers."""
    there = {(series.kind, series.statistic) for series in stats.series}
    pairs = [pair for pair in USUAL if pair in there][:2] or sorted(there)[:1]
    return [_row(series, stats) for series in stats.series if (series.kind, series.statistic) in pairs]


def _row(series: Series, stats: Stats) -> Row:
    _, values = stats.line(*series)
    sizes = np.abs(values)
    if not np.isfinite(sizes).all():
        return Row(series, values, float("inf"))
    sizes = sizes[sizes > 0]
    return Row(series, values, float(np.log10(sizes.max() / sizes.min())) if len(sizes) else 0.0)


def _line(row: Row, width: int) -> list[str]:
    finite = row.values[np.isfinite(row.values)]
    ends = [f"{finite.min():.3g}", f"{finite.max():.3g}"] if len(finite) else ["", ""]
    latest = f"{row.values[-1]:.3g}" if len(row.values) else ""
    name = _short(row.series.name, 28 if width >= NARROW else 16) or "(model)"
    course = sparkline(row.values, max(_wide(width) - 12, 6), log=row.moved > 2)
    return [name, f"{row.series.kind} {row.series.statistic}", *(ends if width >= NARROW else []), latest, course]


def _caption(title: str, rows: list[list[str]], of: list[Any]) -> str:
    return title + (f" ({len(rows)} of {len(of)})" if len(rows) < len(of) else "")


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def _wide(width: int) -> int:
    """Characters that a course may take."""
    return min(max(width - 62, 12), 60)


def sparkline(values: Any, width: int = 40, *, log: bool = False) -> str:
    """A curve in one line of text, from its least to its largest finite value; of steps that share a character the
    largest counts, and a dot stands where one of them is not finite."""
    given = np.asarray(values, dtype=float)
    if log:
        sizes = np.abs(given)
        least = sizes[sizes > 0].min(initial=1.0, where=np.isfinite(sizes[sizes > 0]))
        given = np.log10(np.maximum(sizes, least / 10))  # a zero stands below all else, and no lower
    parts = np.array_split(given, min(width, len(given))) if len(given) else []
    picked = np.array([part.max() if np.isfinite(part).all() else np.nan for part in parts])
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
