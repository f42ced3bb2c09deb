"""The table of methods. A row says what a method explains, needs and claims, so that ``attribute`` can check at the door.

A row's function gets a Question (input methods) or what was Seen at a layer (layer methods), and its own options.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

from inspector.records.html import as_html
from inspector.records.tables import table

_INTERNAL = ("kinds", "gradient")  # of the passes over layers
Explains = Literal["input", "layer", "both"]


@dataclass(frozen=True)
class Method:
    """One row. run: Question -> one tensor per slot. at_layer: Seen -> tensor, for methods that are one pass for all
    layers. see: the pass that fills a Seen. check: raises before any work where the method is not valid on a model.

    complete: the values sum to the difference of outputs. signed: negative values mean evidence against.
    baselines: it compares with a baseline; "distribution" where that may be several, "data" where it is the batch unless
    one is given. helped: it explains inputs with the help of layer=.
    tokens: its values are one number per token, not per element. alone: several targets share none of its passes. limits:
    what it cannot do. advice: what helps where it claims completeness and is not complete.
    """

    run: Callable[..., Any] | None = None
    at_layer: Callable[..., Any] | None = None
    see: Callable[..., Any] | None = None
    explains: Explains = "input"
    needs: str = "gradient"
    complete: bool = False
    signed: bool = True
    baselines: bool | Literal["distribution", "data"] = False
    helped: bool = False
    tokens: bool = False
    alone: bool = False
    passes: str = ""
    captum: str = ""
    paper: str = ""
    limits: str = ""
    advice: str = ""
    check: Callable[..., None] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options with their defaults."""
        functions = [f for f in (self.run, self.at_layer, self.see) if f is not None]
        found: dict[str, Any] = {}
        for function in functions:
            found |= options_of(function)
        return found


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a method's function, with their defaults."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _INTERNAL}


class Methods(MutableMapping[str, Method]):
    """Name -> row; ``print(METHODS)`` shows the table. A function ``f(score, values, **options)`` may be put in too."""

    def __init__(self, rows: Mapping[str, Method]) -> None:
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Method:
        if name in self._rows:
            return self._rows[name]
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower().removeprefix("layer_").removeprefix("neuron_")
        near = difflib.get_close_matches(snake, self._rows, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise KeyError(f"{name!r} is no method; there are {', '.join(self._rows)}.{hint}")

    def __setitem__(self, name: str, row: Method | Callable[..., Any]) -> None:
        self._rows[name] = row if isinstance(row, Method) else of_function(row)

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        head = ["method", "explains", "needs", "passes", "complete", "signed", "Captum", "paper", "what it cannot do"]
        rows = [
            [name, r.explains, r.needs, r.passes, _yes(r.complete), _yes(r.signed), r.captum or "-", r.paper, r.limits]
            for name, r in self._rows.items()
        ]
        return table(head, rows)

    _repr_html_ = as_html


def of_function(function: Callable[..., Any]) -> Method:
    """A method of the user's own: ``f(score, values, **options) -> like values``, where ``score(values) -> (batch,)``."""
    if not callable(function):
        raise TypeError(f"a method is a Method row or a function f(score, values, **options), not {type(function).__name__}")

    def run(question: Any, **options: Any) -> Any:
        values = question.fresh()
        alone = len(values) == 1
        score = question.score if alone else lambda many: question.score(*many)
        answer = function(score, values[0] if alone else values, **options)
        return (answer,) if alone else tuple(answer)

    return Method(run=run, explains="both", needs="as it asks", passes="as it asks", alone=True)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
