"""The HTTP protocol of uvicorn with a limit on the size of headers, which its fast parser does not have.

httptools appends each part of a header that arrives to what it has of it. One header of many megabytes, which anybody
can send without a key, would stop the event loop for seconds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from qwen3vl_server.errors import RequestError, error_response

MAX_HEAD_BYTES = 64 * 2**10
"""Size that the request line and the headers of a request, or the trailers behind its body, may have. A head that is
complete in one read of the connection, which has at most 256 KiB, is not refused."""

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def http_protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    """Return what `uvicorn.Config` takes as `http`: a protocol that refuses heads above `MAX_HEAD_BYTES`.

    Returns:
        uvicorn's protocol for httptools with that limit. Without httptools, as on PyPy, the name of the one for h11,
        which has a limit of its own.
    """
    try:
        import httptools  # noqa: F401
    except ImportError:
        return "h11"
    return _limited_protocol()


def _limited_protocol() -> type[HttpToolsProtocol]:
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

    class LimitedHttpToolsProtocol(HttpToolsProtocol):
        """Closes connections whose heads are too large."""

        _num_head_bytes = 0
        _has_progressed = False

        def data_received(self, data: bytes) -> None:
            self._has_progressed = False
            super().data_received(data)
            # What arrives with the end of a head or with a part of a body is not counted: a head may begin behind it,
            # but what is read at once is short.
            self._num_head_bytes = 0 if self._has_progressed else self._num_head_bytes + len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse()

        def on_headers_complete(self) -> None:
            self._has_progressed = True
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._has_progressed = True
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._has_progressed = True
            super().on_message_complete()

        def _refuse(self) -> None:
            if self.cycle is None or self.cycle.response_complete:  # else it would be within another answer
                error = RequestError(
                    431,
                    f"the request line and the headers have more than {MAX_HEAD_BYTES} bytes; send inputs in the body",
                    code="headers_too_large",
                )
                response = error_response(error)
                lines = [b"%b: %b\r\n" % header for header in (*response.raw_headers, (b"connection", b"close"))]
                self.transport.write(b"".join((STATUS_LINE[431], *lines, b"\r\n", response.body)))
            self.transport.close()

    return LimitedHttpToolsProtocol
