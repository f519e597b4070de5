"""Hostile PNG files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from tests.support.hostile.file import MIB, HostileFile, deflate_zeros

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, RGB, PALETTE, RGBA = 0, 2, 3, 6
"""Colour types."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, *, depth: int = 8, color: int = RGB, interlaced: bool = False) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def png(width: int, height: int, rows: int = 1) -> bytes:
    """Return a PNG whose header claims a size, with the pixels of `rows` rows."""
    body = zlib.compress(b"\0" * (rows * (3 * width + 1)), 9)
    return header(width, height) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bomb(width: int, height: int, *, depth: int, color: int) -> Callable[[], bytes]:
    """A complete image of zeros."""
    channels = {GRAY: 1, RGB: 3, RGBA: 4}[color]
    size = height * (1 + -(-width * depth * channels // 8))
    return lambda: header(width, height, depth=depth, color=color) + chunk(b"IDAT", deflate_zeros(size)) + END


END = chunk(b"IEND", b"")


def with_chunks(*chunks: bytes) -> bytes:
    """Return an image of 8 x 8 pixels with further chunks before its pixels."""
    pixels = chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
    return header(8, 8) + b"".join(chunks) + pixels + END


def bad_checksum() -> bytes:
    data = bytearray(png(8, 8, 8))
    data[29] ^= 0xFF  # of IHDR
    return bytes(data)


def interlaced_truncated() -> bytes:
    pixels = zlib.compress(bytes(range(256)) * 64)
    return header(200, 200, interlaced=True) + chunk(b"IDAT", pixels[: len(pixels) // 2])


def animation(frames: int) -> bytes:
    control = [chunk(b"acTL", struct.pack(">II", frames, 0))]
    pixels = zlib.compress(bytes(8 * 25))
    body = []
    for number in range(frames):
        frame = struct.pack(">IIIIIHHBB", max(0, 2 * number - 1), 8, 8, 0, 0, 0, 1, 0, 0)
        data = chunk(b"IDAT", pixels) if number == 0 else chunk(b"fdAT", struct.pack(">I", 2 * number) + pixels)
        body.append(chunk(b"fcTL", frame) + data)
    return header(8, 8) + b"".join(control + body) + END


def palette_missing() -> bytes:
    return header(8, 8, color=PALETTE) + chunk(b"IDAT", zlib.compress(bytes(8 * 9))) + END


def split_pixels(chunks: int) -> bytes:
    """The pixels in chunks of one byte, with empty ones between them."""
    data = zlib.compress(bytes(8 * 25))
    empty = chunk(b"IDAT", b"") * (chunks // len(data))
    return header(8, 8) + b"".join(chunk(b"IDAT", data[index : index + 1]) + empty for index in range(len(data))) + END


FILES = (
    HostileFile("png-header-60000.png", "memory", "error", lambda: png(60_000, 60_000)),
    HostileFile("png-gray-bomb.png", "memory", "either", bomb(9_999, 9_999, depth=1, color=GRAY)),
    HostileFile("png-rgba-bomb.png", "memory", "either", bomb(9_999, 9_999, depth=8, color=RGBA)),
    HostileFile("png-16-bit-bomb.png", "memory", "either", bomb(9_999, 9_999, depth=16, color=RGBA)),
    HostileFile("png-line.png", "memory", "error", bomb(90_000_000, 1, depth=1, color=GRAY)),
    HostileFile(
        "png-profile-bomb.png",
        "memory",
        "either",
        lambda: with_chunks(chunk(b"iCCP", b"icc\0\0" + deflate_zeros(1024 * MIB))),
    ),
    HostileFile(
        "png-text-bomb.png",
        "memory",
        "either",
        lambda: with_chunks(chunk(b"zTXt", b"Comment\0\0" + deflate_zeros(1024 * MIB))),
    ),
    HostileFile(
        "png-many-text-bombs.png",
        "memory",
        "either",
        lambda: with_chunks(chunk(b"iTXt", b"Comment\0\1\0\0\0" + deflate_zeros(MIB)[:-40]) * 2_000),
    ),
    HostileFile(
        "png-long-text.png",
        "memory",
        "either",
        lambda: with_chunks(chunk(b"tEXt", b"Comment\0" + b"x" * 20 * MIB)),
    ),
    HostileFile("png-million-chunks.png", "time", "either", lambda: with_chunks(chunk(b"teSt", b"") * 1_000_000)),
    HostileFile("png-split-pixels.png", "time", "either", lambda: split_pixels(1_000_000)),
    HostileFile("png-bad-checksum.png", "parser", "error", bad_checksum),
    HostileFile("png-interlaced-truncated.png", "parser", "error", interlaced_truncated),
    HostileFile("png-animation.png", "time", "either", lambda: animation(50_000)),
    HostileFile("png-zero-size.png", "parser", "error", lambda: png(0, 0)),
    HostileFile("png-zero-height.png", "parser", "error", lambda: png(8, 0)),
    HostileFile("png-palette-missing.png", "parser", "either", palette_missing),
    HostileFile("png-pixels-bomb.png", "memory", "either", lambda: header(8, 8) + chunk(b"IDAT", deflate_zeros(10**9))),
    HostileFile("png-chunk-length.png", "parser", "error", lambda: header(8, 8) + b"\xff\xff\xff\xffIDAT" + bytes(99)),
    HostileFile("png-signature.png", "parser", "error", lambda: SIGNATURE),
)
