"""The lifetime of a request: its body is read within limits, and its work ends when the client leaves or time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen3vl.wire import TIMED_OUT
from qwen3vl_server.asgi import header
from qwen3vl_server.errors import RequestError
from qwen3vl_server.quotas import Lease, Quota


class RequestLifetime:
    """ASGI middleware that reads the body, runs the application, and cancels it if the client disconnects.

    Cancelling the application cancels its calls of `aembed` and `ascore`, and the engine drops their requests.

    Args:
        app: The application.
        max_body_bytes: Maximum size of a body in bytes.
        waiting_bytes: Counts the bodies of all requests that are being answered.
        timeout_s: Maximum duration of a request in seconds.
        is_streamed: Whether the application reads a request's body itself as it arrives, within its own limits.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        waiting_bytes: Quota,
        timeout_s: float,
        is_streamed: Callable[[Scope], bool] = lambda _: False,
    ) -> None:
        self._app = app
        self._is_streamed = is_streamed
        self._max_body_bytes = max_body_bytes
        self._waiting_bytes = waiting_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 (as ASGI has it)
        if scope["type"] != "http" or self._is_streamed(scope):
            await self._app(scope, receive, send)
            return
        body: bytes | None = None
        try:
            with self._waiting_bytes.lease() as lease:
                async with asyncio.timeout(self._timeout_s) as deadline:
                    body = await self._read_body(scope, receive, lease)
                    if body is not None:
                        await self._run(scope, body, receive, send)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            # Many clients repeat what gets a status from 500, or 408, and the server would compute it all again.
            status, subject = (408, "the upload of the body") if body is None else (422, "the answer")
            raise RequestError(
                status, f"{subject} took longer than {self._timeout_s:g} s; send smaller requests", code=TIMED_OUT
            ) from error

    async def _read_body(self, scope: Scope, receive: Receive, lease: Lease) -> bytes | None:
        """Return the body; None if the client has left."""
        announced = header(scope, b"content-length") or ""
        if announced.isdecimal():
            self._check_size(int(announced))
        chunks: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            self._check_size(lease.held + len(chunk))
            lease.add(len(chunk))
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise RequestError(
                413,
                f"the body has {size} bytes or more, and at most {self._max_body_bytes} are accepted; send fewer or "
                "smaller inputs in one request",
                code="body_too_large",
            )

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        disconnected = asyncio.create_task(_wait_for_disconnect(receive))
        unread = [body]

        async def receive_body() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await asyncio.shield(disconnected)
            return {"type": "http.disconnect"}

        answer = asyncio.create_task(self._answer(scope, receive_body, send))
        try:
            await asyncio.wait((answer, disconnected), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                await answer
        finally:
            for task in (answer, disconnected):
                if not task.done():  # awaiting it again would overwrite the traceback of its error
                    task.cancel()
                    with suppress(asyncio.CancelledError, Exception):  # nobody waits for it any more
                        await task

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
