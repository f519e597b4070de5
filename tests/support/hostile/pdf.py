"""Writes PDF files of any objects, valid or not."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

PAGE = 3
"""Number of the object of the page; 1 is the catalog and 2 the page tree."""
FIRST_FREE = 10
"""Objects from this number on are free for further content."""


def stream(data: bytes, entries: bytes = b"") -> bytes:
    """An object that is a stream of the data as it is."""
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (entries, len(data), data)


def deflated(data: bytes, entries: bytes = b"") -> bytes:
    return stream(zlib.compress(data, 9), b"/Filter/FlateDecode" + entries)


def write(objects: Mapping[int, bytes], trailer: bytes = b"") -> bytes:
    """A PDF file of objects, with a valid cross-reference table."""
    parts, offsets, offset = [b"%PDF-1.7\n"], {}, 9
    for number, data in sorted(objects.items()):
        parts.append(b"%d 0 obj\n%s\nendobj\n" % (number, data))
        offsets[number] = offset
        offset += len(parts[-1])
    sections = b"0 1\n0000000000 65535 f \n"
    sections += b"".join(b"%d 1\n%010d 00000 n \n" % (number, offset) for number, offset in offsets.items())
    size = max(objects) + 1
    end = b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, offset)
    return b"".join(parts) + b"xref\n" + sections + end


def page(
    content: bytes,
    resources: bytes = b"",
    further: Mapping[int, bytes] | None = None,
    *,
    box: bytes = b"0 0 200 200",
    entries: bytes = b"",
    trailer: bytes = b"",
    count: int = 1,
) -> bytes:
    """A PDF of one page.

    Args:
        content: The object of the page's content, as `stream` returns it.
        resources: Entries of the page's resources.
        further: Further objects by number.
        box: The page's media box.
        entries: Further entries of the page.
        trailer: Further entries of the trailer.
        count: The number of pages that the page tree claims.
    """
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count %d>>" % count,
        PAGE: b"<</Type/Page/Parent 2 0 R/MediaBox[%s]/Resources<<%s>>/Contents 4 0 R%s>>" % (box, resources, entries),
        4: content,
    }
    return write(objects | dict(further or {}), trailer)


def form(content: bytes, resources: bytes = b"", entries: bytes = b"") -> bytes:
    """An object that is a form XObject."""
    head = b"/Type/XObject/Subtype/Form/BBox[0 0 200 200]/Resources<<%s>>%s" % (resources, entries)
    return stream(content, head)


def image(width: int, height: int, data: bytes, filters: bytes, *, depth: int = 8, entries: bytes = b"") -> bytes:
    """An object that is a gray image."""
    head = b"/Type/XObject/Subtype/Image/Width %d/Height %d/BitsPerComponent %d" % (width, height, depth)
    return stream(data, head + b"/ColorSpace/DeviceGray/Filter" + filters + entries)


def image_page(image_object: bytes, further: Mapping[int, bytes] | None = None) -> bytes:
    """A PDF of one page that shows an image."""
    resources = b"/XObject<</I %d 0 R>>" % FIRST_FREE
    content = stream(b"q 200 0 0 200 0 0 cm /I Do Q")
    return page(content, resources, {FIRST_FREE: image_object, **(further or {})})
