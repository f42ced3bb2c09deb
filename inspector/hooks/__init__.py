"""Hooks: model -> events -> Store. Select modules, tap or capture what passes them, edit it."""

from inspector.hooks.capture import capture
from inspector.hooks.edit import edit
from inspector.hooks.frame import Event
from inspector.hooks.keep import OverwrittenError, borrow, live, offload, snapshot
from inspector.hooks.select import Where, select
from inspector.hooks.tap import mount, tap

__all__ = [
    "Event",
    "OverwrittenError",
    "Where",
    "borrow",
    "capture",
    "edit",
    "live",
    "mount",
    "offload",
    "select",
    "snapshot",
    "tap",
]
