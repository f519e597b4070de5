"""Types and helpers of ASGI, https://asgi.readthedocs.io."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS_ONLY = "qwen3vl.headers_only"
"""Key of a request's scope: whether the body of the response is not needed."""


class HeadRequests:
    """ASGI middleware that answers HEAD as GET, without the body.

    FastAPI's routes refuse HEAD, which health checks of proxies and monitors send.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 (as ASGI has it)
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        # A copy: for the log, and for the server that leaves out the body, the method is HEAD.
        get_scope = {**scope, "method": "GET", HEADERS_ONLY: True}
        try:
            await self._app(get_scope, receive, send_without_body)
        finally:
            if "route" in get_scope:
                scope["route"] = get_scope["route"]  # for the metrics


def local_path(scope: Scope) -> str:
    """Return the path of a request within the application, which may be mounted below another path.

    Args:
        scope: The request's scope.

    Returns:
        The path, such as `/v1/embeddings`.
    """
    path, root_path = str(scope["path"]), scope.get("root_path", "")
    # As Starlette's router has it: keys must be asked for by the path that is routed.
    is_below = path.startswith(root_path) and path[len(root_path) : len(root_path) + 1] in ("", "/")
    return path[len(root_path) :] if is_below else path


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request.

    Args:
        scope: The request's scope.
        name: The header's name in lower case.

    Returns:
        The first value; None if there is none.
    """
    headers: Any = scope["headers"]
    return next((value.decode("latin-1") for key, value in headers if key == name), None)
