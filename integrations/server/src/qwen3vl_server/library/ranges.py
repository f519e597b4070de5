"""Responses with a file's bytes or a part of them, so that videos play from any second (RFC 9110, section 14)."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from starlette.responses import StreamingResponse

from qwen3vl_server.errors import RequestError

MAX_PART_BYTES = 4 * 2**20
"""Maximum size of a part. A browser that asks for the rest of a video gets so much, and asks again when it has played
it: no answer takes long, and a paused video holds no connection."""
_BLOCK_BYTES = 256 * 2**10
_RANGE = re.compile(r"bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})", re.ASCII)


class PartialResponse(StreamingResponse):
    """A response with a file, or with the part of it that the request asks for.

    Args:
        content: An absolute path without symbolic links, or bytes.
        media_type: What the content is.
        range_header: The request's `Range`. Several ranges in one request, and other units, are answered with the
            whole, as the RFC allows.
        headers: Further headers.
        headers_only: Whether the content is not needed. The headers have its size nevertheless.

    Raises:
        RequestError: The range begins after the end of the file: status 416.
        OSError: The file cannot be read, or is a link or no regular file.
    """

    def __init__(
        self,
        content: Path | bytes,
        media_type: str,
        range_header: str | None,
        headers: Mapping[str, str],
        *,
        headers_only: bool = False,
    ) -> None:
        file = BytesIO(content) if isinstance(content, bytes) else _open(content)
        try:
            size = file.seek(0, os.SEEK_END)
            part = parse_range(range_header, size)
            start, stop = part or (0, size)
            file.seek(start)
        except BaseException:
            file.close()
            raise
        own = {"accept-ranges": "bytes", "content-length": str(stop - start)}
        if part is not None:
            own["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        status = 200 if part is None else 206
        num_bytes = 0 if headers_only else stop - start
        super().__init__(_blocks(file, num_bytes), status, {**headers, **own}, media_type)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the part of a file that a request asks for.

    Args:
        header: The request's `Range`; None if it has none.
        size: Size of the file in bytes.

    Returns:
        Start and end (exclusive), at most `MAX_PART_BYTES` apart; None for the whole file.

    Raises:
        RequestError: There is no such part: status 416.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or not (match["first"] or match["last"]):
        return None
    if match["first"]:
        start, stop = int(match["first"]), int(match["last"]) + 1 if match["last"] else size
    else:
        start, stop = max(0, size - int(match["last"])), size
    stop = min(stop, size, start + MAX_PART_BYTES)
    if start >= stop:
        raise RequestError(416, f"the file has {size} bytes, and the range {header} is none of it")
    return start, stop


def _open(path: Path) -> BinaryIO:
    """Open a regular file; not a link, which may have replaced it since the policy has checked the path."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


async def _blocks(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    with file:
        while size > 0 and (block := await asyncio.to_thread(file.read, min(size, _BLOCK_BYTES))):
            size -= len(block)
            yield block
