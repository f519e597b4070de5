"""Hostile GIF and WEBP files."""

from __future__ import annotations

import struct
from functools import cache
from io import BytesIO

from PIL import Image

from tests.support.hostile.file import HostileFile

DELAY = b"!\xf9\4\0\4\0\0\0"
"""The extension before a frame that is shown for 0.04 seconds."""


def gif(width: int, height: int, *blocks: bytes, colors: bool = True) -> bytes:
    """A GIF of the given blocks, with two colours."""
    screen = struct.pack("<HHBBB", width, height, 0x80 if colors else 0, 0, 0)
    return b"GIF89a" + screen + (bytes(3) + b"\xff" * 3 if colors else b"") + b"".join(blocks) + b";"


def sub_blocks(data: bytes) -> bytes:
    parts = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def frame(width: int, height: int, codes: bytes, left: int = 0, top: int = 0) -> bytes:
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\2" + sub_blocks(codes)


@cache
def lzw_zeros(pixels: int) -> bytes:
    """LZW codes of zeros: each code stands for a pixel more than the one before, up to 4091."""
    clear, first_free, num_codes = 4, 6, 4096
    codes, width, bits, run, written = clear, 3, 6, 1, 1  # "clear", then the code of one zero
    for code in range(first_free, num_codes):
        if written >= pixels:
            break
        run += 1
        codes |= code << bits
        bits += width
        written += run
        if code + 1 == 1 << width and width < 12:
            width += 1
    # From here on the last code is repeated, twelve bits that are all ones.
    repeats = max(0, -(-(pixels - written) // run))
    codes |= ((1 << 12 * repeats) - 1) << bits
    bits += 12 * repeats
    return codes.to_bytes(-(-bits // 8), "little")


def frames(count: int) -> bytes:
    return gif(16, 16, (DELAY + frame(16, 16, lzw_zeros(256))) * count)


def webp_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extended(width: int, height: int, flags: int = 2) -> bytes:
    """The header of an animation (flag 2) on a canvas."""
    return webp_chunk(b"VP8X", struct.pack("<I", flags) + _u24(width - 1) + _u24(height - 1))


def _u24(value: int) -> bytes:
    return struct.pack("<I", value)[:3]


@cache
def lossless() -> bytes:
    """The chunk of an image of 16 x 16 pixels."""
    encoded = BytesIO()
    Image.new("RGB", (16, 16), "red").save(encoded, "WEBP", lossless=True)
    return encoded.getvalue()[12:]


def webp_frame(left: int = 0, top: int = 0) -> bytes:
    place = _u24(left // 2) + _u24(top // 2) + _u24(15) + _u24(15) + _u24(1) + b"\0"
    return webp_chunk(b"ANMF", place + lossless())


LOOP = webp_chunk(b"ANIM", bytes(6))

FILES = (
    HostileFile(
        "gif-lzw-bomb.gif", "memory", "either", lambda: gif(9_999, 9_999, frame(9_999, 9_999, lzw_zeros(10**8)))
    ),
    HostileFile("gif-huge-screen.gif", "memory", "error", lambda: gif(65_535, 65_535, frame(1, 1, lzw_zeros(1)))),
    HostileFile(
        "gif-frame-outside.gif", "memory", "either", lambda: gif(9, 9, frame(9, 9, lzw_zeros(81), 9_000, 9_000))
    ),
    HostileFile("gif-zero-frames.gif", "parser", "error", lambda: gif(16, 16)),
    HostileFile("gif-zero-size.gif", "parser", "error", lambda: gif(0, 0, frame(0, 0, lzw_zeros(1)))),
    HostileFile("gif-truncated.gif", "parser", "either", lambda: gif(64, 64, frame(64, 64, lzw_zeros(4096)))[:60]),
    HostileFile(
        "gif-comments.gif",
        "time",
        "either",
        lambda: gif(16, 16, b"!\xfe" + sub_blocks(bytes(2 * 10**7)), frames(1)[19:-1]),
    ),
    HostileFile(
        "gif-million-extensions.gif", "time", "either", lambda: gif(16, 16, b"!\xfe\1x\0" * 10**6, frames(1)[19:-1])
    ),
    HostileFile("gif-many-frames.gif", "time", "either", lambda: frames(200_000)),
    HostileFile("gif-video-many-frames.gif", "time", "either", lambda: frames(200_000), as_video=True),
    HostileFile(
        "gif-video-bomb.gif",
        "memory",
        "either",
        lambda: gif(9_999, 9_999, (DELAY + frame(9_999, 9_999, lzw_zeros(10**8))) * 8),
        as_video=True,
    ),
    HostileFile("webp-riff-size.webp", "parser", "error", lambda: b"RIFF\xff\xff\xff\xffWEBP" + lossless()[:20]),
    HostileFile("webp-truncated.webp", "parser", "error", lambda: webp(lossless())[:-8]),
    HostileFile("webp-chunk-size.webp", "parser", "error", lambda: webp(b"VP8L\xff\xff\xff\x7f" + lossless()[8:])),
    HostileFile("webp-canvas.webp", "memory", "either", lambda: webp(extended(9_999, 9_999), LOOP, webp_frame())),
    HostileFile(
        "webp-canvas-limit.webp", "memory", "error", lambda: webp(extended(65_535, 65_535), LOOP, webp_frame())
    ),
    HostileFile(
        "webp-many-frames.webp", "time", "either", lambda: webp(extended(16, 16), LOOP, webp_frame() * 100_000)
    ),
    HostileFile(
        "webp-frame-outside.webp", "crash", "error", lambda: webp(extended(16, 16), LOOP, webp_frame(5_000, 5_000))
    ),
    HostileFile("webp-no-frames.webp", "parser", "error", lambda: webp(extended(16, 16), LOOP)),
    HostileFile(
        "webp-profile.webp",
        "memory",
        "either",
        lambda: webp(extended(16, 16, 32), webp_chunk(b"ICCP", bytes(10**7)), lossless()),
    ),
)
