"""What is known of each request: its id, its line in the log, its part of the metrics, and an answer if it fails."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from time import perf_counter
from urllib.parse import quote
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen3vl_server.asgi import header, local_path
from qwen3vl_server.errors import RequestError, error_response

log = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""Status in log and metrics of a request whose client left before the answer, as nginx has it."""
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class Observability:
    """The outermost ASGI middleware. Errors of all others become answers here.

    Args:
        app: The application.
        observe: Called at the end of each request with the path of its route, status and duration in seconds.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[str, int, float], None]) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 (as ASGI has it)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = header(scope, b"x-request-id") or ""
        request_id = sent_id if _REQUEST_ID.fullmatch(sent_id) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started_s = perf_counter()
        status = CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if not isinstance(error, RequestError):
                log.exception("request_id=%s failed", request_id)
                error = RequestError(500, f"the server failed; its log says why, under request id {request_id}")
            if status != CLIENT_LEFT:  # half of the answer is sent; closing the connection tells the client
                raise
            await error_response(error)(scope, receive, send_with_id)
        finally:
            seconds = perf_counter() - started_s
            # A route with parameters is one path.
            self._observe(getattr(scope.get("route"), "path", local_path(scope)), status, seconds)
            path = quote(local_path(scope), errors="replace")  # a decoded one may have line breaks
            log.info(
                "request_id=%s method=%s path=%s status=%d seconds=%.4f",
                *(request_id, scope["method"], path, status, seconds),
            )
