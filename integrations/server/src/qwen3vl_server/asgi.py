"""Types and helpers of ASGI, https://asgi.readthedocs.io."""

from __future__ import annotations

from typing import Any

from starlette.types import Scope


def local_path(scope: Scope) -> str:
    """Return the path of a request within the application, which may be mounted below another path.

    Args:
        scope: The request's scope.

    Returns:
        The path, such as `/v1/embeddings`.
    """
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


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
