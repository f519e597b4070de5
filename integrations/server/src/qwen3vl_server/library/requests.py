"""Bodies of requests, which are JSON or forms: where they come from, and how they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from qwen3vl_server.asgi import header, local_path
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.multipart import MEDIA_TYPE
from qwen3vl_server.observability import CLIENT_LEFT

DOCUMENTS_PATH = "/v1/documents"
Model = TypeVar("Model", bound=BaseModel)
_PROGRESS_BYTES = 2**20


def is_form(content_type: str | None) -> bool:
    """Return whether a body is multipart/form-data.

    Args:
        content_type: The request's `Content-Type`.

    Returns:
        False without one.
    """
    return (content_type or "").partition(";")[0].strip().lower() == MEDIA_TYPE


def is_upload(scope: Scope) -> bool:
    """Return whether a request uploads documents: its body is read as it arrives, and may be larger than others.

    Args:
        scope: The request's scope.

    Returns:
        True for forms that are posted to `/v1/documents`.
    """
    return scope["method"] == "POST" and local_path(scope) == DOCUMENTS_PATH and is_form(header(scope, b"content-type"))


async def read_json(request: Request) -> Any:
    """Read a body that is JSON.

    Args:
        request: The request.

    Returns:
        Its values.

    Raises:
        RequestError: It is no JSON, or not said to be, so that another site's page may have sent it: status 400.
    """
    if (request.headers.get("content-type") or "").partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            400, "the body is not said to be JSON; send it with Content-Type: application/json, or as a form"
        )
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "the body is no JSON; /docs describes it") from error


def validate(model: type[Model], values: Any) -> Model:
    """Check the fields of a body.

    Args:
        model: What it should be.
        values: What it is.

    Returns:
        The fields.

    Raises:
        RequestValidationError: A field has a wrong type; the application answers with status 400.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        errors = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(errors) from error


async def limited_chunks(request: Request, max_bytes: int, timeout_s: float) -> AsyncIterator[bytes]:
    """Yield a body that is read as it arrives, and end the request when it is too large or too slow.

    Args:
        request: The request.
        max_bytes: Maximum size of the body.
        timeout_s: Seconds in which each mebibyte of it has to arrive.

    Yields:
        The body's chunks, none of them empty.

    Raises:
        RequestError: The body is too large (413) or too slow (408).
    """
    too_large = RequestError(
        413,
        f"the upload has more than the {max_bytes} bytes that are accepted; send fewer or smaller files",
        code="body_too_large",
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    loop = asyncio.get_running_loop()
    stream = request.stream()
    deadline, size = loop.time() + timeout_s, 0
    while True:
        try:
            chunk = await asyncio.wait_for(_next(stream), deadline - loop.time())
        except TimeoutError as error:
            raise RequestError(
                408, f"less than a mebibyte of the upload has arrived in {timeout_s:g} s", code="timeout"
            ) from error
        except ClientDisconnect as error:
            raise RequestError(CLIENT_LEFT, "the client has left before its upload was complete") from error
        if chunk is None:
            return
        if (size + len(chunk)) // _PROGRESS_BYTES > size // _PROGRESS_BYTES:
            deadline = loop.time() + timeout_s
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        if chunk:
            yield chunk


async def _next(stream: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(stream, None)
