"""Hosts of media: the lookup of a name counts as part of the fetch, every address is tried, names need not be ASCII."""

from __future__ import annotations

import select
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from qwen3vl import MediaError, MediaPolicy, PolicyError
from qwen3vl.media.fetch import fetch
from tests.support.http_server import Server

PRIVATE = MediaPolicy(private_hosts=True)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Addresses by name, beside those that this machine knows: tests have no name server."""
    addresses: dict[str, list[str]] = {}
    look_up = socket.getaddrinfo

    def look_up_here(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        found = addresses.get(host, [host])
        return [entry for address in found for entry in look_up(address, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    return addresses


@pytest.fixture
def silent_address(server: Server) -> Iterator[str]:
    """An address that never answers at the server's port: its queue of connections is full."""
    address = "127.0.0.2"
    with socket.socket() as listener:
        listener.bind((address, server.port))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(8):
                client = socket.socket()
                waiting.append(client)
                client.setblocking(False)
                client.connect_ex((address, server.port))
                if not select.select([], [client], [], 0.3)[1]:
                    break
            else:
                pytest.skip("the system accepts connections beyond the queue")
            yield address
        finally:
            for client in waiting:
                client.close()


def test_lookup_that_hangs_ends_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        ended.wait(20)
        raise socket.gaierror("no server answers")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(MediaError, match=r"within 0\.2 seconds"):
            fetch("http://hangs.test/a.png", MediaPolicy(timeout=0.2))
    finally:
        ended.set()


def test_name_that_is_not_found_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(MediaError, match=r"the host gone\.test cannot be found: no such name"):
        fetch("http://gone.test/a.png", MediaPolicy())


@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
def test_next_address_is_tried_if_one_refuses(
    server: Server, names: dict[str, list[str]], addresses: list[str]
) -> None:
    """The server listens on one of them."""
    server.pages["/a.png"] = (200, {}, b"content")
    names["two.test"] = addresses
    assert fetch(server.url("/a.png", "two.test"), PRIVATE) == b"content"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_next_address_is_tried_if_one_does_not_answer(
    server: Server, names: dict[str, list[str]], silent_address: str
) -> None:
    server.pages["/a.png"] = (200, {}, b"content")
    names["two.test"] = [silent_address, "127.0.0.1"]
    assert fetch(server.url("/a.png", "two.test"), MediaPolicy(private_hosts=True, timeout=3)) == b"content"
    names["one.test"] = [silent_address]
    with pytest.raises(MediaError, match=r"within 0\.5 seconds"):
        fetch(server.url("/a.png", "one.test"), MediaPolicy(private_hosts=True, timeout=0.5))


def test_last_refusal_is_named_if_no_address_answers(server: Server, names: dict[str, list[str]]) -> None:
    names["closed.test"] = ["::1", "127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MediaError, match=r"cannot be fetched: .*refused"):
        fetch(f"http://closed.test:{port}/a.png", PRIVATE)


@pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"]])
def test_host_is_refused_if_any_of_its_addresses_is_private(
    server: Server, names: dict[str, list[str]], addresses: list[str]
) -> None:
    """No connection is opened: the loopback address counts as public here."""
    names["mixed.test"] = addresses
    with pytest.raises(PolicyError, match=r"mixed\.test is at 10\.0\.0\.1, which is not a public address"):
        fetch(server.url("/a.png", "mixed.test"), MediaPolicy(), allow_address=lambda address: address == "127.0.0.1")
    assert server.requested_paths == []


def test_every_address_is_looked_up_once(server: Server, names: dict[str, list[str]]) -> None:
    """The addresses that are connected to are those that were checked."""
    checked: list[str] = []

    def allow_address(address: str) -> bool:
        checked.append(address)
        names["moving.test"] = ["10.0.0.1"]  # what a second lookup would find
        return True

    server.pages["/a.png"] = (200, {}, b"content")
    names["moving.test"] = ["::1", "127.0.0.1"]
    assert fetch(server.url("/a.png", "moving.test"), MediaPolicy(), allow_address=allow_address) == b"content"
    assert checked == ["::1", "127.0.0.1"]


@pytest.mark.parametrize("allowed", ["bücher.test", "BÜCHER.test", "xn--bcher-kva.test", "XN--BCHER-KVA.test"])
def test_allowed_host_may_have_letters_beyond_ascii(server: Server, names: dict[str, list[str]], allowed: str) -> None:
    names["xn--bcher-kva.test"] = ["127.0.0.1"]
    server.pages["/a.png"] = (200, {}, b"content")
    # A location as servers write it: the bytes of UTF-8.
    location = server.url("/a.png", "bücher.test").encode().decode("latin-1")
    server.pages["/there"] = (302, {"location": location}, b"")
    policy = MediaPolicy(private_hosts=True, hosts=("other.test", allowed))
    for host in ("bücher.test", "Bücher.TEST", "xn--bcher-kva.test"):
        assert fetch(server.url("/there", host), policy) == b"content"
    for host in ("bucher.test", "büche.test", "www.bücher.test"):
        with pytest.raises(PolicyError, match="is not among those that the media policy allows"):
            fetch(server.url("/a.png", host), policy)


@pytest.mark.parametrize("allowed", ["127.0.0.1", "[::1]", "::1", "*.test", "a b", "host:80", "ü" * 80, ""])
def test_allowed_host_is_compared_as_a_whole(server: Server, allowed: str) -> None:
    """Also one that no URL can have, which then allows nothing."""
    server.pages["/a.png"] = (200, {}, b"content")
    policy = MediaPolicy(private_hosts=True, hosts=(allowed,))
    if allowed == "127.0.0.1":
        assert fetch(server.url("/a.png"), policy) == b"content"
    else:
        with pytest.raises(PolicyError, match="is not among those that the media policy allows"):
            fetch(server.url("/a.png"), policy)
    if "::1" in allowed:
        with pytest.raises(MediaError, match="cannot be fetched"):
            fetch(server.url("/a.png", "[::1]"), policy)
