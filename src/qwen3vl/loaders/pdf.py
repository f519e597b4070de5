"""Loads the pages of a PDF as documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.media.isolation import decode, decode_stream
from qwen3vl.media.pdf import page_count, page_texts
from qwen3vl.media.policy import MediaPolicy

_FIRST_CHUNK, _MAX_CHUNK = 16, 1024
"""Pages whose texts are read while the file is open once. The number doubles, so that the time for a file is linear in
its pages, and a short file is not read further than needed."""
MAX_BROKEN_PAGES = 100
"""After so many broken pages in a row, the rest is not tried: a file can claim a million pages and have one."""
MAX_LIMITED_PAGES = 3
"""After so many pages in a row that exceed the policy's time or memory, the rest is not tried."""


@dataclass(frozen=True, slots=True)
class _PageText:
    """The text of a page, or why it cannot be read."""

    page_number: int
    text: str
    error: MediaError | None = None


def load_pdf(path: Path, digest: str, policy: MediaPolicy, *, fuse: bool = False) -> Iterator[Document | LoadFailure]:
    """Load a PDF.

    Args:
        path: The file.
        digest: Digest of its content.
        policy: Limits on files and sizes.
        fuse: Whether a page's text is embedded together with its image, or only stored beside it.

    Yields:
        A document of kind `"page"` for each page, with `page` (from 1) and `pages` in its metadata. Its image is the
        reference `FILE#page=N`, which is rendered when it is embedded. Broken pages are a failure of their own, one
        for all that follow one another.

    Raises:
        MediaError: The PDF cannot be opened.
    """
    num_pages = decode(policy, page_count, path)
    broken: list[_PageText] = []
    for page in _read_pages(path, num_pages, policy):
        if page.error is not None:
            broken.append(page)
            num_limited = sum(isinstance(page.error, PolicyError) for page in broken)
            if len(broken) >= MAX_BROKEN_PAGES or num_limited >= MAX_LIMITED_PAGES:
                break
            continue
        if broken:
            yield _to_failure(path, broken, page.page_number - 1)
            broken = []
        locator = f"page={page.page_number}"
        yield Document(
            str(path),
            "page",
            digest,
            locator=locator,
            text=page.text,
            image=f"{path}#{locator}",
            fused=fuse,
            metadata={"page": page.page_number, "pages": num_pages},
        )
    if broken:
        yield _to_failure(path, broken, num_pages)


def _read_pages(path: Path, num_pages: int, policy: MediaPolicy) -> Iterator[_PageText]:
    """Read the texts of all pages, in chunks."""
    first, chunk = 1, _FIRST_CHUNK
    while first <= num_pages:
        pages: list[_PageText] = []
        last = min(first + chunk - 1, num_pages)
        try:
            # The whole chunk before any of it is used: a decoder process is occupied meanwhile.
            for text, reason in decode_stream(policy, page_texts, path, first, last, limit_each_value=True):
                error = MediaError(reason) if text is None else None
                pages.append(_PageText(first + len(pages), text or "", error))
        except MediaError as error:
            pages.append(_PageText(first + len(pages), "", error))
        yield from pages
        first += len(pages)
        chunk = min(2 * chunk, _MAX_CHUNK)


def _to_failure(path: Path, broken: list[_PageText], last: int) -> LoadFailure:
    """Describe broken pages that follow one another, the last of which may not have been tried."""
    first, error = broken[0].page_number, broken[0].error
    if first == last:
        return LoadFailure(str(path), str(error), f"page={first}")
    untried = f"; the pages after {broken[-1].page_number} were not tried" if broken[-1].page_number < last else ""
    return LoadFailure(str(path), f"the pages {first} to {last} cannot be read: {error}{untried}", f"page={first}")
