"""Hostile Matroska, AVI, FLV, Ogg and MPEG files."""

from __future__ import annotations

import struct
from io import BytesIO
from random import Random

import av
import numpy as np

from tests.support.hostile.file import HostileFile, deflate_zeros
from tests.support.hostile.png import png

UNKNOWN = b"\x01" + b"\xff" * 7
"""An unknown size: the element ends where one begins that cannot be inside it."""


def element(kind: bytes, *parts: bytes, size: bytes | None = None) -> bytes:
    data = b"".join(parts)
    return kind + ((1 << 56 | len(data)).to_bytes(8, "big") if size is None else size) + data


def number(kind: bytes, value: int) -> bytes:
    return element(kind, value.to_bytes(4, "big"))


EBML = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska"))
SEGMENT, CLUSTER, TRACKS, TAGS = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\x12\x54\xc3\x67"
TAG, SIMPLE_TAG, SIMPLE_BLOCK, TIMESTAMP = b"\x73\x73", b"\x67\xc8", b"\xa3", b"\xe7"


def track(width: int = 32, height: int = 32, *further: bytes) -> bytes:
    """A video track of PNG frames."""
    size = element(b"\xe0", number(b"\xb0", width), number(b"\xba", height))
    codec = element(b"\x86", b"V_MS/VFW/FOURCC")
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MPNG", 0, 0, 0, 0, 0)
    private = element(b"\x63\xa2", bitmap)
    duration = number(b"\x23\xe3\x83", 40_000_000)
    fields = (number(b"\xd7", 1), number(b"\x73\xc5", 1), number(b"\x83", 1), codec, private, duration, size)
    return element(TRACKS, element(b"\xae", *fields, *further))


def block(time: int, data: bytes, flags: int = 0x80) -> bytes:
    return element(SIMPLE_BLOCK, b"\x81" + struct.pack(">hB", time, flags), data)


def mkv(*parts: bytes, head: bytes = b"", size: bytes | None = None) -> bytes:
    return EBML + element(SEGMENT, head or track(), *parts, size=size)


def cluster(*blocks: bytes, time: int = 0) -> bytes:
    return element(CLUSTER, number(TIMESTAMP, time), *blocks)


def frames(count: int) -> bytes:
    return b"".join(block(40 * index, png(32, 32, 32)) for index in range(count))


def unknown_sizes() -> bytes:
    """Thousands of clusters within clusters, none of which has an end."""
    return mkv((CLUSTER + UNKNOWN) * 100_000, frames(4), size=UNKNOWN)


def nested_tags(depth: int) -> bytes:
    """Tags within tags, each of unknown size."""
    return mkv(element(TAGS, element(TAG, (SIMPLE_TAG + UNKNOWN) * depth), size=UNKNOWN), cluster(frames(4)))


def laced(blocks: int) -> bytes:
    """Each block has 256 frames of no bytes."""
    return mkv(cluster(block(0, b"\xff" + bytes(256), 0x84) * blocks))


def compressed_frames(count: int, size: int) -> bytes:
    """Frames that the container itself has deflated."""
    compression = element(b"\x50\x34", number(b"\x42\x54", 0))
    encodings = element(b"\x6d\x80", element(b"\x62\x40", number(b"\x50\x31", 0), number(b"\x50\x33", 0), compression))
    data = deflate_zeros(size)
    blocks = b"".join(block(40 * index, data) for index in range(count))
    return mkv(cluster(blocks), head=track(32, 32, encodings))


