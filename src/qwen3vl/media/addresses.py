"""Distinguishes public internet addresses from others, and resolves host names under a media policy."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

import httpx

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.media.policy import MediaPolicy

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    # `is_global` of some Python versions is true for these: IETF protocol assignments (RFC 6890), NAT64 for local use
    # (RFC 8215), site-local (RFC 3879), and IPv4-compatible addresses (RFC 4291).
    for network in ("192.0.0.0/24", "64:ff9b:1::/48", "fec0::/10", "::/96")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Addresses whose last 32 bits are an IPv4 address (RFC 6052)."""


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet.

    Args:
        address: An IPv4 or IPv6 address. An IPv4 address within an IPv6 address (mapped, 6to4, Teredo, NAT64) is
            checked instead of it.

    Returns:
        False for loopback, private, link-local, multicast and reserved addresses.

    Raises:
        ValueError: This is no IP address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if embedded is None and ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    if any(ip.version == network.version and ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not ip.is_multicast


def resolve_host(
    host: str, port: int, policy: MediaPolicy, allow_address: Callable[[str], bool], timeout_s: float
) -> list[str]:
    """Resolve a host name and check all of its addresses.

    Args:
        host: A host name or an IP address.
        port: The port to connect to.
        policy: Defines which hosts are allowed, and whether addresses that are not public are.
        allow_address: Whether an address is public; not used if the policy allows private hosts.
        timeout_s: Maximum duration of the lookup in seconds.

    Returns:
        The checked addresses, at least one. Connect to one of them, not to the name, which may resolve to another
        address later.

    Raises:
        MediaError: The name cannot be resolved.
        PolicyError: The policy does not allow the host or one of its addresses.
        TimeoutError: The lookup takes too long.
    """
    if policy.hosts is not None and _encode(host) not in map(_encode, policy.hosts):
        raise PolicyError(
            f"the host {host} is not among those that the media policy allows ({', '.join(policy.hosts) or 'none'}); "
            "MediaPolicy(hosts=(…,)) allows others"
        )
    addresses = _look_up(host, port).result(timeout_s)
    if not policy.private_hosts:
        for address in addresses:
            if not allow_address(address):
                raise PolicyError(
                    f"the host {host} is at {address}, which is not a public address; "
                    "MediaPolicy(private_hosts=True) allows it"
                )
    return addresses


def _encode(host: str) -> str:
    """Return a host as `httpx.URL` has it: in lower case, and names that are not ASCII in Punycode (IDNA)."""
    try:
        return httpx.URL(scheme="http", host=host).raw_host.decode("ascii")
    except httpx.InvalidURL:  # no URL has this host
        return host.lower()


def _look_up(host: str, port: int) -> Future[list[str]]:
    """Return the future of a host's addresses, in the order in which they should be tried.

    `getaddrinfo` has no time limit and cannot be interrupted. It runs in a thread of its own, because one that never
    answers would occupy a thread of a pool, and delay the end of the process.
    """
    future: Future[list[str]] = Future()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            future.set_result(list(dict.fromkeys(str(entry[4][0]).split("%")[0] for entry in entries)))
        except (OSError, UnicodeError) as error:
            not_found = MediaError(f"the host {host} cannot be found: {error}; check the URL")
            not_found.__cause__ = error
            future.set_exception(not_found)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=look_up, name="qwen3vl-lookup", daemon=True).start()
    return future
