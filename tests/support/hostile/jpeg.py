"""Hostile JPEG files."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from PIL import Image

from tests.support.hostile.file import HostileFile

START, END = b"\xff\xd8", b"\xff\xd9"
DC_TABLE, AC_TABLE = 0x00, 0x10


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def frame(marker: int, width: int, height: int, components: int = 1) -> bytes:
    """A frame header: marker 0xC0 is baseline, 0xC2 progressive."""
    planes = b"".join(struct.pack("BBB", number, 0x11, 0) for number in range(1, components + 1))
    return segment(marker, struct.pack(">BHHB", 8, height, width, components) + planes)


def quantization() -> bytes:
    return segment(0xDB, b"\0" + b"\1" * 64)


def huffman(table: int, symbol: int) -> bytes:
    """A table whose only code, one zero bit, stands for a symbol."""
    return segment(0xC4, bytes([table, 1]) + bytes(15) + bytes([symbol]))


def photo() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    encoded = BytesIO()
    Image.fromarray(noise).save(encoded, "JPEG", quality=80)
    return encoded.getvalue()


def with_segments(*segments: bytes) -> bytes:
    """Return a small photo with further segments at its beginning."""
    return START + b"".join(segments) + photo()[2:]


def truncated() -> bytes:
    data = photo()
    return data[: len(data) // 2]


def progressive(side: int, scans: int) -> bytes:
    """Many scans of a large image, each of which is some sixty bytes: "the next 32767 blocks are empty"."""
    blocks = (side // 8) ** 2
    bits = ""
    while blocks > 0:
        run = min(blocks, 32_767)
        bits += "0" + format(run - 16_384, "014b") if run >= 16_384 else "0" + "0" * 14
        blocks -= run
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + body
    tables = quantization() + huffman(AC_TABLE, 0xE0)
    return START + frame(0xC2, side, side) + tables + scan * scans + END


def bad_huffman() -> bytes:
    """A table with more codes than its lengths allow."""
    table = segment(0xC4, bytes([AC_TABLE]) + b"\xff" * 16 + bytes(4080))
    return START + quantization() + frame(0xC0, 64, 64) + table + segment(0xDA, bytes([1, 1, 0, 0, 63, 0])) + END


def exif(tiff: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff)


def exif_loop() -> bytes:
    """A directory that is its own EXIF directory, and its own successor."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return with_segments(exif(b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8)))


def exif_overlap() -> bytes:
    """Thousands of tags that all refer to the same bytes."""
    entries = b"".join(struct.pack("<HHII", 0xA000 + tag, 1, 60_000, 0) for tag in range(4_500))
    tiff = b"II*\0" + struct.pack("<IH", 8, 4_500) + entries + struct.pack("<I", 0)
    return with_segments(exif(tiff.ljust(65_000, b"\0")))


def multi_picture() -> bytes:
    """An index that claims four billion images."""
    entries = struct.pack("<HHII", 0xB001, 4, 1, 0xFFFFFFFF) + struct.pack("<HHII", 0xB002, 7, 16, 50)
    index = b"MPF\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0) + bytes(32)
    return with_segments(segment(0xE2, index))


FILES = (
    HostileFile("jpeg-truncated.jpg", "parser", "error", truncated),
    HostileFile("jpeg-header-65500.jpg", "memory", "error", lambda: START + frame(0xC0, 65_500, 65_500) + END),
    HostileFile("jpeg-progressive-scans.jpg", "time", "either", lambda: progressive(8_000, 5_000)),
    HostileFile("jpeg-bad-huffman.jpg", "crash", "error", bad_huffman),
    HostileFile("jpeg-exif-loop.jpg", "time", "either", exif_loop),
    HostileFile("jpeg-exif-overlap.jpg", "memory", "either", exif_overlap),
    HostileFile("jpeg-exif-huge.jpg", "memory", "either", lambda: with_segments(exif(bytes(65_000)) * 400)),
    HostileFile("jpeg-million-segments.jpg", "time", "either", lambda: with_segments(segment(0xEB, b"") * 1_000_000)),
    HostileFile("jpeg-multi-picture.jpg", "parser", "either", multi_picture),
    HostileFile("jpeg-zero-height.jpg", "parser", "error", lambda: START + frame(0xC0, 64, 0) + END),
    HostileFile("jpeg-components.jpg", "parser", "error", lambda: START + frame(0xC0, 64, 64, 200) + END),
    HostileFile("jpeg-no-scan.jpg", "memory", "either", lambda: START + frame(0xC0, 9_900, 9_900, 3) + END),
    HostileFile("jpeg-segment-length.jpg", "parser", "either", lambda: START + b"\xff\xe0\0\0" + photo()[2:]),
)
