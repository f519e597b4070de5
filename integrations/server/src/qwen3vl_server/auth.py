"""API keys."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from qwen3vl_server.asgi import header, local_path
from qwen3vl_server.errors import RequestError

OPEN_PATHS = frozenset({"/health", "/ready", "/openapi.json"})
"""Paths that need no key: probes of load balancers cannot send one, and the documentation is public."""


class ApiKeys:
    """ASGI middleware that refuses requests without a valid key, before their bodies are read.

    Args:
        app: The application.
        keys: The valid keys. Without any, every request passes.
        is_open: Whether a request needs no key, although its path is none of `OPEN_PATHS`.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], is_open: Callable[[Scope], bool] = lambda _: False) -> None:
        self._app = app
        self._is_open = is_open
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 (as ASGI has it)
        is_http = scope["type"] == "http"
        if is_http and self._digests and local_path(scope) not in OPEN_PATHS and not self._is_open(scope):
            self._check(header(scope, b"authorization") or "")
        await self._app(scope, receive, send)

    def _check(self, authorization: str) -> None:
        scheme, _, key = authorization.partition(" ")
        # Digests have equal lengths, and all are compared: the time does not tell which key was nearly right.
        digest = _digest(key.strip())
        matches = [hmac.compare_digest(digest, valid) for valid in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise RequestError(
                401,
                "the API key is missing or wrong; send it in the header `Authorization: Bearer KEY`",
                code="invalid_api_key",
            )


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
