"""A section per record: its words, its picture, its tables. One row of ``PARTS`` per kind of record."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from inspector import records as nouns
from inspector.describe import describe
from inspector.records.store import Call
from inspector.report import tables
from inspector.report.attention import attention_viewer
from inspector.report.heat import attribution_viewer, comparison_viewer
from inspector.report.layers import history_viewer
from inspector.report.markup import Html, tag
from inspector.report.tables import Table
from inspector.tensors import shape_text
from inspector.viz import show
from inspector.words.facts import where_of

LONGEST_ALT = 600
SHOWN = 1000  # rows of one table; a page of a model with more says how many there are


class Section(NamedTuple):
    """One entry of the page; chapter: it begins a group of those that follow."""

    id: str
    kind: str
    title: str
    body: list[Html]
    chapter: bool = False


class Part(NamedTuple):
    """How one kind of record is shown: its tables, and which of words, picture and viewer it has."""

    tables: Callable[..., Iterator[Table]]
    title: Callable[[Any], str] = lambda record: ""
    words: bool = True
    picture: bool = True
    viewer: Callable[[Any], Html] | None = None
    bare: bool = False  # holds inputs or activations: on a private page only tables, which know how to keep quiet


PARTS: dict[type, Part] = {
    nouns.Assessment: Part(tables.assessment, lambda a: f"How well {_model(a)} does{f' on {a.name}' if a.name else ''}"),
    nouns.Attribution: Part(tables.attribution, where_of, viewer=attribution_viewer, bare=True),
    nouns.Comparison: Part(tables.comparison, lambda c: f"{_explained(c)}, compared", viewer=comparison_viewer, bare=True),
    nouns.Scores: Part(tables.scores, lambda s: "Scores"),
    nouns.Curve: Part(tables.nothing, lambda c: "Curve"),
    nouns.Store: Part(tables.store, lambda s: _through(s), viewer=attention_viewer, bare=True),
    Call: Part(tables.call, lambda c: str(c.site), bare=True),
    nouns.Samples: Part(tables.samples, lambda s: f"{len(s)} samples", bare=True),
    nouns.Task: Part(tables.task, lambda t: f"The task {t.name}".rstrip(), bare=True),
    nouns.History: Part(tables.history, lambda h: f"Training by {h.unit}", viewer=history_viewer),
    nouns.Summary: Part(tables.summary, lambda s: f"What {s.model} is made of"),
    nouns.Coverage: Part(tables.coverage, lambda c: "Which modules ran"),
    Tensor: Part(tables.tensor, lambda t: f"Tensor {shape_text(t)}", words=False, bare=True),
}


def _through(record: nouns.Store) -> str:
    return f"What passed through {record.model or 'the model'}"


def _model(record: Any) -> str:
    return str(record.model.get("class", "the model"))


def _explained(record: nouns.Comparison) -> str:
    methods = [label for label in record.labels if label not in record.controls]
    return f"{len(methods)} way{'s' * (len(methods) != 1)} to explain {_model(record.attributions[record.labels[0]])}"


def sections(records: Any, *, private: bool = False) -> list[Section]:
    """The sections of a page, in the order given; lists and dicts are taken apart."""
    made = [section for record in records for section in _sections(record, "", private)]
    return [section._replace(id=f"s{i}") for i, section in enumerate(made, start=1)]


def _sections(record: Any, title: str, private: bool) -> Iterator[Section]:
    if isinstance(record, str):
        yield from _text(record)
    elif (kind := next((kind for kind in PARTS if isinstance(record, kind)), None)) is not None:
        yield _noun(record, PARTS[kind], title, private)
    elif _is_figure(record):
        yield _figure(record, title, private)
    elif isinstance(record, nouns.Finding) or _are_findings(record):
        yield _findings(record, title)
    elif isinstance(record, (list, tuple, Mapping)):
        pairs = record.items() if isinstance(record, Mapping) else [(title, item) for item in record]
        for name, item in pairs:
            yield from _sections(item, str(name), private)
    else:
        known = ", ".join(kind.__name__ for kind in PARTS)
        raise TypeError(f"report cannot show a {type(record).__name__}; it shows {known}, a Figure, text, lists and dicts")


def _noun(record: Any, part: Part, title: str, private: bool) -> Section:
    title, hidden = title or part.title(record), private and part.bare
    told = part.words and not hidden
    body = words(describe(record)) if told else _warnings(getattr(record, "warnings", ()))
    body += [_pictured(record, title)] if part.picture and not hidden else []
    body += [part.viewer(record)] if part.viewer and not hidden else []
    body += [note("The pictures and words of this record come from single samples and are left out.")] if hidden else []
    body += [_table(table) for table in part.tables(record, **({"private": True} if hidden else {}))]
    return Section("", type(record).__name__, title, body)


def _pictured(record: Any, title: str) -> Html:
    """The record's picture, or why it has none, such as a batch of 0; the other sections stay."""
    try:
        return picture(show(record), title)
    except (ValueError, LookupError) as error:
        return note(f"There is no picture: {error.args[0] if error.args else error}.")


