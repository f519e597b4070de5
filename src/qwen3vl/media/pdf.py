"""Pages of PDF files as images and as text, by PDFium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pypdfium2 as pdfium
from PIL import Image

from qwen3vl.concurrency.fork_safety import ForkSafeLock
from qwen3vl.errors import MediaError
from qwen3vl.media.images import to_pixels
from qwen3vl.types import Pixels, Size

LONG_SIDE = 1684
"""Pixels of a rendered page's longer side: A4 at 144 dots per inch, near the models' limit of 1,843,200 pixels."""

# PDFium is not thread-safe.
_lock = ForkSafeLock()


def page_count(data: Path | bytes) -> int:
    """Return the number of pages.

    Args:
        data: A PDF file, or its bytes.

    Returns:
        The number of pages.

    Raises:
        MediaError: The PDF cannot be opened.
    """
    with _open_document(data) as document:
        return len(document)


def page_size(data: Path | bytes, page_number: int) -> tuple[int, int]:
    """Return the size at which a page is rendered.

    Args:
        data: A PDF file, or its bytes.
        page_number: Number of the page, from 1.

    Returns:
        Width and height in pixels.

    Raises:
        MediaError: The PDF is broken, or has no such page.
    """
    with _open_document(data) as document, _open_page(document, page_number) as page:
        return _rendered_size(page)


def render_page(data: Path | bytes, page_number: int, resized_to: Size | None) -> Pixels:
    """Render a page on white.

    Args:
        data: A PDF file, or its bytes.
        page_number: Number of the page, from 1.
        resized_to: Height and width to which the page is resized once it is rendered; None keeps its size.

    Returns:
        Pixels, (height, width, 3) uint8. The longer side of the rendered page has `LONG_SIDE` pixels.

    Raises:
        MediaError: The PDF is broken, or has no such page.
    """
    with _open_document(data) as document, _open_page(document, page_number) as page:
        size = _rendered_size(page)
        scale = LONG_SIDE / max(page.get_size())
        image: Image.Image = page.render(scale=scale).to_pil().convert("RGB")
    return to_pixels(image if image.size == size else image.resize(size), resized_to)


def page_texts(data: Path | bytes, first: int, last: int) -> Iterator[tuple[str | None, str]]:
    """Read the texts of consecutive pages, as they are stored in the file, which is opened once.

    Args:
        data: A PDF file, or its bytes.
        first: Number of the first page, from 1.
        last: Number of the last page, inclusive.

    Yields:
        For each page its text, empty if it is scanned, and an empty string; or None, and why it cannot be read.

    Raises:
        MediaError: The PDF cannot be opened.
    """
    with _open_document(data) as document:
        for page_number in range(first, last + 1):
            try:
                yield _page_text(document, page_number), ""
            except MediaError as error:
                yield None, str(error)
            except pdfium.PdfiumError as error:
                yield None, _broken(error)


def _page_text(document: pdfium.PdfDocument, page_number: int) -> str:
    with _open_page(document, page_number) as page:
        text_page = page.get_textpage()
        try:
            return str(text_page.get_text_bounded()).replace("\r\n", "\n").strip()
        finally:
            text_page.close()


@contextmanager
def _open_document(data: Path | bytes) -> Iterator[pdfium.PdfDocument]:
    with _lock:
        try:
            document = pdfium.PdfDocument(data)
        except (pdfium.PdfiumError, OSError) as error:
            raise MediaError(f"this PDF cannot be opened: {error}; export it again, without a password") from error
        try:
            yield document
        except pdfium.PdfiumError as error:
            raise MediaError(_broken(error)) from error
        finally:
            document.close()


def _broken(error: pdfium.PdfiumError) -> str:
    return f"this PDF is broken: {error}; export it again"


@contextmanager
def _open_page(document: pdfium.PdfDocument, page_number: int) -> Iterator[pdfium.PdfPage]:
    if not 1 <= page_number <= len(document):
        raise MediaError(f"there is no page {page_number}: the PDF has {len(document)}; pages count from 1")
    page = document[page_number - 1]
    try:
        yield page
    finally:
        page.close()


def _rendered_size(page: pdfium.PdfPage) -> tuple[int, int]:
    width, height = page.get_size()
    if width <= 0 or height <= 0:
        raise MediaError(f"the page measures {width:g} x {height:g} points; export the PDF again")
    scale = LONG_SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
