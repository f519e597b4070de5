"""Hostile PDF files whose structure is broken, endless or false."""

from __future__ import annotations

import struct
import zlib

from tests.support.hostile.file import MIB, HostileFile, deflate_zeros
from tests.support.hostile.pdf import FIRST_FREE, PAGE, deflated, form, image, image_page, page, stream, write

SQUARE = stream(b"0 0 99 99 re f")
CATALOG, PAGES = b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"


def false_count(count: int) -> bytes:
    return page(SQUARE, count=count)


def cyclic_tree() -> bytes:
    nodes = {2: b"<</Type/Pages/Kids[3 0 R 2 0 R]/Count 9>>", PAGE: b"<</Type/Pages/Parent 2 0 R/Kids[2 0 R]/Count 5>>"}
    return write({1: CATALOG, **nodes})


def deep_tree(levels: int) -> bytes:
    """A page below a thousand nodes of the tree."""
    objects = {1: CATALOG, 2: b"<</Type/Pages/Kids[10 0 R]/Count 1>>"}
    for level in range(levels):
        number = FIRST_FREE + level
        objects[number] = b"<</Type/Pages/Parent %d 0 R/Kids[%d 0 R]/Count 1>>" % (number - 1, number + 1)
    objects[FIRST_FREE + levels] = b"<</Type/Page/MediaBox[0 0 9 9]>>"
    return write(objects)


def wide_tree(levels: int, kids: int) -> bytes:
    """A few nodes that each name the next one many times: kids ** levels pages."""
    objects = {1: CATALOG}
    for level in range(levels):
        number = 2 + level
        child = b"%d 0 R " % (number + 1)
        objects[number] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (child * kids, kids ** (levels - level))
    objects[2 + levels] = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"
    return write(objects)


def cyclic_forms() -> bytes:
    forms = {
        10: form(b"/A Do /A Do", b"/XObject<</A 11 0 R>>"),
        11: form(b"/A Do /A Do", b"/XObject<</A 10 0 R>>"),
    }
    return page(stream(b"/A Do " * 9), b"/XObject<</A 10 0 R>>", forms)


def cyclic_glyphs() -> bytes:
    head = b"/Type/Font/Subtype/Type3/FontBBox[0 0 1 1]/FontMatrix[1 0 0 1 0 0]/FirstChar 97/LastChar 97/Widths[1]"
    font = b"<<%s/Encoding<</Differences[97/a]>>/CharProcs<</a 11 0 R>>/Resources<</Font<</F 10 0 R>>>>>>" % head
    text = b"BT /F 9 Tf 9 9 Td (aaaaaaaaaaaa) Tj ET"
    return page(stream(text), b"/Font<</F 10 0 R>>", {10: font, 11: stream(b"1 0 d0 " + text)})


def cyclic_reference() -> bytes:
    """An object that is a reference to itself, and a stream whose length is the stream."""
    objects = {10: b"10 0 R", 11: b"<</Length 11 0 R>>stream\n0 0 9 9 re f\nendstream"}
    return page(b"[10 0 R 11 0 R]", b"/XObject 10 0 R", objects)


def encrypted() -> bytes:
    keys = b"/Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>" % (b"01" * 32, b"02" * 32)
    return page(SQUARE, trailer=b"/Encrypt<<%s>>/ID[<00><00>]" % keys)


def object_stream_bomb() -> bytes:
    """The page lies in an object stream that inflates to a gigabyte."""
    data = deflate_zeros(1024 * MIB)
    packed = stream(data, b"/Type/ObjStm/N 1000000/First 8000000/Filter/FlateDecode")
    return cross_reference_stream({1: CATALOG, 2: PAGES, 5: packed}, {PAGE: (5, 0)}, 6)


def cross_reference_stream(objects: dict[int, bytes], packed: dict[int, tuple[int, int]], size: int) -> bytes:
    """A file whose cross-references are a stream; `packed` are the objects in object streams."""
    body, rows = b"%PDF-1.7\n", {0: (0, 0, 65_535)}
    for number, data in objects.items():
        rows[number] = (1, len(body), 0)
        body += b"%d 0 obj\n%s\nendobj\n" % (number, data)
    rows |= {number: (2, *place) for number, place in packed.items()}
    number = max(rows) + 1
    rows[number] = (1, len(body), 0)
    table = b"".join(struct.pack(">BIH", *rows.get(index, (0, 0, 0))) for index in range(number + 1))
    entries = b"/Type/XRef/W[1 4 2]/Size %d/Index[0 %d]/Root 1 0 R/Filter/FlateDecode" % (size, number + 1)
    reference = b"%d 0 obj\n%s\nendobj\n" % (number, stream(zlib.compress(table), entries))
    return body + reference + b"startxref\n%d\n%%%%EOF\n" % rows[number][1]


