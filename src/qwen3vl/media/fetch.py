"""Fetches http(s) media from public addresses only.

The host name is resolved here, all of its addresses are checked, and the connection goes to a checked address: a name
that resolves to another address a moment later (DNS rebinding) does not get past the check. If one address cannot be
reached, the next is tried. Redirects are followed here, and each target is checked like the first. One deadline holds
for the whole fetch, from the lookup of the name, however slowly bytes arrive.
Proxies of the environment are not used, and response bodies are never decompressed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.media.addresses import is_public, resolve_host
from qwen3vl.media.policy import MediaPolicy

_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_MAX_CONNECT_S = 5.0
"""Seconds after which the next address of a host is tried."""


def fetch(url: str, policy: MediaPolicy, *, allow_address: Callable[[str], bool] = is_public) -> bytes:
    """Fetch a URL.

    Args:
        url: An http or https URL.
        policy: Hosts, sizes and times that are allowed.
        allow_address: Which IP addresses count as public.

    Returns:
        The body of the response.

    Raises:
        PolicyError: The policy does not allow the URL, a redirect's target, or the size of the body.
        MediaError: The server cannot be reached, answers with an error, or is too slow.
    """
    if not policy.urls:
        raise PolicyError("the media policy does not allow URLs; fetch it yourself and pass its bytes")
    backend = _CheckedBackend(policy, time.monotonic() + policy.timeout, allow_address)
    try:
        target = httpx.URL(url)
        with httpcore.ConnectionPool(network_backend=backend) as pool:
            for _ in range(policy.max_redirects + 1):
                body, location = _request(pool, target, policy)
                if body is not None:
                    return body
                target = target.join(location)
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise MediaError(
            f"it could not be fetched within {policy.timeout:g} seconds; MediaPolicy(timeout=…) allows more"
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.InvalidURL, ValueError, OSError) as error:
        raise MediaError(f"it cannot be fetched: {error or type(error).__name__}; check the URL") from error
    raise MediaError(f"it takes more than {policy.max_redirects} redirects; pass the URL to which it redirects")


def _request(pool: httpcore.ConnectionPool, url: httpx.URL, policy: MediaPolicy) -> tuple[bytes | None, str]:
    """Send one request; return its body, or None and the URL to which it redirects."""
    if url.scheme not in ("http", "https") or not url.host:
        raise PolicyError(f"it redirects to {url}, and only http(s) is fetched; fetch it yourself and pass its bytes")
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    request_headers = [(b"host", url.netloc), (b"user-agent", b"qwen3vl"), (b"accept-encoding", b"identity")]
    with pool.stream("GET", target, headers=request_headers) as response:
        headers = {name.decode("latin-1").lower(): _decode(value) for name, value in response.headers}
        if response.status in _REDIRECT_STATUSES and "location" in headers:
            return None, headers["location"]
        if response.status != 200:
            reason = response.extensions.get("reason_phrase", b"").decode("latin-1")
            raise MediaError(f"the server answers {response.status} {reason}".strip() + "; check the URL")
        return _read_body(response, headers.get("content-length", ""), policy), ""


def _decode(value: bytes) -> str:
    """Decode a header's value. Servers write locations beyond ASCII in UTF-8, which the standard does not foresee."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _read_body(response: httpcore.Response, content_length: str, policy: MediaPolicy) -> bytes:
    if content_length.isdigit() and int(content_length) > policy.max_bytes:
        raise PolicyError(
            f"it has {content_length} bytes and the media policy allows {policy.max_bytes} (MediaPolicy.max_bytes)"
        )
    chunks, size = [], 0
    for chunk in response.iter_stream():
        size += len(chunk)
        if size > policy.max_bytes:
            raise PolicyError(
                f"it has more than the {policy.max_bytes} bytes that the media policy allows (MediaPolicy.max_bytes)"
            )
        chunks.append(chunk)
    return b"".join(chunks)


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to checked addresses only, with one deadline for all connections together."""

    def __init__(self, policy: MediaPolicy, deadline: float, allow_address: Callable[[str], bool]) -> None:
        self._policy = policy
        self._deadline = deadline
        self._allow_address = allow_address

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a checked address of the host: to the first one that can be reached."""
        *addresses, last_address = resolve_host(
            host, port, self._policy, self._allow_address, _remaining(self._deadline, timeout)
        )
        for number, address in enumerate(addresses):
            share = _remaining(self._deadline, timeout) / (len(addresses) + 1 - number)
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return self._connect(address, port, min(share, _MAX_CONNECT_S), local_address, socket_options)
        return self._connect(last_address, port, _remaining(self._deadline, timeout), local_address, socket_options)

    def _connect(
        self,
        address: str,
        port: int,
        timeout: float,
        local_address: str | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(address, port, timeout, local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


class _DeadlineStream(httpcore.NetworkStream):
    """A connection on which each read and write may take no longer than until the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _remaining(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout = _remaining(self._deadline, timeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _remaining(deadline: float, timeout: float | None) -> float:
    """Return the seconds until the deadline, or until the timeout if that is earlier."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return seconds if timeout is None else min(seconds, timeout)
