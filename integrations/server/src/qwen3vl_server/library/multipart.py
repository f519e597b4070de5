"""Reads multipart/form-data (RFC 7578) as it arrives: a file is never in memory as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from qwen3vl_server.errors import RequestError

if TYPE_CHECKING:  # it exists for type checkers only
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 1000
"""Maximum number of parts of a body."""
MEDIA_TYPE = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a part; its content follows.

    Attributes:
        name: Name of the form's field.
        filename: The file's name as the client sent it; None for a field that is no file.
    """

    name: str
    filename: str | None


async def read_parts(chunks: AsyncIterator[bytes], content_type: str) -> AsyncIterator[Part | bytes]:
    """Split a body into its parts.

    Args:
        chunks: The body.
        content_type: The request's `Content-Type`.

    Yields:
        For each part its beginning, then its content, in pieces that are not empty.

    Raises:
        RequestError: The body is malformed or cut off (status 400), or has too many parts (422).
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise RequestError(400, "the Content-Type has no boundary; let your HTTP client write it")
    events = _Events()
    try:
        parser = MultipartParser(boundary, events.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
            for event in events.take():
                yield event
    except FormParserError as error:
        raise RequestError(400, f"the body is no multipart/form-data: {error}") from error
    if not events.ended:
        raise RequestError(400, "the multipart/form-data body is cut off: its closing boundary is missing")


class _Events:
    """Collects what the parser calls back with."""

    def __init__(self) -> None:
        self.ended = False
        self._events: list[Part | bytes] = []
        self._num_parts = 0
        self._name = self._value = b""
        self._disposition = b""

    def callbacks(self) -> MultipartCallbacks:
        """Return the functions for `MultipartParser`."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_to_name,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
            "on_end": self._end,
        }

    def take(self) -> list[Part | bytes]:
        """Return what came since the last call."""
        events, self._events = self._events, []
        return events

    def _begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise RequestError(422, f"the body has more than {MAX_PARTS} parts; send several requests")
        self._disposition = b""

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _end_headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        try:
            name = options[b"name"].decode()
            filename = options[b"filename"].decode() if b"filename" in options else None
        except (KeyError, UnicodeDecodeError) as error:
            raise RequestError(400, "a part of the body has no name, or one that is no UTF-8") from error
        if kind != b"form-data":
            raise RequestError(400, "a part of the body lacks `Content-Disposition: form-data`")
        self._events.append(Part(name, filename))

    def _end(self) -> None:
        self.ended = True
