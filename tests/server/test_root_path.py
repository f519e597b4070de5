"""A server that a proxy has below a path: its pages, and the URLs that it returns."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from qwen3vl import Embedder
from qwen3vl.cli import main
from tests.server.test_serve import needs_entry_point
from tests.support.browser import needs_chromium, open_browser, open_page, wait_for
from tests.support.engines import assert_close
from tests.support.library_server import LibraryServer, serve_library
from tests.support.proxy import Proxy

ROOT_PATH = "/apps/models"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    with serve_library(tmp_path_factory.mktemp("root"), root_path=ROOT_PATH) as library:
        yield library


@pytest.fixture(scope="module")
def origin(library: LibraryServer) -> Iterator[str]:
    """Where the proxy is."""
    with Proxy(library.server.port, root_path=ROOT_PATH) as proxy:
        yield f"http://127.0.0.1:{proxy.port}"


def test_urls_that_are_returned_lead_through_the_proxy(origin: str, library: LibraryServer) -> None:
    with httpx.Client(base_url=f"{origin}{ROOT_PATH}", timeout=120) as client:
        (hit,) = client.post("/v1/search", json={"text": "a star", "limit": 1, "filter": {"kind": "picture"}}).json()[
            "hits"
        ]
        document = client.get(f"/v1/documents/{hit['id']}").json()
        assert hit["media"] == document["media"]
        assert hit["media"].keys() == {"thumbnail", "image"}
        for url in hit["media"].values():
            response = httpx.get(f"{origin}{url}")
            assert (response.status_code, response.headers["Content-Type"].partition("/")[0]) == (200, "image")
        assert client.get("/openapi.json").json()["servers"] == [{"url": ROOT_PATH}]
        redirected = client.get("/docs/")
        assert redirected.headers["Location"].endswith(f"{ROOT_PATH}/docs")
        assert client.get("/metrics").text.count('path="/v1/search"')


def test_models_behind_the_proxy(origin: str, tiny_embedder: Embedder) -> None:
    with Embedder(f"{origin}{ROOT_PATH}") as embedder:
        assert_close(embedder.embed(["a red star"]), tiny_embedder.embed(["a red star"]))


def test_proxy_that_does_not_remove_the_path_is_told(library: LibraryServer) -> None:
    response = library.server.client.get(f"{ROOT_PATH}/v1/models")
    assert response.status_code == 404
    assert response.json()["message"] == f"Not Found; {ROOT_PATH} is still in the path: the proxy has to remove it"


@needs_chromium
def test_pages_behind_the_proxy(origin: str) -> None:
    with open_browser() as browser, open_page(browser) as page:
        page.goto(f"{origin}{ROOT_PATH}/?q=a+star&kind=picture")
        page.wait_for_selector("body:not(.busy) .card")
        images = "[...document.querySelectorAll('.card:first-child img')]"
        wait_for(page, f"{images}.length === 1 && {images}.every((image) => image.naturalWidth > 0)")
        page.goto(f"{origin}{ROOT_PATH}/docs")
        block = page.locator(".opblock", has=page.locator('[data-path="/v1/models"]'))
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        block.locator(".live-responses-table .response-col_status", has_text="200").wait_for()


@needs_entry_point
@pytest.mark.parametrize("path", ["models", "/a b", "/a?b", "http://localhost/models", "//", "/modèles"])
def test_what_is_no_path_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--embedder", "tiny", "--root-path", path]) == 2
    assert "give the path alone, as /models" in " ".join(capsys.readouterr().out.split())
