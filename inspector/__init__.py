"""Inspector: see what a PyTorch network does, and whether its explanation can be believed.

A *tap* sends what passes a module, as events, to a sink: ``capture`` is a tap into a Store, ``Monitor`` a tap into a
History. ``attribute`` answers with an Attribution, ``score`` with Scores. Names are loaded when first used, so that
``import inspector`` costs no more than ``import torch``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from inspector import metrics as metrics
    from inspector import models as models
    from inspector.attribution import METHODS as METHODS
    from inspector.attribution import Neuron as Neuron
    from inspector.attribution import attribute as attribute
    from inspector.attribution import attribute_layers as attribute_layers
    from inspector.attribution import attribute_targets as attribute_targets
    from inspector.describe import describe as describe
    from inspector.hooks import Event as Event
    from inspector.hooks import Where as Where
    from inspector.hooks import borrow as borrow
    from inspector.hooks import live as live
    from inspector.hooks import offload as offload
    from inspector.hooks import snapshot as snapshot
    from inspector.hooks.capture import capture as capture
    from inspector.hooks.edit import edit as edit
    from inspector.hooks.select import select as select
    from inspector.hooks.tap import tap as tap
    from inspector.metrics import METRICS as METRICS
    from inspector.metrics import compare as compare
    from inspector.metrics import score as score
    from inspector.monitor import RULES as RULES
    from inspector.monitor import Monitor as Monitor
    from inspector.records import Assessment as Assessment
    from inspector.records import Attribution as Attribution
    from inspector.records import Call as Call
    from inspector.records import Comparison as Comparison
    from inspector.records import Cost as Cost
    from inspector.records import Coverage as Coverage
    from inspector.records import Curve as Curve
    from inspector.records import Finding as Finding
    from inspector.records import History as History
    from inspector.records import Samples as Samples
    from inspector.records import Scores as Scores
    from inspector.records import Store as Store
    from inspector.records import Summary as Summary
    from inspector.records import Task as Task
    from inspector.report import report as report
    from inspector.sites import Kind as Kind
    from inspector.sites import Site as Site
    from inspector.summary import summary as summary
    from inspector.viz import show as show

_HOMES = {
    "inspector.sites": ("Kind", "Site"),
    "inspector.records": (
        *("Assessment", "Attribution", "Call", "Comparison", "Cost", "Coverage", "Curve", "Finding", "History"),
        *("Samples", "Scores", "Store", "Summary", "Task"),
    ),
    "inspector.hooks": ("Event", "Where", "borrow", "capture", "edit", "live", "offload", "select", "snapshot", "tap"),
    "inspector.attribution": ("METHODS", "Neuron", "attribute", "attribute_layers", "attribute_targets"),
    "inspector.metrics": ("METRICS", "compare", "score"),
    "inspector.monitor": ("RULES", "Monitor"),
    "inspector.viz": ("show",),
    "inspector.describe": ("describe",),
    "inspector.report": ("report",),
    "inspector.summary": ("summary",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = ("metrics", "models")

__all__ = [*_HOME_OF, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"inspector.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'inspector' has no {name!r}; it has {', '.join(sorted(__all__))}")
    value = getattr(import_module(_HOME_OF[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """Python binds a submodule to its package's attribute; where a public verb has the same name (``describe``,
    ``report``, ``summary``) the verb stays."""

    def __setattr__(self, name: str, value: Any) -> None:
        same_name = isinstance(value, ModuleType) and name in _HOME_OF
        super().__setattr__(name, getattr(value, name) if same_name else value)


sys.modules[__name__].__class__ = _Package
