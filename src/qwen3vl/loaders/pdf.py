"""Loads the pages of a PDF as documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import MediaError
from qwen3vl.media.pdf import page_count, page_text


def load_pdf(path: Path, digest: str, *, fuse: bool = False) -> Iterator[Document | LoadFailure]:
    """Load a PDF.

    Args:
        path: The file.
        digest: Digest of its content.
        fuse: Whether a page's text is embedded together with its image, or only stored beside it.

    Yields:
        A document of kind `"page"` for each page, with `page` (from 1) and `pages` in its metadata. Its image is the
        reference `FILE#page=N`, which is rendered when it is embedded. A broken page is a failure of its own.

    Raises:
        MediaError: The PDF cannot be opened.
    """
    num_pages = page_count(path)
    for page_number in range(1, num_pages + 1):
        locator = f"page={page_number}"
        try:
            text = page_text(path, page_number)
        except MediaError as error:
            yield LoadFailure(str(path), str(error), locator)
            continue
        yield Document(
            str(path),
            "page",
            digest,
            locator=locator,
            text=text,
            image=f"{path}#{locator}",
            fused=fuse,
            metadata={"page": page_number, "pages": num_pages},
        )
