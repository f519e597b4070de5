"""Descriptions of documents in words: the part of its source that a document shows, and how its text begins."""

from __future__ import annotations

from qwen3vl.documents import Document
from qwen3vl.inputs import shorten


def describe_part(document: Document) -> str:
    """Describe which part of its source a document is.

    Args:
        document: A document that was loaded or found.

    Returns:
        For example `"page 3 of 12"`, `"0:30 to 1:00"` or `"lines 5 to 9"`; empty for a whole source, such as an image.
    """
    metadata = document.metadata
    match document.kind:
        case "page" if document.page is not None:
            num_pages = metadata.get("pages")
            return f"page {document.page}" if num_pages is None else f"page {document.page} of {num_pages}"
        case "clip" if document.seconds is not None:
            start, end = document.seconds
            return f"{format_time(start)} to {format_time(end)}"
        case "text" if "first_line" in metadata:
            return f"lines {metadata['first_line']} to {metadata.get('last_line')}"
    return ""


def describe_content(document: Document) -> str:
    """Describe a document in one line.

    Args:
        document: A document that was found.

    Returns:
        The part of its source, followed by the start of the text if it is a passage. A document that is a whole source
        is described by the start of its text, such as a caption, which may be empty.
    """
    part = describe_part(document)
    if document.kind == "text":
        text = shorten(document.text, 60)
        return f"{part}: {text}" if part else text
    return part or shorten(document.text, 60)


def format_time(seconds: float) -> str:
    """Format seconds as minutes and seconds.

    Args:
        seconds: A time in a video.

    Returns:
        For example `"1:05"`.
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
