"""What the exceptions of Chroma's clients mean."""

from __future__ import annotations

import httpx
from chromadb.errors import ChromaError

from qwen3vl.stores.failures import ClientFailure, http_failure, transport_failure
from qwen3vl_chroma.clients import TIMEOUT_SETTING

_FIRST_SERVER_ERROR = 500


def classify_error(error: Exception, *, is_embedded: bool = False) -> ClientFailure | None:
    """Return the meaning of an exception that a Chroma client raised.

    Args:
        error: The exception.
        is_embedded: Whether the client has the database in this process. Its errors have codes like the statuses of
            HTTP, but are transient only while another process has the database locked.

    Returns:
        The failure; None if the exception is not the client's.
    """
    if isinstance(error, httpx.HTTPStatusError):
        return _http_failure(error.response.status_code, str(error))
    if isinstance(error, ChromaError):
        if is_embedded and error.code() >= _FIRST_SERVER_ERROR:
            reason = error.message()
            return ClientFailure(f"Chroma fails: {reason}", transient="locked" in reason.lower())
        return _http_failure(error.code(), error.message())
    # Chroma raises a plain Exception, or fails on a body that is not JSON, while it handles the HTTP error.
    if isinstance(error.__context__, httpx.HTTPStatusError):
        return _http_failure(error.__context__.response.status_code, str(error))
    if (failure := transport_failure(error, TIMEOUT_SETTING)) is not None:
        return failure
    if isinstance(error, AttributeError) and error.name == "bindings":  # which Chroma deletes when it is closed
        return ClientFailure("the client is closed: open the store again")
    if isinstance(error, (OSError, ValueError, TypeError, RuntimeError)):
        reason = str(error) or type(error).__name__
        return ClientFailure(reason, invalid_request=isinstance(error, (ValueError, TypeError, RecursionError)))
    return None


def _http_failure(status: int, reason: str) -> ClientFailure:
    return http_failure("Chroma", status, reason, credentials_fix="give the client the headers that authorize it")
