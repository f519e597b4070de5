"""Errors of requests, in a body that the clients of all dialects read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from qwen3vl.errors import InputError, ItemError, system_failure
from qwen3vl.inputs.items import shorten
from qwen3vl.wire import TIMED_OUT
from qwen3vl_server.responses import AsciiJSONResponse

log = logging.getLogger(__name__)

_ERRORS_IN_MESSAGE = 5
_MESSAGE_CHARACTERS = 4000
_PARAM_CHARACTERS = 200
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's types of errors by status; other statuses below 500 are `invalid_request_error`."""


class ErrorDetails(BaseModel):
    """An error, as OpenAI and vLLM have it."""

    message: str
    type: str
    param: str | None = Field(description="Field of the body that caused it.")
    code: str | None = Field(description="A word for programs.")


class ErrorAnswer(BaseModel):
    """The body of an error, for the clients of all dialects."""

    error: ErrorDetails
    message: str = Field(description="The same message, where Cohere's clients read it.")
    detail: str = Field(description="The same message, where Jina's clients read it.")


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "The body or an input is wrong",
        401: "The API key is missing or wrong",
        403: "The server does not show this file, or a page of another site has sent the request",
        404: "The model is not served, or there is no such document",
        408: "The upload took too long",
        409: "The request does not fit what the server has: contents, another model, or documents at work",
        413: "The body is too large",
        416: "The range is not in the file",
        421: "The server is not reached by this name",
        422: "There are too many items, or the answer took too long",
        429: "Too much is waiting; try again after Retry-After seconds",
        500: "The model failed",
        503: "The server is stopping, or the store cannot be reached",
        507: "The disk has no room for uploads",
    }.items()
}
"""What the interface's description says of errors."""


class RequestError(Exception):
    """A request is answered with an error.

    Args:
        status: HTTP status.
        message: The input, the reason and the fix. A long one is shortened, as `shorten_message` does.
        param: Field of the body that caused it.
        code: A word for programs.
        retry_after_s: Seconds after which a client may try again, if the server has too much to do.
        details: Further members of the `error` in the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int = 1,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        message = shorten_message(message)
        super().__init__(message)
        self.details = details or {}
        self.status = status
        self.message = message
        self.param = None if param is None else shorten(param, _PARAM_CHARACTERS)
        self.code = code
        self.retry_after_s = retry_after_s


def shorten_message(message: str) -> str:
    """Leave out the middle of a long message, which may repeat what a client has sent.

    Args:
        message: Any message.

    Returns:
        The message itself if it is short enough. Otherwise its beginning, which names the input, and its end, which has
        the reason and the fix.
    """
    if len(message) <= _MESSAGE_CHARACTERS:
        return message
    half = _MESSAGE_CHARACTERS // 2
    return f"{message[:half]} […] {message[-half:]}"


def error_response(error: RequestError) -> AsciiJSONResponse:
    """Return the response for an error.

    Args:
        error: The error.

    Returns:
        A response whose body has OpenAI's and vLLM's `error`, Cohere's `message` and Jina's `detail`.
    """
    default_type = "server_error" if error.status >= 500 else "invalid_request_error"
    details = {
        "message": error.message,
        "type": _TYPES.get(error.status, default_type),
        "param": error.param,
        "code": error.code,
        **error.details,
    }
    headers = {}
    if error.code == TIMED_OUT:
        headers["x-should-retry"] = "false"  # OpenAI's clients would compute it all again
    elif error.status in (429, 503):
        headers["retry-after"] = str(error.retry_after_s)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = {"error": details, "message": error.message, "detail": error.message}
    return AsciiJSONResponse(body, error.status, headers)


def body_error(error: RequestValidationError) -> RequestError:
    """Return the error of a body that is no JSON, or whose fields have wrong types.

    Args:
        error: What pydantic found.

    Returns:
        The error, with status 400 as OpenAI has it.
    """
    if isinstance(error.body, bytes):  # it was not parsed
        return RequestError(400, "the body is no JSON, or not said to be; send it with Content-Type: application/json")
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return RequestError(400, f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}")
    problems = [(".".join(map(str, problem["loc"][1:])), str(problem["msg"])) for problem in error.errors()]
    messages = [f"{field}: {message}" if field else message for field, message in problems[:_ERRORS_IN_MESSAGE]]
    part = "body" if first["loc"][0] == "body" else "request"  # a parameter is in no body
    message = f"the {part} is not as the documentation at /docs says: {'; '.join(messages)}"
    return RequestError(400, message, param=problems[0][0] or None)


def query_failure(error: InputError, param: str | None = None) -> RequestError:
    """Return the error of a request whose query failed.

    Args:
        error: The failure.
        param: Field of the body that has the query.

    Returns:
        Status 400 if the query cannot be used. Otherwise the model failed: status 500, and the log says why.
    """
    failure = system_failure(error)
    if failure is None:
        return RequestError(400, str(error), param=param)
    log.error("the model failed on %s", error, exc_info=failure)
    return RequestError(500, "the model failed on the query; the log of the server says why")


def items_error(errors: Sequence[ItemError], param: str) -> RequestError:
    """Return the error of a request whose items failed.

    Args:
        errors: The failures, sorted by index; at least one.
        param: Field of the body that has the items.

    Returns:
        Status 400 if all items cannot be used. Otherwise the model failed: status 500, and the log says why.
    """
    for error in errors:
        if not isinstance(error.__cause__, InputError):
            log.error("the model failed on %s", error, exc_info=error.__cause__)
            return RequestError(500, f"the model failed on item {error.index}; the log of the server says why")
    shown = "; ".join(str(error) for error in errors[:_ERRORS_IN_MESSAGE])
    more = len(errors) - _ERRORS_IN_MESSAGE
    message = f"{shown}; and {more} more" if more > 0 else shown
    return RequestError(400, message, param=f"{param}[{errors[0].index}]")