def riff(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def avi(*streams: bytes, movie: bytes = b"", index: bytes = b"", frames: int = 8, rate: int = 40_000) -> bytes:
    head = riff(b"avih", struct.pack("<14I", rate, 0, 0, 0x10, frames, 0, len(streams), 0, 32, 32, 0, 0, 0, 0))
    body = b"AVI " + riff(b"LIST", b"hdrl", head, *streams) + riff(b"LIST", b"movi", movie) + index
    return b"RIFF" + struct.pack("<I", len(body)) + body


def avi_stream(width: int = 32, height: int = 32, *further: bytes, scale: int = 1, rate: int = 25) -> bytes:
    head = struct.pack("<4s4sIHHIIIIIIIIHHHH", b"vids", b"MPNG", 0, 0, 0, 0, scale, rate, 0, 8, 0, 0, 0, 0, 0, 32, 32)
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MPNG", 0, 0, 0, 0, 0)
    return riff(b"LIST", b"strl", riff(b"strh", head), riff(b"strf", bitmap), *further)


AVI_FRAMES = riff(b"00dc", png(32, 32, 32)) * 8


def index_loop() -> bytes:
    """An index of indexes that refers to itself."""
    row = struct.pack("<QII", 12 + 20 + 64, 96, 8)
    index = riff(b"indx", struct.pack("<HBBI4s12x", 4, 0, 0, 2_000, b"00dc"), row * 2_000)
    return avi(avi_stream(32, 32, index), movie=AVI_FRAMES)


def false_index(rows: int) -> bytes:
    """An index of many frames that all are the same bytes."""
    return avi(avi_stream(), movie=AVI_FRAMES, index=riff(b"idx1", struct.pack("<4sIII", b"00dc", 16, 4, 90) * rows))


def flv() -> bytes:
    """Tags of no bytes, with times that jump back and forth."""
    random = Random(0)
    body = b""
    for _ in range(10_000):
        body += b"\x09\0\0\5" + random.randbytes(4) + b"\0\0\0" + b"\x12\1\0\0\0" + struct.pack(">I", 16)
    return b"FLV\1\1\0\0\0\x09\0\0\0\0" + body


def ogg_pages(count: int) -> bytes:
    """Pages that each begin a stream of their own."""
    pages = (b"OggS\0\2" + bytes(8) + struct.pack("<III", index, 0, 0) + b"\1\1x" for index in range(count))
    return b"".join(pages)


def transport_stream(programs: int) -> bytes:
    """Packets of thousands of streams, none of which is complete."""
    random = Random(0)
    packets = (
        b"\x47" + struct.pack(">HB", 0x4000 | index % 0x1FFF, 0x10) + b"\0\0\1\xe0\0\0\x80\0\0" + random.randbytes(175)
        for index in range(programs)
    )
    return b"".join(packets)


def changed_sizes() -> bytes:
    """Two valid videos of different sizes, one after the other."""
    parts = []
    for side in (64, 128):
        file = BytesIO()
        with av.open(file, "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", 25, options={"g": "1"})
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for _ in range(6):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8))))
            container.mux(stream.encode())
        parts.append(file.getvalue())
    return b"".join(parts)


FILES = (
    HostileFile("mkv-unknown-sizes.mkv", "crash", "either", unknown_sizes, as_video=True),
    HostileFile("mkv-nested-tags.mkv", "crash", "either", lambda: nested_tags(100_000), as_video=True),
    HostileFile("mkv-laced.mkv", "memory", "either", lambda: laced(20_000), as_video=True),
    HostileFile(
        "mkv-compressed-frames.mkv", "memory", "error", lambda: compressed_frames(16, 9 * 2**20), as_video=True
    ),
    HostileFile(
        "mkv-claimed-size.mkv",
        "memory",
        "either",
        lambda: mkv(cluster(frames(4)), head=track(2**30, 2**30)),
        as_video=True,
    ),
    HostileFile(
        "mkv-no-tracks.mkv", "parser", "error", lambda: mkv(cluster(frames(4)), head=element(TRACKS)), as_video=True
    ),
    HostileFile(
        "mkv-element-size.mkv",
        "memory",
        "either",
        lambda: mkv(CLUSTER + b"\x01\x7f" + b"\xff" * 6, frames(4)),
        as_video=True,
    ),
    HostileFile("mkv-many-clusters.mkv", "time", "either", lambda: mkv(cluster() * 300_000), as_video=True),
    HostileFile(
        "mkv-many-tracks.mkv", "time", "either", lambda: mkv(track() * 50_000, cluster(frames(4))), as_video=True
    ),
    HostileFile("webm-truncated.webm", "parser", "either", lambda: mkv(cluster(frames(8)))[:-300], as_video=True),
    HostileFile("avi-index-loop.avi", "time", "either", index_loop, as_video=True),
    HostileFile("avi-false-index.avi", "time", "either", lambda: false_index(500_000), as_video=True),
    HostileFile(
        "avi-zero-rate.avi", "crash", "either", lambda: avi(avi_stream(rate=0), movie=AVI_FRAMES, rate=0), as_video=True
    ),
    HostileFile(
        "avi-claimed-size.avi",
        "memory",
        "result",  # the decoder reads the size of the frames, 32 x 32, from these
        lambda: avi(avi_stream(2**30, -(2**30)), movie=AVI_FRAMES),
        as_video=True,
    ),
    HostileFile(
        "avi-many-streams.avi", "time", "either", lambda: avi(*[avi_stream()] * 20_000, movie=AVI_FRAMES), as_video=True
    ),
    HostileFile(
        "avi-chunk-size.avi",
        "memory",
        "either",
        lambda: avi(avi_stream(), movie=b"00dc\xff\xff\xff\x7f" + bytes(64)),
        as_video=True,
    ),
    HostileFile("flv-times.mp4", "parser", "error", flv, as_video=True),
    HostileFile("ogg-many-streams.mp4", "time", "error", lambda: ogg_pages(50_000), as_video=True),
    HostileFile("ts-many-streams.mpg", "time", "error", lambda: transport_stream(20_000), as_video=True),
    HostileFile("ts-changed-sizes.mpg", "parser", "either", changed_sizes, as_video=True),
)
