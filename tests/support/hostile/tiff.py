"""Hostile TIFF files."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.hostile.file import MIB, HostileFile, deflate_zeros

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES, ROWS, STRIP_SIZES = (
    256,
    257,
    258,
    259,
    262,
    273,
    277,
    278,
    279,
)
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES, EXTRA = 322, 323, 324, 325, 338
SHORT, LONG = 3, 4
DEFLATE = 8


@dataclass(frozen=True, slots=True)
class Tag:
    """Values of a tag, or a count and an offset that need not be true."""

    values: tuple[int, ...] = ()
    kind: int = LONG
    count: int = 0
    offset: int = 0


def tiff(tags: Mapping[int, Tag], data: bytes = b"", *, next_directory: int = 0) -> bytes:
    """A little-endian TIFF: the header, `data` at offset 8, then one directory."""
    directory = 8 + len(data)
    values_at = directory + 2 + 12 * len(tags) + 4
    entries, values = [], b""
    for number, tag in sorted(tags.items()):
        if not tag.values:
            entries.append(struct.pack("<HHII", number, tag.kind, tag.count, tag.offset))
            continue
        packed = struct.pack(f"<{len(tag.values)}{'H' if tag.kind == SHORT else 'I'}", *tag.values)
        if len(packed) <= 4:
            entries.append(struct.pack("<HHI", number, tag.kind, len(tag.values)) + packed.ljust(4, b"\0"))
        else:
            entries.append(struct.pack("<HHII", number, tag.kind, len(tag.values), values_at + len(values)))
            values += packed
    head = b"II*\0" + struct.pack("<I", directory) + data
    return head + struct.pack("<H", len(tags)) + b"".join(entries) + struct.pack("<I", next_directory) + values


def gray(width: int, height: int, **changes: Tag) -> dict[int, Tag]:
    """The tags of an uncompressed gray image whose only strip is at offset 8, with changes as `t258=Tag(…)`."""
    tags = {
        WIDTH: Tag((width,)),
        HEIGHT: Tag((height,)),
        BITS: Tag((8,), SHORT),
        COMPRESSION: Tag((1,), SHORT),
        PHOTOMETRIC: Tag((1,), SHORT),
        STRIPS: Tag((8,)),
        SAMPLES: Tag((1,), SHORT),
        ROWS: Tag((height,)),
        STRIP_SIZES: Tag((width * height,)),
    }
    return tags | {int(name[1:]): tag for name, tag in changes.items()}


def tiles(width: int, height: int, side: int) -> bytes:
    """Tiles of `side` x `side` pixels that are all the same bytes of the file."""
    count = -(-width // side) * -(-height // side)
    tags = gray(width, height)
    for tag in (STRIPS, ROWS, STRIP_SIZES):
        del tags[tag]
    tags |= {TILE_WIDTH: Tag((side,)), TILE_HEIGHT: Tag((side,))}
    tags |= {TILES: Tag((8,) * count), TILE_SIZES: Tag((side * side,) * count)}
    return tiff(tags, bytes(side * side))


def strips(width: int, height: int) -> bytes:
    """A strip for each row, all of them the same bytes of the file."""
    tags = gray(width, height, t278=Tag((1,)), t273=Tag((8,) * height), t279=Tag((width,) * height))
    return tiff(tags, bytes(width))


def deflate_bomb(side: int) -> bytes:
    data = deflate_zeros(side * side * 4)
    tags = gray(side, side, t258=Tag((8, 8, 8, 8), SHORT), t259=Tag((DEFLATE,), SHORT), t262=Tag((2,), SHORT))
    tags |= {SAMPLES: Tag((4,), SHORT), EXTRA: Tag((2,), SHORT), STRIP_SIZES: Tag((len(data),))}
    return tiff(tags, data)


def overlapping_tags(count: int, size: int) -> bytes:
    """Tags that each claim the same bytes of the file as their value."""
    claims = {40_000 + number: Tag(kind=1, count=size, offset=8) for number in range(count)}
    return tiff(gray(8, 8) | claims, bytes(size))


def directory_loop() -> bytes:
    """A directory that names itself as the next one."""
    return tiff(gray(8, 8), bytes(64), next_directory=72)


FILES = (
    HostileFile("tiff-directory-loop.tif", "time", "either", directory_loop),
    HostileFile("tiff-header-60000.tif", "memory", "error", lambda: tiff(gray(60_000, 60_000))),
    HostileFile("tiff-many-tiles.tif", "time", "either", lambda: tiles(1_200, 1_000, 1)),
    HostileFile("tiff-many-strips.tif", "time", "either", lambda: strips(6_000, 16_000)),
    HostileFile("tiff-million-strips.tif", "time", "error", lambda: strips(90, 1_000_000)),
    HostileFile(
        "tiff-strip-count.tif",
        "memory",
        "error",
        lambda: tiff(gray(8, 8, t273=Tag(count=0x3FFFFFFF, offset=8)), bytes(64)),
    ),
    HostileFile(
        "tiff-tile-count.tif",
        "memory",
        "either",
        lambda: tiff(gray(8, 8, t322=Tag((1,)), t323=Tag((1,)), t324=Tag(count=0xFFFFFFFF, offset=8)), bytes(64)),
    ),
    HostileFile(
        "tiff-tile-zero.tif", "crash", "either", lambda: tiff(gray(8, 8, t322=Tag((0,)), t324=Tag((8,))), bytes(64))
    ),
    HostileFile("tiff-deflate-bomb.tif", "memory", "either", lambda: deflate_bomb(9_999)),
    HostileFile("tiff-overlapping-tags.tif", "memory", "either", lambda: overlapping_tags(4_000, MIB)),
    HostileFile(
        "tiff-overlapping-rationals.tif",
        "time",
        "either",
        lambda: tiff(gray(8, 8, t282=Tag(kind=5, count=MIB, offset=8)), bytes(8 * MIB)),
    ),
    HostileFile("tiff-odd-depth.tif", "parser", "error", lambda: tiff(gray(8, 8, t258=Tag((7,), SHORT)), bytes(64))),
    HostileFile("tiff-samples.tif", "memory", "error", lambda: tiff(gray(8, 8, t277=Tag((65_535,), SHORT)), bytes(64))),
    HostileFile("tiff-zero-rows.tif", "crash", "either", lambda: tiff(gray(8, 8, t278=Tag((0,))), bytes(64))),
    HostileFile("tiff-zero-size.tif", "parser", "error", lambda: tiff(gray(0, 0), bytes(64))),
    HostileFile("tiff-truncated.tif", "parser", "error", lambda: tiff(gray(800, 800), bytes(640))),
    HostileFile("tiff-big-offset.tif", "parser", "error", lambda: b"II+\0\x08\0\0\0" + b"\xff" * 8),
    HostileFile("tiff-no-tags.tif", "parser", "error", lambda: tiff({})),
)
