"""Distinguishes public internet addresses from others, and resolves host names under a media policy."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

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


def resolve_host(host: str, port: int, policy: MediaPolicy, allow_address: Callable[[str], bool]) -> str:
    """Resolve a host name and check all of its addresses.

    Args:
        host: A host name or an IP address.
        port: The port to connect to.
        policy: Defines which hosts are allowed, and whether addresses that are not public are.
        allow_address: Whether an address is public; not used if the policy allows private hosts.

    Returns:
        One of the checked addresses. Connect to it, not to the name, which may resolve to another address later.

    Raises:
        MediaError: The name cannot be resolved.
        PolicyError: The policy does not allow the host or one of its addresses.
    """
    if policy.hosts is not None and host.lower() not in {allowed.lower() for allowed in policy.hosts}:
        raise PolicyError(
            f"the host {host} is not among those that the media policy allows ({', '.join(policy.hosts) or 'none'}); "
            "MediaPolicy(hosts=(…,)) allows others"
        )
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MediaError(f"the host {host} cannot be found: {error}; check the URL") from error
    addresses = [str(entry[4][0]).split("%")[0] for entry in entries]
    if not policy.private_hosts:
        for address in addresses:
            if not allow_address(address):
                raise PolicyError(
                    f"the host {host} is at {address}, which is not a public address; "
                    "MediaPolicy(private_hosts=True) allows it"
                )
    return addresses[0]
