"""Writes MP4 files box by box, and hostile ones whose tables are false."""

from __future__ import annotations

import struct
import zlib
from functools import cache

from tests.support.hostile.file import MIB, HostileFile, deflate_zeros
from tests.support.hostile.other_images import nested_boxes
from tests.support.hostile.png import GRAY, bomb, png

MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


FILE_TYPE = box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")


def times(*runs: tuple[int, int]) -> bytes:
    """The duration of frames, as runs of (count, duration)."""
    return full_box(b"stts", struct.pack(">I", len(runs)), b"".join(struct.pack(">II", *run) for run in runs))


def sizes(count: int, size: int) -> bytes:
    return full_box(b"stsz", struct.pack(">II", size, count))


def chunks(samples: int) -> bytes:
    """All frames are in one chunk."""
    return full_box(b"stsc", struct.pack(">IIII", 1, 1, samples, 1))


def offsets(*values: int) -> bytes:
    return full_box(b"stco", struct.pack(">I", len(values)), struct.pack(f">{len(values)}I", *values))


def entry(width: int, height: int, codec: bytes = b"png ") -> bytes:
    """The description of frames that are images of their own."""
    head = struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 0x480000, 0x480000, 0, 1, 24, -1)
    return full_box(b"stsd", struct.pack(">I", 1), box(codec, head))


