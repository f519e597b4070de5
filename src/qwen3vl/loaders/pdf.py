"""A PDF, a page each: its picture, and its text for reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import MediaError
from qwen3vl.media.pdf import page_count, page_text


def load_pdf(path: Path, digest: str, *, fuse: bool = False) -> Iterator[Document | LoadFailure]:
    """Pages with `page` (from 1) and `pages` in their metadata; a broken page is a failure of its own.

    The image is a reference, `FILE#page=N`: the page is rendered when it is looked at.
    """
    pages = page_count(path)
    for number in range(1, pages + 1):
        try:
            text = page_text(path, number)
        except MediaError as error:
            yield LoadFailure(f"{path}#page={number}", str(error))
            continue
        yield Document(
            str(path),
            "page",
            digest,
            locator=f"page={number}",
            text=text,
            image=f"{path}#page={number}",
            fused=fuse,
            metadata={"page": number, "pages": pages},
        )