def _text(record: str) -> Iterator[Section]:
    match = re.match(r"#[ \t]+(.+)\n*", record)
    title, rest = (match[1].strip(), record[match.end() :]) if match else ("", record)
    yield Section("", "", title, words(rest), chapter=bool(title))


def _figure(record: Any, title: str, private: bool) -> Section:
    if private:
        left_out = note("A figure of your own may show inputs, so it is left out of a private page.")
        return Section("", "Figure", title or "Figure", [left_out])
    headings = [str(record.get_suptitle()), *(t.get_text() for t in record.texts), *(ax.get_title() for ax in record.axes)]
    title = title or next(filter(None, headings), "Figure")
    return Section("", "Figure", title, [picture(record, title)])


def _findings(record: Any, title: str) -> Section:
    found = [record] if isinstance(record, nouns.Finding) else list(record)
    body = [*words(describe(found)), *map(_table, tables.findings(found))]
    return Section("", "Findings", title or "What is wrong", body)


def words(paragraphs: str) -> list[Html]:
    """One paragraph per line that says something."""
    return [tag("p", line, class_="words") for line in paragraphs.splitlines() if line.strip()]


def _warnings(found: Sequence[str]) -> list[Html]:
    return [tag("ul", *(tag("li", warning) for warning in found), class_="warnings")] if found else []


def picture(figure: Any, title: str) -> Html:
    """A figure as a PNG inside the page, with its title and words as the text for those who do not see it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, bbox_inches="tight", facecolor="white")
    data = base64.b64encode(buffer.getvalue()).decode()
    return tag("figure", tag("img", src=f"data:image/png;base64,{data}", alt=_alt(figure, title)))


def _alt(figure: Any, title: str) -> str:
    said = " ".join(str(getattr(figure, "words", "")).split())
    text = f"Picture: {title}. {said}" if said else f"Picture: {title}"
    return text if len(text) <= LONGEST_ALT else f"{text[: LONGEST_ALT - 1]}…"


def note(words: str) -> Html:
    return tag("p", words, class_="note")


def _table(table: Table) -> Html:
    rows = table.rows[:SHOWN]
    cell = partial(_cell, table.numbers)
    head = tag("thead", tag("tr", *(tag("th", h, scope="col", class_=_class(table, i)) for i, h in enumerate(table.head))))
    body = tag("tbody", *(tag("tr", *(cell(i, value) for i, value in enumerate(row))) for row in rows))
    grid = tag("table", head, body, aria_label=table.caption)
    count = f" {len(rows)} of {len(table.rows)} rows shown" if len(rows) < len(table.rows) else ""
    box = tag("div", grid, class_="scroll", tabindex="0", role="region", aria_label=table.caption)
    return tag("details", tag("summary", table.caption, tag("span", count, class_="count")), box, open=not table.folded)


def _class(table: Table, column: int) -> str | None:
    return "n" if column in table.numbers else None


def _cell(numbers: frozenset[int], column: int, value: str) -> Html:
    if column == 0:
        return tag("th", value, scope="row")
    return tag("td", value, class_="n" if column in numbers else None)


def _is_figure(record: Any) -> bool:
    return any(f"{kind.__module__}.{kind.__name__}" == "matplotlib.figure.Figure" for kind in type(record).__mro__)


def _are_findings(record: Any) -> bool:
    return isinstance(record, list) and bool(record) and all(isinstance(item, nouns.Finding) for item in record)