def previous_loop() -> bytes:
    """A cross-reference table that names itself as the one before."""
    data = page(SQUARE)
    at = data.rindex(b"xref\n", 0, data.rindex(b"startxref"))
    return data.replace(b"/Root 1 0 R", b"/Root 1 0 R/Prev %d" % at, 1)


def broken_references() -> bytes:
    return page(SQUARE).replace(b" 00000 n", b"99999 n").replace(b"startxref\n", b"startxref\n9")


def nested(start: bytes, end: bytes, depth: int) -> bytes:
    return page(SQUARE, entries=b"/Nested " + start * depth + end * depth)


def predictor() -> bytes:
    parameters = b"/DecodeParms<</Predictor 15/Colors 2147483647/BitsPerComponent 16/Columns 2147483647>>"
    return image_page(image(64, 64, zlib.compress(bytes(5_000)), b"/FlateDecode", entries=parameters))


def box(values: bytes) -> bytes:
    return page(SQUARE, box=values)


FILES = (
    HostileFile("pdf-count.pdf", "time", "either", lambda: false_count(1_000_000)),
    HostileFile("pdf-count-negative.pdf", "crash", "either", lambda: false_count(-7)),
    HostileFile("pdf-count-overflow.pdf", "crash", "either", lambda: false_count(2**31 - 1)),
    HostileFile("pdf-cyclic-tree.pdf", "time", "error", cyclic_tree),
    HostileFile("pdf-deep-tree.pdf", "crash", "either", lambda: deep_tree(20_000)),
    HostileFile("pdf-wide-tree.pdf", "time", "either", lambda: wide_tree(4, 100)),
    HostileFile("pdf-cyclic-forms.pdf", "time", "either", cyclic_forms),
    HostileFile("pdf-cyclic-glyphs.pdf", "crash", "either", cyclic_glyphs),
    HostileFile("pdf-cyclic-reference.pdf", "crash", "either", cyclic_reference),
    HostileFile("pdf-huge-box.pdf", "memory", "either", lambda: box(b"0 0 1000000000 1000000000")),
    HostileFile("pdf-line-box.pdf", "memory", "error", lambda: box(b"0 0 1000000 0.001")),
    HostileFile("pdf-tiny-box.pdf", "memory", "either", lambda: box(b"0 0 0.000001 0.000001")),
    HostileFile("pdf-nan-box.pdf", "parser", "either", lambda: box(b"nan nan nan nan")),
    HostileFile("pdf-infinite-box.pdf", "crash", "either", lambda: box(b"0 0 " + b"9" * 400 + b" " + b"9" * 400)),
    HostileFile("pdf-zero-box.pdf", "parser", "either", lambda: box(b"0 0 0 0")),
    HostileFile("pdf-user-unit.pdf", "memory", "either", lambda: page(SQUARE, entries=b"/UserUnit 1e30")),
    HostileFile("pdf-encrypted.pdf", "parser", "error", encrypted),
    HostileFile("pdf-object-stream-bomb.pdf", "memory", "either", object_stream_bomb),
    HostileFile(
        "pdf-reference-size.pdf",
        "memory",
        "either",
        lambda: cross_reference_stream({1: CATALOG, 2: PAGES, 4: SQUARE}, {}, 2**31 - 1),
    ),
    HostileFile("pdf-previous-loop.pdf", "time", "either", previous_loop),
    HostileFile("pdf-broken-references.pdf", "parser", "either", broken_references),
    HostileFile("pdf-truncated.pdf", "parser", "either", lambda: page(SQUARE)[:250]),
    HostileFile("pdf-head.pdf", "parser", "error", lambda: page(SQUARE)[:60]),
    HostileFile("pdf-nested-arrays.pdf", "crash", "either", lambda: nested(b"[", b"]", 10_000)),
    HostileFile("pdf-nested-dictionaries.pdf", "crash", "either", lambda: nested(b"<</A ", b">>", 10_000)),
    HostileFile(
        "pdf-nested-content.pdf", "crash", "either", lambda: page(deflated(b"[" * 10**6 + b"]" * 10**6 + b" TJ"))
    ),
    HostileFile("pdf-predictor.pdf", "crash", "either", predictor),
    HostileFile("pdf-open-string.pdf", "time", "either", lambda: page(stream(b"(" * 10**6))),
    HostileFile("pdf-rebuild.pdf", "time", "either", lambda: b"%PDF-1.7\n" + b"1 0 obj<</Type/Page>>endobj\n" * 10**5),
)
