"""The page around the sections: head, contents and policy. The policy names the hashes of the page's one style and one
script, so that nothing else can run, not even from a record that was made to attack."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from inspector import __version__, archive
from inspector.report.markup import Html, join, tag, text
from inspector.report.sections import Section, sections

GENERATOR = "inspector"
SCRIPTS = ("page.js", "view.js", "heat.js", "layers.js", "attention.js", "start.js")
_Native = type(Path())


class Page(_Native):  # type: ignore[misc, valid-type]  # before 3.12 only the platform's own class can be derived from
    """The path of a page that was written; a notebook shows the page itself, in a frame that can reach nothing."""

    def _repr_html_(self) -> str | None:
        if not self.is_file():
            return None
        frame = {"width": "100%", "height": "720", "frameborder": "0", "sandbox": "allow-scripts"}
        return tag("iframe", srcdoc=self.read_text(encoding="utf-8"), title=self.name, **frame)


def report(path: str | Path, *records: Any, title: str = "", private: bool = False) -> Page:
    """Write one HTML page with a section per record and answer with its path.

    records: any of Inspector's nouns, a matplotlib Figure, text ("# Heading" begins a chapter), or lists and dicts of
    them, whose keys become titles. private: leave out every raw input and activation, keep aggregates only.
    Replaces a page that it wrote before, and refuses to replace any other file.
    """
    if not records:
        raise ValueError("report got nothing to show; give it at least one record: report('page.html', comparison)")
    _may_be_written(Path(path))
    return Page(archive.write_text(path, page(sections(records, private=private), title or "Inspector report", private)))


def page(chapters: list[Section], title: str, private: bool = False) -> str:
    """The whole document as text."""
    style, script = _asset("page.css"), "".join(map(_asset, SCRIPTS))
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=f"{policy}; base-uri 'none'; form-action 'none'"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=GENERATOR),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(style)),
    )
    body = tag("body", _layout(chapters, title, private), tag("script", Html(script)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _layout(chapters: list[Section], title: str, private: bool) -> Html:
    about = f"Made by Inspector {__version__}. This file holds everything that it shows."
    hidden = tag("p", "Private page: no input, no activation, only aggregates.", class_="note") if private else ""
    header = tag("header", tag("h1", title), tag("p", about, class_="about"), hidden)
    main = tag("main", *map(_section, chapters), id="main")
    skip = tag("a", "Skip to the content", href="#main", class_="skip")
    alone = sum(bool(section.title) for section in chapters) < 2  # contents of one thing only take its room
    contents = "" if alone else _contents(chapters)
    return join([skip, tag("div", header, contents, main, class_="layout alone" if alone else "layout")])


def _contents(chapters: list[Section]) -> Html:
    rows = [
        tag("li", tag("a", s.title, href=f"#{s.id}"), class_="chapter" if s.chapter else None) for s in chapters if s.title
    ]
    return tag("nav", tag("h2", "Contents"), tag("ul", *rows), aria_label="Contents")


def _section(section: Section) -> Html:
    kind = tag("p", section.kind, class_="kind") if section.kind else ""
    title = tag("h2", section.title, id=f"{section.id}-title", class_="chapter-title" if section.chapter else None)
    named = {"aria_labelledby": f"{section.id}-title"} if section.title else {}
    return tag("section", kind, title if section.title else "", *section.body, id=section.id, **named)


def _asset(name: str) -> str:
    return "\n" + files("inspector.report").joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _may_be_written(path: Path) -> None:
    """A page of ours may be written anew, as when a notebook cell runs twice; anything else is not ours to replace."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it, such as {path / 'report.html'}")
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        ours = str(text(tag("meta", name="generator", content=GENERATOR))) in file.read(4096)
    if not ours:
        raise FileExistsError(f"{path} exists and is no page of Inspector's; choose another name or remove it")
