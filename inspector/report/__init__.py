"""One self-contained page per call: a section per record, no network, nothing executable but its own hashed script."""

from __future__ import annotations

from inspector.report.page import Page, report

__all__ = ["Page", "report"]
