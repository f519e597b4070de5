"""Fetches http(s) media from public addresses only.

The name is resolved here, every address it has is checked, and the connection goes to a checked address:
a name that resolves to something else a moment later (DNS rebinding) gains nothing.  Redirects are
followed by hand, each target checked like the first.  No proxy of the environment is used.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from urllib.parse import urljoin

import httpx

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.media.policy import MediaPolicy

_REDIRECTS = (301, 302, 303, 307, 308)
_AGENT = "qwen3vl"


def fetch(url: str, policy: MediaPolicy) -> bytes:
    """The body behind a URL.

    Raises `PolicyError` where the policy forbids it, `MediaError` where it cannot be had.
    """
    if not policy.urls:
        raise PolicyError("the media policy does not allow URLs; fetch it yourself and pass its bytes")
    deadline = time.monotonic() + policy.timeout
    try:
        with httpx.Client(trust_env=False, follow_redirects=False, headers={"user-agent": _AGENT}) as client:
            for _ in range(policy.max_redirects + 1):
                body, location = _request(client, url, policy, deadline)
                if body is not None:
                    return body
                url = urljoin(url, location)
    except httpx.TimeoutException as error:
        raise MediaError(f"no answer within {policy.timeout:g} seconds") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MediaError(f"it cannot be fetched: {error or type(error).__name__}") from error
    raise MediaError(f"more than {policy.max_redirects} redirects")


def _request(client: httpx.Client, url: str, policy: MediaPolicy, deadline: float) -> tuple[bytes | None, str]:
    """One request: its body, or None and where it redirects."""
    target = httpx.URL(url)
    if target.scheme not in ("http", "https") or not target.host:
        raise PolicyError(f"it redirects to {url}: only http(s) is fetched")
    address = _checked_address(target, policy)
    request = client.build_request(
        "GET",
        target.copy_with(host=address, username=None, password=None),
        headers={"host": target.netloc.decode("ascii")},
        extensions={"sni_hostname": target.raw_host.decode("ascii")},
        timeout=max(deadline - time.monotonic(), 0.001),
    )
    response = client.send(request, stream=True)
    try:
        if response.status_code in _REDIRECTS and "location" in response.headers:
            return None, response.headers["location"]
        if response.status_code != 200:
            raise MediaError(f"the server answers {response.status_code} {response.reason_phrase}".strip())
        return _read(response, policy, deadline), ""
    finally:
        response.close()


def _read(response: httpx.Response, policy: MediaPolicy, deadline: float) -> bytes:
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > policy.max_bytes:
        raise PolicyError(f"it has {announced} bytes and the media policy allows {policy.max_bytes}")
    chunks, size = [], 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > policy.max_bytes:
            raise PolicyError(f"it has more than the {policy.max_bytes} bytes that the media policy allows")
        if time.monotonic() > deadline:
            raise MediaError(f"not whole within {policy.timeout:g} seconds: {size} bytes arrived")
        chunks.append(chunk)
    return b"".join(chunks)


def _checked_address(url: httpx.URL, policy: MediaPolicy) -> str:
    """An address of the host, after all of its addresses have passed the policy."""
    if policy.hosts is not None and url.host.lower() not in {host.lower() for host in policy.hosts}:
        raise PolicyError(f"the host {url.host} is not among those that the media policy allows")
    try:
        found = socket.getaddrinfo(
            url.host, url.port or (443 if url.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        raise MediaError(f"the host {url.host} cannot be found: {error}") from error
    addresses = [str(entry[4][0]).split("%")[0] for entry in found]
    if not policy.private_hosts:
        for address in addresses:
            if not _is_public(address):
                raise PolicyError(
                    f"the host {url.host} is at {address}, which is not a public address; "
                    "MediaPolicy(private_hosts=True) allows it"
                )
    return addresses[0]


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address in IPv6 clothes is judged as what it is.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
    return ip.is_global and not ip.is_multicast
