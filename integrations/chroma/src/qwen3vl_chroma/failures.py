"""What the exceptions of Chroma's clients mean."""

from __future__ import annotations

import httpx
from chromadb.errors import ChromaError

from qwen3vl.stores.failures import ClientFailure, http_failure, transport_failure
from qwen3vl_chroma.clients import TIMEOUT_SETTING


def classify_error(error: Exception) -> ClientFailure | None:
    """Return the meaning of an exception that a Chroma client raised.

    Args:
        error: The exception.

    Returns:
        The failure; None if the exception is not the client's.
    """
    if isinstance(error, httpx.HTTPStatusError):
        return _http_failure(error.response.status_code, str(error))
    if isinstance(error, ChromaError):
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
