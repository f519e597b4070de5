"""Requests that a browser sends for the page of another site, at servers where nobody needs a key.

Such a page must not use a server that only its visitor reaches, as one that listens on the loopback address. It could
do so in two ways. With a name of its own that suddenly resolves to that address (DNS rebinding), it is of the same
origin for the browser; but the header `Host` then has that name. From its own origin, it can send requests whose
answers it cannot read; but their header `Sec-Fetch-Site` or `Origin` says where they are from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from qwen3vl_server.asgi import header
from qwen3vl_server.errors import RequestError

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SiteGuard:
    """ASGI middleware that refuses requests for pages of other sites.

    Starlette's `TrustedHostMiddleware` answers in plain text and checks all hosts or none, which is why it is not used.

    Args:
        app: The application.
        allowed_hosts: Names of the server. Without any, those of connections to other than loopback addresses are not
            checked, since they are not known.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 (as ASGI has it)
        if scope["type"] == "http":
            self._check_host(scope)
            if scope["method"] not in _SAFE_METHODS:
                _check_origin(scope)
        await self._app(scope, receive, send)

    def _check_host(self, scope: Scope) -> None:
        sent = header(scope, b"host")
        own = (scope.get("server") or ("", None))[0]  # the address that the client has connected to
        if sent is None or not (self._allowed_hosts or is_loopback(own)):
            return
        host = _host_name(sent)
        if not (host in self._allowed_hosts or is_loopback(host) or is_unspecified(host) or _is_same(host, own)):
            raise RequestError(
                421,
                f"this server is not reached by the name {host[:100]!r}: start it with --allowed-host NAME for each of "
                "its names, or with --api-key",
                code="host_not_allowed",
            )


def is_loopback(host: str) -> bool:
    """Return whether a name or address is this machine's own.

    Args:
        host: A host name or an IP address.

    Returns:
        True for `localhost`, names below it, and loopback addresses.
    """
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") if address is None else address.is_loopback


def is_unspecified(host: str) -> bool:
    """Return whether an address stands for all addresses of this machine.

    As the address of a connection, it is the loopback address. No other machine has it, so that no page of another site
    comes from it.

    Args:
        host: A host name or an IP address.

    Returns:
        True for `0.0.0.0` and `::`.
    """
    address = _address(host)
    return address is not None and address.is_unspecified


def _is_same(host: str, own: str) -> bool:
    """Return whether what a `Host` header has is the address of the connection."""
    address = _address(host)
    return host == own or (address is not None and address == _address(own))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address; None for a name. A socket of IPv6 has connections of IPv4 with mapped addresses."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _check_origin(scope: Scope) -> None:
    """Refuse a request that a page of another origin has sent, as `http.CrossOriginProtection` of Go does."""
    site, origin = header(scope, b"sec-fetch-site"), header(scope, b"origin")
    # Browsers send `Sec-Fetch-Site` to https and loopback addresses only. Behind a proxy, `Host` may be another one.
    same = site in ("same-origin", "none") if site else origin is None or _netloc(origin) == header(scope, b"host")
    if not same:
        raise RequestError(
            403,
            "requests from pages of other sites are refused; start the server with --api-key, and send the key",
            code="other_site",
        )


def _netloc(origin: str) -> str:
    return origin.partition("://")[2]


def _host_name(sent: str) -> str:
    """Return the name in a `Host` header, without the port; what is no host is returned as it is."""
    try:
        name = urlsplit(f"//{sent}").hostname
    except ValueError:
        name = None
    return sent if name is None else name.rstrip(".")
