"""The tables of methods, metrics and rules for these pages, made from the tables that the code itself works with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from IPython.display import Markdown

from inspector import METHODS, METRICS, RULES


def methods(explains: str) -> Markdown:
    """The methods that explain "input", "layer" or "both", one a row."""
    rows = [
        [f"`{name}`", _first(_function(row)), _calls(row.passes), _claims(row), row.paper or "", row.limits or ""]
        for name, row in METHODS.items()
        if row.explains == explains
    ]
    return _table(["method", "what it answers with", "passes", "claims", "paper", "limits"], rows)


def options(names: Iterable[str] = ()) -> Markdown:
    """The options that methods take, with their defaults."""
    chosen = [(name, METHODS[name].options) for name in (names or METHODS)]
    return _table(["method", "options"], [[f"`{name}`", _defaults(found)] for name, found in chosen if found])


def metrics(kind: str) -> Markdown:
    """The metrics of one kind, one a row."""
    rows = [
        [f"`{name}`", _first(row.run), row.better or "", row.range, row.reads, row.paper]
        for name, row in METRICS.items()
        if row.kind == kind
    ]
    return _table(["metric", "what it says", "better", "range", "reads", "paper"], rows)


def rules() -> Markdown:
    """The rules that a Monitor applies by default."""
    return _table(["rule", "speaks when"], [[f"`{name}`", _first(rule)] for name, rule in RULES.items()])


def _table(head: list[str], rows: list[list[str]]) -> Markdown:
    lines = [head, ["---"] * len(head), *rows]
    return Markdown("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _claims(row: Any) -> str:
    return ", ".join(filter(None, ["sums to the difference" if row.complete else "", "signed" if row.signed else "no sign"]))


def _calls(passes: str) -> str:
    forward, _, backward = passes.partition(" + ")
    if not backward:
        return passes
    return f"{forward} forward" + (f", {backward} backward" if backward != "0" else "")


def _function(row: Any) -> Callable[..., Any] | None:
    """What computes it; of methods that are a whole path through the model, the path."""
    left_behind = row.at_layer is not None and row.at_layer.__name__ == "flown"
    return row.run or (row.see if left_behind else row.at_layer)


def _first(function: Callable[..., Any] | None) -> str:
    """The first paragraph of what a function says about itself."""
    while isinstance(function, partial):
        function = function.func
    return (inspect.getdoc(function) or "").split("\n\n")[0].replace("``", "`") if function else ""


def _defaults(found: dict[str, Any]) -> str:
    return ", ".join(f"`{name}={value!r}`" for name, value in found.items())
