"""Hostile PDF files whose pages are valid, and take very long or very much memory to show."""

from __future__ import annotations

import struct
import zlib

from tests.support.hostile.file import MIB, HostileFile, deflate_repeated, deflate_zeros
from tests.support.hostile.other_images import codestream, empty_tile
from tests.support.hostile.pdf import FIRST_FREE, deflated, form, image, image_page, page, stream

FLATE = b"/Filter/FlateDecode"


def nested_forms(levels: int, calls: int) -> bytes:
    """Each form shows the next one ten times."""
    objects = {}
    for level in range(levels):
        last = level == levels - 1
        content = b"0 0 9 9 re f " if last else b"/F Do " * calls
        resources = b"" if last else b"/XObject<</F %d 0 R>>" % (FIRST_FREE + level + 1)
        objects[FIRST_FREE + level] = form(content, resources)
    return page(stream(b"/F Do " * calls), b"/XObject<</F %d 0 R>>" % FIRST_FREE, objects)


def function_shading(operations: int) -> bytes:
    """A function of hundreds of thousands of operators, computed for every pixel."""
    code = b"{" + b"dup mul sqrt " * (operations // 3) + b"}"
    function = stream(code, b"/FunctionType 4/Domain[0 1 0 1]/Range[0 1 0 1]")
    shading = b"<</ShadingType 1/ColorSpace/DeviceGray/Domain[0 1 0 1]/Matrix[200 0 0 200 0 0]/Function 11 0 R>>"
    function = function.replace(b"/Range[0 1 0 1]", b"/Range[0 1]").replace(b"{dup", b"{pop dup", 1)
    return page(stream(b"/S sh"), b"/Shading<</S 10 0 R>>", {10: shading, 11: function})


def deflated_page(block: bytes, times: int, resources: bytes = b"", head: bytes = b"") -> bytes:
    """A page whose content is a block, repeated."""
    return page(stream(deflate_repeated(block, times, head=head), FLATE), resources)


FONT = b"/Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>"


def text(lines: int) -> bytes:
    """Lines that are far below the page."""
    return deflated_page(b"(ab c) Tj T* " * 4_000, lines // 4_000, FONT, b"BT /F 9 Tf 9 TL 20 180 Td ")


def overlapping_text(lines: int) -> bytes:
    """Lines that all lie upon each other."""
    content = b"BT /F 9 Tf " + b"1 0 0 1 20 100 Tm (abcdefgh) Tj " * lines + b"ET"
    return page(deflated(content), FONT)


def tiling(nested: int) -> bytes:
    """A pattern with tiny tiles; each tile shows the next pattern."""
    objects = {}
    for level in range(nested):
        last = level == nested - 1
        content = b"0 0 1 1 re f" if last else b"/Pattern cs /P scn 0 0 200 200 re f"
        resources = b"" if last else b"/Pattern<</P %d 0 R>>" % (FIRST_FREE + level + 1)
        head = b"/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 200 200]/XStep 0.01/YStep 0.01/Resources<<%s>>"
        objects[FIRST_FREE + level] = stream(content, head % resources)
    return page(stream(b"/Pattern cs /P scn 0 0 200 200 re f"), b"/Pattern<</P 10 0 R>>", objects)


def glyph_font(procedure: bytes, resources: bytes) -> bytes:
    entries = b"/Type/Font/Subtype/Type3/FontBBox[0 0 1 1]/FontMatrix[1 0 0 1 0 0]/FirstChar 97/LastChar 97/Widths[1]"
    return b"<<%s/Encoding<</Differences[97/a]>>/CharProcs<</a %s>>/Resources<<%s>>>>" % (entries, procedure, resources)


def nested_glyphs(levels: int, calls: int) -> bytes:
    """Fonts whose glyphs are lines of text in the next font."""
    objects = {}
    for level in range(levels):
        last = level == levels - 1
        content = b"1 0 d0 " + (b"0 0 1 1 re f" if last else b"BT /F 1 Tf (" + b"a" * calls + b") Tj ET")
        resources = b"" if last else b"/Font<</F %d 0 R>>" % (FIRST_FREE + 2 * level + 2)
        objects[FIRST_FREE + 2 * level] = glyph_font(b"%d 0 R" % (FIRST_FREE + 2 * level + 1), resources)
        objects[FIRST_FREE + 2 * level + 1] = stream(content)
    content = b"BT /F 9 Tf 9 9 Td (" + b"a" * calls + b") Tj ET"
    return page(stream(content), b"/Font<</F 10 0 R>>", objects)


def transparency_groups(levels: int) -> bytes:
    """Groups within groups: each takes a bitmap of the page."""
    objects = {}
    for level in range(levels):
        last = level == levels - 1
        content = b"0 0 200 200 re f" if last else b"/G gs /F Do"
        resources = b"/ExtGState<</G<</ca 0.5/BM/Luminosity>>>>"
        resources += b"" if last else b"/XObject<</F %d 0 R>>" % (FIRST_FREE + level + 1)
        objects[FIRST_FREE + level] = form(content, resources, b"/Group<</S/Transparency/I true/K true>>")
    return page(stream(b"/F Do"), b"/XObject<</F 10 0 R>>", objects, entries=b"/Group<</S/Transparency>>")


def soft_masks(levels: int, calls: int) -> bytes:
    """Masks whose forms are masked themselves."""
    objects = {}
    for level in range(levels):
        last = level == levels - 1
        content = b"0 0 9 9 re f" if last else b"q /G gs 0 0 99 99 re f Q " * calls
        mask = b"" if last else b"/ExtGState<</G<</SMask<</S/Luminosity/G %d 0 R>>>>>>" % (FIRST_FREE + level + 1)
        objects[FIRST_FREE + level] = form(content, mask, b"/Group<</S/Transparency/CS/DeviceGray>>")
    mask = b"/ExtGState<</G<</SMask<</S/Luminosity/G 10 0 R>>>>>>"
    return page(stream(b"q /G gs 0 0 99 99 re f Q " * calls), mask, objects)


def free_form_mesh(triangles: int) -> bytes:
    """A mesh of triangles that each cover the page."""
    corners = ((0, 0, 0), (255, 0, 127), (0, 255, 255))
    mesh = b"".join(struct.pack("BBBB", 0, *corner) for corner in corners)
    head = b"/ShadingType 4/ColorSpace/DeviceGray/BitsPerCoordinate 8/BitsPerComponent 8/BitsPerFlag 8"
    data = deflate_repeated(mesh * 1000, triangles // 1000)
    shading = stream(data, head + b"/Decode[0 200 0 200 0 1]" + FLATE)
    return page(stream(b"/S sh"), b"/Shading<</S 10 0 R>>", {10: shading})


def fax(side: int) -> bytes:
    """Group 4 rows that equal the row above: one bit each."""
    data = b"\xff" * (side // 8)
    parameters = b"/DecodeParms<</K -1/Columns %d/Rows %d>>" % (side, side)
    return image_page(image(side, side, data, b"/CCITTFaxDecode", depth=1, entries=parameters))


def jbig2(side: int) -> bytes:
    """A page of one generic region that is all white, and many more that are drawn over it."""
    info = struct.pack(">IIIIBH", side, side, 0, 0, 0, 0)
    page_segment = struct.pack(">IBBBI", 0, 48, 0, 1, len(info)) + info
    body = struct.pack(">IIIIB", side, side, 0, 0, 0) + b"\0" + bytes([3, 255, 253, 255, 2, 254, 254, 254]) + bytes(64)
    regions = [struct.pack(">IBBBI", number, 38, 0, 1, len(body)) + body for number in range(1, 200)]
    return image_page(image(side, side, page_segment + b"".join(regions), b"/JBIG2Decode", depth=1))


FILES = (
    HostileFile("pdf-nested-forms.pdf", "time", "either", lambda: nested_forms(8, 10)),
    HostileFile("pdf-function-shading.pdf", "time", "either", lambda: function_shading(55_000)),
    HostileFile("pdf-rectangles.pdf", "time", "either", lambda: deflated_page(b"0 0 99 99 re f\n" * 4_000, 1_000)),
    HostileFile(
        "pdf-path.pdf", "memory", "either", lambda: deflated_page(b"7 7 l 0 0 l\n" * 4_000, 1_000, head=b"0 0 m ")
    ),
    HostileFile("pdf-content-bomb.pdf", "memory", "either", lambda: deflated_page(b" " * MIB, 780)),
    HostileFile("pdf-saved-states.pdf", "memory", "either", lambda: deflated_page(b"q " * 32_000, 1_000)),
    HostileFile("pdf-text.pdf", "time", "either", lambda: text(2_000_000)),
    HostileFile("pdf-overlapping-text.pdf", "time", "either", lambda: overlapping_text(40_000)),
    HostileFile("pdf-tiling.pdf", "time", "either", lambda: tiling(4)),
    HostileFile("pdf-nested-glyphs.pdf", "time", "either", lambda: nested_glyphs(6, 20)),
    HostileFile("pdf-transparency-groups.pdf", "memory", "either", lambda: transparency_groups(60)),
    HostileFile("pdf-soft-masks.pdf", "time", "either", lambda: soft_masks(8, 8)),
    HostileFile("pdf-mesh.pdf", "time", "either", lambda: free_form_mesh(1_000_000)),
    HostileFile(
        "pdf-dashes.pdf",
        "time",
        "either",
        lambda: page(stream(b"[0.00001] 0 d 3 w 0 0 m 200 200 l 0 200 l 200 0 l S " * 50)),
    ),
    HostileFile(
        "pdf-clips.pdf", "time", "either", lambda: deflated_page(b"0 0 m 9 190 99 -50 190 190 c W n q " * 500, 200)
    ),
    HostileFile(
        "pdf-inline-image.pdf",
        "memory",
        "either",
        lambda: deflated_page(bytes(MIB), 1_000, head=b"q 200 0 0 200 0 0 cm BI /W 30000 /H 30000 /BPC 8 /CS /G ID "),
    ),
    HostileFile(
        "pdf-many-inline-images.pdf",
        "time",
        "either",
        lambda: deflated_page(b"BI /W 1 /H 1 /BPC 8 /CS /G ID x EI\n" * 1_000, 500, head=b"200 0 0 200 0 0 cm "),
    ),
    HostileFile(
        "pdf-image-bomb.pdf",
        "memory",
        "either",
        lambda: image_page(image(30_000, 30_000, deflate_zeros(900_000_000), b"/FlateDecode")),
    ),
    HostileFile(
        "pdf-double-deflate.pdf",
        "memory",
        "either",
        lambda: image_page(
            image(30_000, 30_000, zlib.compress(deflate_zeros(900_000_000), 9), b"[/FlateDecode/FlateDecode]")
        ),
    ),
    HostileFile("pdf-fax-bomb.pdf", "memory", "either", lambda: fax(60_000)),
    HostileFile("pdf-jbig2-bomb.pdf", "time", "either", lambda: jbig2(30_000)),
    HostileFile(
        "pdf-jpx-bomb.pdf",
        "memory",
        "either",
        lambda: image_page(image(20_000, 20_000, codestream(20_000, 20_000, 20_000) + empty_tile(), b"/JPXDecode")),
    ),
)
