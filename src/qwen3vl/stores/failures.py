"""What the exceptions of database clients mean: whether a retry may help, and whether the request itself is wrong."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass

import httpx

DEFAULT_TIMEOUT_S = 30.0
"""Seconds after which a request to a server fails, if neither the caller nor the client sets another limit."""


@dataclass(frozen=True, slots=True)
class ClientFailure:
    """The meaning of a client's exception.

    Attributes:
        reason: What went wrong, and what to do about it, for the error message.
        transient: Whether the same request may succeed later.
        invalid_request: Whether the content of the request is rejected, so that it never succeeds.
        wait: Seconds to wait before a retry, as requested by the server (`Retry-After`); 0 if it requests none.
    """

    reason: str
    transient: bool = False
    invalid_request: bool = False
    wait: float = 0.0


def is_disk_full(reason: str) -> bool:
    """Return whether an error message reports a full disk. Servers send it with the status of a transient error.

    Args:
        reason: The error message.

    Returns:
        Whether it is about a full disk.
    """
    lowered = reason.lower()
    return any(words in lowered for words in ("no space left", "disk is full", "disk full", "out of disk"))


def http_failure(server: str, status: int, reason: str, *, credentials_fix: str, wait: float = 0.0) -> ClientFailure:
    """Return what an HTTP error status means.

    Args:
        server: Name of the server, for the message.
        status: The HTTP status.
        reason: The server's explanation.
        credentials_fix: What to do if the server rejects the credentials.
        wait: Seconds of the `Retry-After` header; 0 without one.

    Returns:
        A transient failure for 408, 429 and 5xx (but not for 507 or a full disk), an invalid request for 400, 413 and
        422, else a permanent failure. `credentials_fix` is part of the reason for 401 and 403 only.
    """
    if status in (401, 403):
        return ClientFailure(f"{server} rejects the credentials ({status}: {reason}); {credentials_fix}")
    transient = (status in (408, 429) or status >= 500) and status != 507 and not is_disk_full(reason)
    return ClientFailure(
        f"{server} answers {status}: {reason}", transient, invalid_request=status in (400, 413, 422), wait=wait
    )


def timeout_failure(server: str, seconds: float | None, setting: str) -> ClientFailure:
    """Return the failure of a request that was not answered in time.

    Args:
        server: Address of the server.
        seconds: The limit that passed; None if it is not known.
        setting: The argument that sets the limit.

    Returns:
        A transient failure.
    """
    limit = "in time" if seconds is None else f"within {seconds:g} s"
    return ClientFailure(
        f"the server at {server} did not answer {limit}: check that it runs and is not overloaded, or set {setting}",
        transient=True,
    )


def transport_failure(error: Exception, timeout_setting: str = "the client's timeout") -> ClientFailure | None:
    """Return what an exception means that a client raises if it gets no complete answer.

    Args:
        error: Any exception of the client.
        timeout_setting: The argument that sets the limit on the time of a request.

    Returns:
        A permanent failure if the server's address or certificate is wrong; a transient one for other exceptions of
        httpx's requests and for an answer that is no JSON; None for all others.
    """
    wrong_address = isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL))
    wrong_certificate = isinstance(error, (httpx.TransportError, ssl.SSLError)) and "CERTIFICATE" in str(error).upper()
    if wrong_address or wrong_certificate:
        return ClientFailure(f"the server's address or certificate is wrong: {error!r}")
    if isinstance(error, httpx.TimeoutException):
        request = error.request
        limits = request.extensions.get("timeout", {})
        operation = type(error).__name__.removesuffix("Timeout").lower()  # connect, read, write or pool
        server = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
        return timeout_failure(server, limits.get(operation), timeout_setting)
    if isinstance(error, httpx.RequestError):
        return ClientFailure(f"the server cannot be reached, or its answer was incomplete: {error!r}", transient=True)
    if isinstance(error, json.JSONDecodeError):
        return ClientFailure(f"the server's answer was incomplete: {error}", transient=True)
    return None
