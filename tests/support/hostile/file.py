"""What a hostile file is, and the parts that several formats share."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Attack = Literal["time", "memory", "crash", "parser"]
Expected = Literal["error", "result", "either"]

MIB = 2**20
_MAX_ADLER = 65521


@dataclass(frozen=True, slots=True)
class HostileFile:
    """A file that attacks whoever reads it.

    Attributes:
        name: The file's name; the suffix decides which loader reads it.
        attacks: What the file is after: time, memory, a crash, or a parser that it confuses.
        expected: What comes of it under a policy with limits. `"either"` is for files of which some versions of the
            decoders, or some limits, yield pixels and others an error.
        build: Returns the content.
        as_video: Whether it is embedded as a video.
    """

    name: str
    attacks: Attack
    expected: Expected
    build: Callable[[], bytes]
    as_video: bool = False

    def write(self, folder: Path) -> Path:
        """Write the file into a folder."""
        path = folder / self.name
        path.write_bytes(self.build())
        return path

    def item(self, folder: Path) -> dict[str, Any]:
        """Return the input for an embedder; the first page for a PDF."""
        path = str(folder / self.name)
        if self.as_video:
            return {"video": path}
        return {"image": f"{path}#page=1" if path.endswith(".pdf") else path}


def deflate_repeated(block: bytes, times: int, *, head: bytes = b"", tail: bytes = b"") -> bytes:
    """Return a zlib stream of `head + block * times + tail` without compressing the block more than once.

    The block's compressed form refers to nothing before it, so it can be repeated.
    """
    stream = zlib.compressobj(9)
    data = stream.compress(head) + stream.flush(zlib.Z_FULL_FLUSH)
    data += (stream.compress(block) + stream.flush(zlib.Z_FULL_FLUSH)) * times
    checksum = zlib.adler32(head)
    block_sum, block_weighted = zlib.adler32(block, 0) & 0xFFFF, zlib.adler32(block, 0) >> 16
    low, high = checksum & 0xFFFF, checksum >> 16
    for _ in range(times):
        high = (high + len(block) * low + block_weighted) % _MAX_ADLER
        low = (low + block_sum) % _MAX_ADLER
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    data += raw.compress(tail) + raw.flush()
    return data + struct.pack(">I", zlib.adler32(tail, high << 16 | low))


def deflate_zeros(size: int) -> bytes:
    """Return a zlib stream of at least `size` zero bytes: about a thousandth of them."""
    return deflate_repeated(bytes(MIB), -(-size // MIB))
