"""Places in words, for tables and pages."""

from __future__ import annotations

from qwen3vl.documents import Document
from qwen3vl.inputs import shorten


def where(document: Document) -> str:
    """Page, time or lines, in words; empty for a whole picture."""
    told = document.metadata
    match document.kind:
        case "page":
            return f"page {told.get('page')} of {told.get('pages')}"
        case "clip":
            return f"{clock(told.get('start', 0.0))} to {clock(told.get('end', 0.0))}"
        case "text" if "first_line" in told:
            return f"lines {told['first_line']} to {told['last_line']}: {shorten(document.text, 60)}"
    return ""


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
