"""Hostile files of the other image formats: BMP, PPM, JPEG 2000 and AVIF."""

from __future__ import annotations

import struct
from io import BytesIO

from PIL import Image

from tests.support.hostile.file import HostileFile


def bmp(width: int, height: int, body: bytes, *, depth: int = 24, compression: int = 0, colors: int = 0) -> bytes:
    palette = bytes(1024) if depth == 8 else b""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(body), 0, 0, colors, 0)
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body


def run_length_bomb(side: int) -> bytes:
    """Runs of 255 pixels, two bytes each."""
    row = b"\xff\0" * (side // 255) + bytes([side % 255, 0]) + b"\0\0"
    return bmp(side, side, row * side + b"\0\1", depth=8, compression=1)


def plain_ppm(values: int) -> bytes:
    side = int((values / 3) ** 0.5)
    return b"P3 %d %d 255\n" % (side, side) + b"1 " * (3 * side * side)


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


def nested_boxes(kind: bytes, depth: int) -> bytes:
    return b"".join(struct.pack(">I", 8 * level) + kind for level in range(depth, 0, -1))


JP2_SIGNATURE = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")


def codestream(width: int, height: int, tile: int, components: int = 1) -> bytes:
    """The header of a JPEG 2000 code stream, without its tiles."""
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, tile, tile, 0, 0, components)
    size += b"\7\1\1" * components
    coding = b"\0\0\0\1\0\5\4\4\0\0"
    quantization = b"\x40" + b"\x40" * 16
    return (
        b"\xff\x4f"
         b"\xff\x51" + struct.pack(">H", len(size) + 2) + size
        + b"\xff\x52" + struct.pack(">H", len(coding) + 2) + coding
        + b"\xff\x5c" + struct.pack(">H", len(quantization) + 2) + quantization
    )  # fmt: skip


def empty_tile() -> bytes:
    """A tile without packets, and the end of the code stream."""
    return b"\xff\x90\0\x0a\0\0\0\0\0\x0f\0\1\xff\x93\x80\xff\xd9"


def jp2(stream: bytes, *boxes: bytes) -> bytes:
    header = box(b"ihdr", struct.pack(">IIHBBBB", 64, 64, 1, 7, 7, 0, 0)) + box(
        b"colr", b"\1\0\0" + struct.pack(">I", 17)
    )
    return JP2_SIGNATURE + b"".join(boxes) + box(b"jp2h", header) + box(b"jp2c", stream)


def avif() -> bytes:
    encoded = BytesIO()
    Image.new("RGB", (32, 32), "red").save(encoded, "AVIF", speed=10)
    return encoded.getvalue()


def avif_size(width: int, height: int) -> bytes:
    """An AVIF whose `ispe` box claims another size."""
    data = avif()
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


FILES = (
    HostileFile("bmp-run-length-bomb.bmp", "memory", "either", lambda: run_length_bomb(9_999)),
    HostileFile("bmp-empty-runs.bmp", "memory", "either", lambda: bmp(9_999, 9_999, b"\0\1", depth=8, compression=1)),
    HostileFile(
        "bmp-run-deltas.bmp", "memory", "either", lambda: bmp(900, 900, b"\0\2\xff\xff" * 10**6, depth=8, compression=1)
    ),
    HostileFile("bmp-header-60000.bmp", "memory", "error", lambda: bmp(60_000, 60_000, b"")),
    HostileFile("bmp-negative-height.bmp", "parser", "either", lambda: bmp(8, -8, bytes(192))),
    HostileFile("bmp-lowest-height.bmp", "crash", "error", lambda: bmp(8, -(2**31), bytes(192))),
    HostileFile("bmp-negative-width.bmp", "crash", "error", lambda: bmp(-8, 8, bytes(192))),
    HostileFile("bmp-palette.bmp", "memory", "either", lambda: bmp(8, 8, bytes(64), depth=8, colors=0xFFFFFFFF)),
    HostileFile("bmp-depth.bmp", "parser", "error", lambda: bmp(8, 8, bytes(64), depth=13)),
    HostileFile("bmp-truncated.bmp", "parser", "error", lambda: bmp(800, 800, bytes(64))),
    HostileFile("ppm-plain.ppm", "time", "either", lambda: plain_ppm(12_000_000)),
    HostileFile("ppm-comment.ppm", "time", "error", lambda: b"P6 " + b"#x\n" * 7_000_000),
    HostileFile("ppm-zeros.ppm", "parser", "error", lambda: b"P6 0 0 0 "),
    HostileFile("ppm-long-number.ppm", "parser", "error", lambda: b"P6 " + b"9" * 10_000 + b" 8 255 "),
    HostileFile("jpeg2000-bomb.jp2", "memory", "either", lambda: codestream(9_999, 9_999, 9_999) + empty_tile()),
    HostileFile("jpeg2000-components.jp2", "memory", "error", lambda: codestream(64, 64, 64, 16_384) + empty_tile()),
    HostileFile("jpeg2000-tiles.jp2", "time", "either", lambda: codestream(9_999, 9_999, 40) + empty_tile()),
    HostileFile("jpeg2000-nested.jp2", "parser", "error", lambda: JP2_SIGNATURE + nested_boxes(b"jp2h", 100_000)),
    HostileFile(
        "jpeg2000-many-boxes.jp2", "time", "either", lambda: jp2(codestream(64, 64, 64), box(b"free", b"") * 10**6)
    ),
    HostileFile("avif-size.avif", "memory", "either", lambda: avif_size(60_000, 60_000)),
    HostileFile("avif-truncated.avif", "parser", "error", lambda: avif()[:-60]),
    HostileFile("avif-nested.avif", "parser", "error", lambda: avif()[:32] + nested_boxes(b"meta", 100_000)),
)