def track(*tables: bytes, scale: int = 25, duration: int = 25, edits: bytes = b"") -> bytes:
    head = full_box(b"tkhd", struct.pack(">IIIII8xHHHH", 0, 0, 1, 0, duration, 0, 0, 0, 0), MATRIX, bytes(8), flags=3)
    media_head = full_box(b"mdhd", struct.pack(">IIIIHH", 0, 0, scale, duration, 0x55C4, 0))
    handler = full_box(b"hdlr", struct.pack(">I4s12x", 0, b"vide"), b"\0")
    reference = box(b"dinf", full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", flags=1)))
    info = box(b"minf", full_box(b"vmhd", bytes(8), flags=1), reference, box(b"stbl", *tables))
    return box(b"trak", head, edits, box(b"mdia", media_head, handler, info))


def movie_head(scale: int = 25, duration: int = 25) -> bytes:
    head = struct.pack(">IIIIIH10x", 0, 0, scale, duration, 0x10000, 0x100)
    return full_box(b"mvhd", head, MATRIX, bytes(24), struct.pack(">I", 2))


def mp4(*tracks: bytes, data: bytes = b"", head: bytes = b"") -> bytes:
    """A file whose media data begin at `DATA_AT`."""
    return FILE_TYPE + box(b"mdat", data) + box(b"moov", head or movie_head(), *tracks)


DATA_AT = len(FILE_TYPE) + 8


@cache
def frame() -> bytes:
    return png(32, 32, 32)


def tables(count: int, *, width: int = 32, height: int = 32, claimed: int | None = None) -> list[bytes]:
    """The tables of `count` frames that follow each other in the data."""
    claimed = count if claimed is None else claimed
    size = len(frame())
    return [entry(width, height), times((claimed, 1)), sizes(claimed, size), chunks(claimed), offsets(DATA_AT)]


def video(count: int = 8, *, head: bytes = b"", scale: int = 25, edits: bytes = b"", **changes: bytes) -> bytes:
    """A valid video of `count` equal frames, with changes of its tables as `stts=…`."""
    valid = {part[4:8]: part for part in tables(count)}
    parts = valid | {name.encode(): table for name, table in changes.items()}
    return mp4(track(*parts.values(), scale=scale, edits=edits), data=frame() * count, head=head)


def many_frames(count: int, bytes_each: int) -> bytes:
    """Frames of the same size, with as many bytes as `bytes_each` says in the file."""
    parts = [entry(32, 32), times((count, 1)), sizes(count, max(1, bytes_each)), chunks(count), offsets(DATA_AT)]
    return mp4(track(*parts), data=bytes(count * bytes_each) or bytes(900))


def edit_list(count: int) -> bytes:
    entries = struct.pack(">IiI", 1, 0, 0x10000) * count
    return box(b"edts", full_box(b"elst", struct.pack(">I", count), entries))


def changed_sizes() -> bytes:
    """Frames that are larger than the first, and than the policy of most."""
    small, large = frame(), bomb(9_000, 9_000, depth=1, color=GRAY)()
    table = full_box(b"stsz", struct.pack(">II", 0, 4), struct.pack(">4I", *[len(small)] * 2, *[len(large)] * 2))
    parts = [entry(32, 32), times((4, 1)), table, chunks(4), offsets(DATA_AT)]
    return mp4(track(*parts), data=small * 2 + large * 2)


def large_frames(side: int, count: int) -> bytes:
    """Frames near the limit of the policy, each of kilobytes."""
    large = bomb(side, side, depth=1, color=GRAY)()
    parts = [entry(side, side), times((count, 1)), sizes(count, len(large)), chunks(count), offsets(DATA_AT)]
    return mp4(track(*parts), data=large * count)


def fragments(samples: int, count: int) -> bytes:
    """Fragments whose runs have frames without a byte in the file to describe each."""
    empty = [entry(32, 32), times(), sizes(0, 0), full_box(b"stsc", bytes(4)), offsets()]
    defaults = box(b"mvex", full_box(b"trex", struct.pack(">IIIII", 1, 1, 1, 1, 0)))
    movie = box(b"moov", movie_head(), track(*empty), defaults)
    run = full_box(b"trun", struct.pack(">I", samples))
    part = box(b"moof", full_box(b"mfhd", struct.pack(">I", 1)), box(b"traf", full_box(b"tfhd", b"\0\0\0\1"), run))
    return FILE_TYPE + movie + (part + box(b"mdat", bytes(64))) * count


def compressed_movie(claimed: int) -> bytes:
    """A `moov` box that inflates to hundreds of megabytes."""
    data = deflate_zeros(claimed)
    inner = box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", struct.pack(">I", claimed), data))
    return FILE_TYPE + box(b"moov", inner)


def renamed(kind: bytes, other: bytes) -> bytes:
    return video().replace(kind, other, 1)


def sized(kind: bytes, size: bytes) -> bytes:
    """The valid video with another size of a box."""
    data = video()
    at = data.index(kind) - 4
    return data[:at] + size + data[at + 4 :]


def overflowing_box() -> bytes:
    data = video()
    at = data.index(b"moov") - 4
    return data[:at] + struct.pack(">I4sQ", 1, b"moov", 2**63 + 100) + data[at + 8 :]


def metadata(entries: int) -> bytes:
    item = box(b"\xa9cmt", box(b"data", struct.pack(">II", 1, 0), b"x" * 50))
    inner = full_box(
        b"meta", full_box(b"hdlr", struct.pack(">I4s12x", 0, b"mdir"), b"\0"), box(b"ilst", item * entries)
    )
    return mp4(track(*tables(8)), box(b"udta", inner), data=frame() * 8)


def big_table(kind: bytes, count: int, row: bytes, rows: int) -> bytes:
    """A table that claims more rows than it has."""
    return full_box(kind, struct.pack(">I", count), row * rows)


FILES = (
    HostileFile("mp4-renamed-stsd.mp4", "parser", "error", lambda: renamed(b"stsd", b"xtsd"), as_video=True),
    HostileFile("mp4-renamed-moov.mp4", "parser", "error", lambda: renamed(b"moov", b"xoov"), as_video=True),
    HostileFile("mp4-renamed-mdat.mp4", "parser", "either", lambda: renamed(b"mdat", b"xdat"), as_video=True),
    HostileFile("mp4-50-million-frames.mp4", "memory", "either", lambda: many_frames(50_000_000, 0), as_video=True),
    HostileFile("mp4-8-million-frames.mp4", "time", "either", lambda: many_frames(8_000_000, 1), as_video=True),
    HostileFile(
        "mp4-million-empty-frames.mp4", "time", "either", lambda: video(stsz=sizes(1_000_000, 0)), as_video=True
    ),
    HostileFile("mp4-zero-timescale.mp4", "crash", "either", lambda: video(scale=0, head=movie_head(0)), as_video=True),
    HostileFile("mp4-zero-durations.mp4", "crash", "either", lambda: video(stts=times((8, 0))), as_video=True),
    HostileFile(
        "mp4-negative-durations.mp4", "parser", "either", lambda: video(stts=times((8, 2**32 - 5))), as_video=True
    ),
    HostileFile("mp4-long-durations.mp4", "parser", "either", lambda: video(stts=times((8, 2**31 - 1))), as_video=True),
    HostileFile(
        "mp4-composition.mp4",
        "parser",
        "either",
        lambda: video(ctts=full_box(b"ctts", struct.pack(">III", 1, 2**31, 2**32 - 1), version=1)),
        as_video=True,
    ),
    HostileFile("mp4-many-edits.mp4", "time", "either", lambda: video(edits=edit_list(1_000_000)), as_video=True),
    HostileFile("mp4-box-size-0.mp4", "parser", "either", lambda: sized(b"stbl", bytes(4)), as_video=True),
    HostileFile("mp4-box-size-1.mp4", "parser", "either", lambda: sized(b"stbl", b"\0\0\0\1"), as_video=True),
    HostileFile("mp4-box-size-7.mp4", "parser", "either", lambda: sized(b"trak", b"\0\0\0\7"), as_video=True),
    HostileFile("mp4-box-overflow.mp4", "crash", "error", overflowing_box, as_video=True),
    HostileFile(
        "mp4-nested-boxes.mp4", "crash", "error", lambda: FILE_TYPE + nested_boxes(b"moov", 100_000), as_video=True
    ),
    HostileFile(
        "mp4-nested-tracks.mp4", "crash", "error", lambda: FILE_TYPE + nested_boxes(b"trak", 100_000), as_video=True
    ),
    HostileFile("mp4-changed-sizes.mp4", "memory", "either", changed_sizes, as_video=True),
    HostileFile("mp4-large-frames.mp4", "memory", "either", lambda: large_frames(9_000, 64), as_video=True),
    HostileFile("mp4-claimed-size.mp4", "memory", "either", lambda: video(stsd=entry(65_535, 65_535)), as_video=True),
    HostileFile("mp4-no-moov.mp4", "parser", "error", lambda: FILE_TYPE + box(b"mdat", bytes(9_999)), as_video=True),
    HostileFile(
        "mp4-many-tracks.mp4",
        "time",
        "either",
        lambda: mp4(track() * 50_000, track(*tables(8)), data=frame() * 8),
        as_video=True,
    ),
    HostileFile("mp4-fragments.mp4", "memory", "either", lambda: fragments(10_000_000, 9), as_video=True),
    HostileFile("mp4-many-fragments.mp4", "time", "either", lambda: fragments(1, 100_000), as_video=True),
    HostileFile("mp4-compressed-moov.mp4", "memory", "error", lambda: compressed_movie(700 * MIB), as_video=True),
    HostileFile(
        "mp4-chunk-count.mp4",
        "memory",
        "either",
        lambda: video(stco=big_table(b"stco", 2**30, bytes(4), 9)),
        as_video=True,
    ),
    HostileFile(
        "mp4-time-runs.mp4",
        "time",
        "either",
        lambda: video(stts=big_table(b"stts", 10**6, b"\0\0\0\0\0\0\0\1", 10**6)),
        as_video=True,
    ),
    HostileFile("mp4-metadata.mp4", "time", "either", lambda: metadata(100_000), as_video=True),
    HostileFile("mp4-truncated.mp4", "parser", "error", lambda: video()[:-200], as_video=True),
    HostileFile(
        "mp4-broken-frames.mp4",
        "parser",
        "error",
        lambda: mp4(track(*tables(8)), data=zlib.compress(b"x" * 99) * 99),
        as_video=True,
    ),
)
