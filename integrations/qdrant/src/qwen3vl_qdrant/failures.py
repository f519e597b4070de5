"""What the exceptions of qdrant-client mean."""

from __future__ import annotations

import sqlite3
from typing import Any

from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from qwen3vl.stores.failures import ClientFailure, http_failure, is_disk_full, transport_failure

_TIMEOUT_SETTING = "timeout_s of open_store (timeout of QdrantClient)"
_TRANSIENT_GRPC_CODES = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN"})


def classify_error(error: Exception) -> ClientFailure | None:
    """Return the meaning of an exception that a `QdrantClient` or `AsyncQdrantClient` raised.

    Args:
        error: The exception.

    Returns:
        The failure; None if the client raises no exceptions of this type. Every `ValueError`, `RuntimeError` and
        `OSError` counts as the client's.
    """
    if isinstance(error, UnexpectedResponse):
        return _http_failure(error)
    if isinstance(error, ResourceExhaustedResponse):
        return ClientFailure(f"the server is overloaded: {error}", transient=True, wait=float(error.retry_after_s))
    if isinstance(error, ResponseHandlingException):
        return transport_failure(error.source, _TIMEOUT_SETTING) or ClientFailure(
            f"cannot decode the server's answer; check that client and server versions match: {error.source!r}"
        )
    if hasattr(error, "code") and hasattr(error, "details"):  # of gRPC, which is imported only if it is used
        return _grpc_failure(error)
    if isinstance(error, QdrantException) and "Retry-After" in str(error):
        return ClientFailure("the server is overloaded", transient=True)
    if (failure := transport_failure(error, _TIMEOUT_SETTING)) is not None:
        return failure
    if isinstance(error, (sqlite3.Error, OSError)):
        return ClientFailure(str(error) or type(error).__name__)
    if isinstance(error, (ApiException, QdrantException, ValueError, RuntimeError)):
        return ClientFailure(
            str(error) or type(error).__name__, invalid_request=isinstance(error, (ValueError, RecursionError))
        )
    return None


def _http_failure(error: UnexpectedResponse) -> ClientFailure:
    try:
        reason = str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        reason = error.reason_phrase or "no reason given"
    retry_after = error.headers.get("Retry-After", "0") if error.headers else "0"
    return http_failure(
        "the server",
        error.status_code or 0,
        reason,
        credentials_fix="give the client an api_key with write access, or unlock the collection",
        wait=float(retry_after) if retry_after.isdecimal() else 0.0,
    )


def _grpc_failure(error: Any) -> ClientFailure:
    """Return the meaning of a gRPC error by its status code."""
    code, reason = getattr(error.code(), "name", str(error.code())), str(error.details())
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return ClientFailure(f"the server rejects the credentials ({code}: {reason}); give the client an api_key")
    if code == "DEADLINE_EXCEEDED":
        return ClientFailure(f"the server did not answer in time ({reason}); set {_TIMEOUT_SETTING}", transient=True)
    return ClientFailure(
        f"the server answers {code}: {reason}",
        transient=code in _TRANSIENT_GRPC_CODES and not is_disk_full(reason),
        invalid_request=code == "INVALID_ARGUMENT",
    )
