"""Servers without keys refuse what a browser sends for the page of another site."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server, gethostname
from typing import Any

import httpx
import pytest
import uvicorn
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from qwen3vl_server.serving import _Server
from rich.console import Console

from qwen3vl import Embedder
from qwen3vl.cli import main
from tests.server.test_serve import needs_entry_point
from tests.support.browser import needs_chromium, open_browser, wait_until
from tests.support.http_server import Server
from tests.support.library_server import serve_library
from tests.support.model_server import ModelServer

BODY = {"input": "a"}


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder:
        yield embedder


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:1", "[::1]:80", "[::ffff:127.0.0.1]", "localhost", "LocalHost:8000", "a.localhost", "127.8.8.8"),
        *("0.0.0.0:8000", "[::]:8000"),
    ],
)
def test_names_of_the_loopback_address(tiny_server: ModelServer, host: str) -> None:
    assert tiny_server.post("/v1/embeddings", BODY, Host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost"),
        *("192.0.2.1", "[2001:db8::1]:80", "", "[::1", "127.0.0.1@evil.example", "127.1", "0x7f000001"),
    ],
)
def test_other_names_are_refused(tiny_server: ModelServer, host: str) -> None:
    for response in (
        tiny_server.post("/v1/embeddings", BODY, Host=host),
        tiny_server.client.get("/v1/models", headers={"Host": host}),
    ):
        assert response.status_code == 421, response.text
        assert response.json()["error"]["code"] == "host_not_allowed"
        assert "--allowed-host" in response.json()["message"]


def test_names_that_are_allowed(embedder: Embedder) -> None:
    settings = ServerSettings(allowed_hosts=("Models.example", "192.0.2.1"))
    with ModelServer(create_app(embedder=embedder, settings=settings)) as server:
        for host in ("models.example", "MODELS.example:443", "models.example.", "192.0.2.1", "localhost"):
            assert server.post("/v1/embeddings", BODY, Host=host).status_code == 200
        assert server.post("/v1/embeddings", BODY, Host="other.example").status_code == 421


def test_servers_with_keys_are_used_from_everywhere(embedder: Embedder) -> None:
    with ModelServer(create_app(embedder=embedder, settings=ServerSettings(api_keys="a-key"))) as server:
        headers = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert server.post("/v1/embeddings", BODY, **headers).status_code == 401
        assert server.post("/v1/embeddings", BODY, **headers, Authorization="Bearer a-key").status_code == 200


async def test_connections_to_other_addresses(embedder: Embedder) -> None:
    """Which names they have is not known, unless it is said."""
    for allowed, statuses in (((), (200, 200)), (("models.example",), (200, 421))):
        app = create_app(embedder=embedder, settings=ServerSettings(allowed_hosts=allowed))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://192.0.2.7:8000") as client:
            found = [await client.get("/v1/models", headers={"Host": host}) for host in ("192.0.2.7:8000", "box.lan")]
            assert tuple(response.status_code for response in found) == statuses


async def test_address_of_ipv4_at_a_socket_of_ipv6(embedder: Embedder) -> None:
    app = create_app(embedder=embedder, settings=ServerSettings(allowed_hosts=("models.example",)))
    url = "http://[::ffff:192.0.2.7]:8000"  # as getsockname has it
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url) as client:
        for host, status in (("192.0.2.7:8000", 200), ("[::ffff:192.0.2.7]", 200), ("192.0.2.8:8000", 421)):
            assert (await client.get("/v1/models", headers={"Host": host})).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_address_that_is_printed_can_be_used(embedder: Embedder, host: str) -> None:
    """Also that of a server that listens on all addresses."""
    try:
        listening = create_server((host, 0), family=AF_INET6 if ":" in host else AF_INET)
    except OSError:
        pytest.skip("this machine has no IPv6")
    out = StringIO()
    config = uvicorn.Config(create_app(embedder=embedder), log_config=None)
    config.load()
    server = _Server(config, Console(file=out), has_page=True)
    server.lifespan = config.lifespan_class(config)
    with listening:
        await server.startup([listening])
        try:
            serving, page, others = out.getvalue().splitlines()
            assert page == f"search page: {serving.removeprefix('serving at ')}/"
            assert others.startswith(f"from other machines: http://{gethostname()}:{listening.getsockname()[1]}, or ")
            async with httpx.AsyncClient(base_url=serving.removeprefix("serving at ")) as client:
                assert (await client.get("/v1/models")).status_code == 200
        finally:
            await server.shutdown([listening])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8000", "Host": "localhost:8000"}, 200),
        ({"Origin": "https://localhost", "Host": "localhost"}, 200),
        ({"Origin": "http://localhost:9000", "Host": "localhost:8000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://models.example"}, 200),  # a proxy has changed `Host`
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost", "Host": "localhost"}, 403),
    ],
)
def test_requests_of_other_origins_are_refused(tiny_server: ModelServer, headers: dict[str, str], status: int) -> None:
    response = tiny_server.post("/v1/embeddings", BODY, **headers)
    assert response.status_code == status, response.text
    if status == 403:
        assert response.json()["error"]["code"] == "other_site"
    # Reading has no effect, and another origin is not shown the answer.
    assert tiny_server.client.get("/v1/models", headers=headers).status_code == 200
    assert tiny_server.client.delete("/v1/documents", headers=headers).status_code == (403 if status == 403 else 404)


@needs_entry_point
def test_hosts_are_names(capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("http://models.example", "models.example:8000", "*", ""):
        assert main(["serve", "--embedder", "tiny", "--allowed-host", host]) == 2
        assert "without scheme and port" in " ".join(capsys.readouterr().out.split())


@needs_chromium
def test_pages_of_other_sites_in_a_browser(tmp_path: Path) -> None:
    with (
        Server() as other,
        serve_library(tmp_path) as library,
        open_browser("--host-resolver-rules=MAP rebound.example 127.0.0.1") as browser,
    ):
        context = browser.new_context()
        page = context.new_page()
        port = library.server.port
        assert page.goto(f"http://rebound.example:{port}/").status == 421
        assert page.goto(library.server.url).status == 200
        other.pages["/"] = (200, {"Content-Type": "text/html"}, b"<!doctype html><p>another site")
        page.goto(other.url("/"))
        statuses: list[int] = []
        page.on("response", lambda response: statuses.append(response.status))
        send: Any = """async (url) => {
            const form = new FormData();
            form.append("file", new File(["a text"], "planted.txt"));
            await fetch(url, {method: "POST", mode: "no-cors", body: form});
        }"""
        page.evaluate(send, f"{library.server.url}/v1/documents")
        wait_until(lambda: statuses, page)
        assert statuses == [403]
        assert library.server.client.get("/v1/documents/jobs").json() == {"jobs": []}
        context.close()
