"""Pages of PDF files as pictures and as text, by PDFium."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pypdfium2 as pdfium
from PIL import Image

from qwen3vl.errors import MediaError

LONG_SIDE = 1684
"""Pixels of a rendered page's longer side: A4 at 144 dots an inch, near the models' 1,843,200 pixels."""

# PDFium is not safe to call from two threads at once.
_lock = threading.Lock()


@contextmanager
def _document(source: Path | bytes) -> Iterator[pdfium.PdfDocument]:
    with _lock:
        try:
            document = pdfium.PdfDocument(source)
        except (pdfium.PdfiumError, OSError) as error:
            raise MediaError(f"this PDF cannot be opened: {error}") from error
        try:
            yield document
        except pdfium.PdfiumError as error:
            raise MediaError(f"this PDF is broken: {error}") from error
        finally:
            document.close()


@contextmanager
def _page(source: Path | bytes, number: int) -> Iterator[pdfium.PdfPage]:
    with _document(source) as document:
        if not 1 <= number <= len(document):
            raise MediaError(f"there is no page {number}: the PDF has {len(document)}")
        page = document[number - 1]
        try:
            yield page
        finally:
            page.close()


def page_count(source: Path | bytes) -> int:
    with _document(source) as document:
        return len(document)


def page_size(source: Path | bytes, number: int) -> tuple[int, int]:
    """Width and height in pixels at which page `number` (from 1) is rendered."""
    with _page(source, number) as page:
        return _rendered(page)


def render_page(source: Path | bytes, number: int) -> Image.Image:
    """Page `number` (from 1) as an RGB picture on white."""
    with _page(source, number) as page:
        width, height = _rendered(page)
        scale = LONG_SIDE / max(page.get_size())
        picture: Image.Image = page.render(scale=scale).to_pil().convert("RGB")
    return picture if picture.size == (width, height) else picture.resize((width, height))


def page_text(source: Path | bytes, number: int) -> str:
    """The text of page `number` (from 1), as it lies in the file; empty for a scanned page."""
    with _page(source, number) as page:
        text = page.get_textpage()
        try:
            return str(text.get_text_bounded()).replace("\r\n", "\n").strip()
        finally:
            text.close()


def _rendered(page: pdfium.PdfPage) -> tuple[int, int]:
    width, height = page.get_size()
    if width <= 0 or height <= 0:
        raise MediaError(f"the page measures {width:g} x {height:g} points")
    scale = LONG_SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
