"""`/docs`: the documentation of the interface, without anything from another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from qwen3vl_server import ServerSettings, create_app

from tests.support.browser import needs_chromium, open_browser, open_page
from tests.support.model_server import ModelServer

KEY = "a-long-random-key"


@pytest.fixture(scope="module")
def served(models: dict[str, Any]) -> Iterator[ModelServer]:
    """With a key, which the page does not need."""
    with ModelServer(create_app(**models, settings=ServerSettings(api_keys=KEY))) as server:
        yield server


@pytest.fixture
def page(served: ModelServer) -> Iterator[Any]:
    """At its end, a request to another host and a violation of the policy are failures."""
    with open_browser() as browser, open_page(browser, base_url=served.url) as page:
        yield page


def test_files_of_the_page_are_the_servers_own(served: ModelServer) -> None:
    response = served.client.get("/docs")
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; connect-src 'self'; ")
    names = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert len(names) == 3
    for name in names:
        file = served.client.get(f"/{name}")
        assert file.status_code == 200, name
        again = served.client.get(f"/{name}", headers={"If-None-Match": file.headers["ETag"]})
        assert again.status_code == 304
    assert not re.search(r"https?:", response.text)
    assert served.client.get("/docs/main.py").status_code == 404
    assert served.client.get("/page/app.js").status_code == 401


def test_key_is_part_of_the_description(served: ModelServer, models: dict[str, Any]) -> None:
    description = served.client.get("/openapi.json").json()
    assert description["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    paths = description["paths"]
    assert paths["/v1/embeddings"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in paths["/health"]["get"]
    assert "securitySchemes" not in create_app(**models).openapi()["components"]


@needs_chromium
def test_page_shows_all_operations_and_sends_requests(page: Any, served: ModelServer) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    page.goto("/docs")
    page.wait_for_selector(".opblock")
    shown = page.locator(".opblock-summary").evaluate_all(
        "(rows) => rows.map((row) => [row.querySelector('.opblock-summary-method').textContent,"
        " row.querySelector('.opblock-summary-path').dataset.path])"
    )
    expected = [[method.upper(), path] for path, operations in paths.items() for method in operations]
    assert sorted(shown) == sorted(expected)

    block = page.locator(".opblock", has=page.locator('[data-path="/v1/embeddings"]'))
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.locator("textarea").first.fill('{"input": "a red circle", "dimensions": 4}')
    block.get_by_role("button", name="Execute").click()
    response = block.locator(".live-responses-table .response-col_description")
    response.locator("text=invalid_api_key").first.wait_for()

    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").fill(KEY)
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-btn-wrapper").get_by_role("button", name="Close").click()
    block.get_by_role("button", name="Execute").click()
    response.locator("text=text_embedding").or_(response.locator("text=embedding")).first.wait_for()
    assert block.locator(".live-responses-table .response-col_status").last.inner_text().startswith("200")
