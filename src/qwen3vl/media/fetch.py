"""Fetches http(s) media from public addresses only.

The name is resolved here, every address it has is checked, and the connection goes to a checked address:
a name that resolves to something else a moment later (DNS rebinding) gains nothing.  Redirects are
followed by hand, each target checked like the first.  One deadline holds for all of it, however slowly
bytes drip.  No proxy of the environment is used, and bodies are taken as they are, never inflated.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.media.policy import MediaPolicy

_REDIRECTS = (301, 302, 303, 307, 308)
_NOT_PUBLIC = tuple(
    # What Python's is_global lets through in some versions: protocol assignments, local NAT64, old site-local,
    # IPv4-compatible.
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "64:ff9b:1::/48", "fec0::/10", "::/96")
)


def fetch(url: str, policy: MediaPolicy) -> bytes:
    """The body behind a URL.

    Raises `PolicyError` where the policy forbids it, `MediaError` where it cannot be had.
    """
    if not policy.urls:
        raise PolicyError("the media policy does not allow URLs; fetch it yourself and pass its bytes")
    backend = _Backend(policy, time.monotonic() + policy.timeout)
    try:
        target = httpx.URL(url)
        with httpcore.ConnectionPool(network_backend=backend) as pool:
            for _ in range(policy.max_redirects + 1):
                body, location = _request(pool, target, policy)
                if body is not None:
                    return body
                target = target.join(location)
    except httpcore.TimeoutException as error:
        raise MediaError(f"not whole within {policy.timeout:g} seconds") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.InvalidURL, OSError) as error:
        raise MediaError(f"it cannot be fetched: {error or type(error).__name__}") from error
    raise MediaError(f"more than {policy.max_redirects} redirects")


def _request(pool: httpcore.ConnectionPool, url: httpx.URL, policy: MediaPolicy) -> tuple[bytes | None, str]:
    """One request: its body, or None and where it redirects."""
    if url.scheme not in ("http", "https") or not url.host:
        raise PolicyError(f"it redirects to {url}: only http(s) is fetched")
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    headers = [(b"host", url.netloc), (b"user-agent", b"qwen3vl"), (b"accept-encoding", b"identity")]
    with pool.stream("GET", target, headers=headers) as response:
        told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and "location" in told:
            return None, told["location"]
        if response.status != 200:
            reason = response.extensions.get("reason_phrase", b"").decode("latin-1")
            raise MediaError(f"the server answers {response.status} {reason}".strip())
        return _read(response, told.get("content-length", ""), policy), ""


def _read(response: httpcore.Response, announced: str, policy: MediaPolicy) -> bytes:
    if announced.isdigit() and int(announced) > policy.max_bytes:
        raise PolicyError(f"it has {announced} bytes and the media policy allows {policy.max_bytes}")
    chunks, size = [], 0
    for chunk in response.iter_stream():
        size += len(chunk)
        if size > policy.max_bytes:
            raise PolicyError(f"it has more than the {policy.max_bytes} bytes that the media policy allows")
        chunks.append(chunk)
    return b"".join(chunks)


class _Backend(httpcore.SyncBackend):
    """Connects to checked addresses, and lets nothing take longer than until the deadline."""

    def __init__(self, policy: MediaPolicy, deadline: float) -> None:
        self.policy = policy
        self.deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        address = _checked_address(host, port, self.policy)
        left = _left(self.deadline, timeout)
        return _Stream(super().connect_tcp(address, port, left, local_address, socket_options), self.deadline)


class _Stream(httpcore.NetworkStream):
    """A connection whose every read and write may take what is left of the time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self.stream = stream
        self.deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, _left(self.deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, _left(self.deadline, timeout))

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self.deadline, timeout)
        return _Stream(self.stream.start_tls(ssl_context, server_hostname, left), self.deadline)

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


def _left(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left if timeout is None else min(left, timeout)


def _checked_address(host: str, port: int, policy: MediaPolicy) -> str:
    """An address of the host, after all of its addresses have passed the policy."""
    if policy.hosts is not None and host.lower() not in {allowed.lower() for allowed in policy.hosts}:
        raise PolicyError(f"the host {host} is not among those that the media policy allows")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MediaError(f"the host {host} cannot be found: {error}") from error
    addresses = [str(entry[4][0]).split("%")[0] for entry in found]
    if not policy.private_hosts:
        for address in addresses:
            if not is_public(address):
                raise PolicyError(
                    f"the host {host} is at {address}, which is not a public address; "
                    "MediaPolicy(private_hosts=True) allows it"
                )
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address in IPv6 clothes is judged as what it is.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    if any(ip.version == network.version and ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not ip.is_multicast
