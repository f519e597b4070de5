"""`/docs`: the documentation of the interface, without anything from another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from qwen3vl_server import ServerSettings, create_app

from tests.server.test_page_contrast import STYLE, contrast
from tests.support.browser import needs_chromium, open_browser, open_page, wait_until
from tests.support.model_server import ModelServer

KEY = "a-long-random-key"


@pytest.fixture(scope="module")
def served(models: dict[str, Any]) -> Iterator[ModelServer]:
    """With a key, which the page does not need."""
    with ModelServer(create_app(**models, settings=ServerSettings(api_keys=KEY))) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, served: ModelServer) -> Iterator[Any]:
    """At its end, a request to another host and a violation of the policy are failures."""
    with open_page(browser, base_url=served.url) as page:
        yield page


def test_files_of_the_page_are_the_servers_own(served: ModelServer) -> None:
    response = served.client.get("/docs")
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    names = re.findall(r'(?:src|href)="(docs/[^"]+)"', response.text)
    assert names
    for name in names:
        file = served.client.get(f"/{name}")
        assert file.status_code == 200, name
        names += [f"docs/{other}" for other in re.findall(r'from "\./(\w+\.js)"', file.text)]
        assert not re.search(r"https?://(?!www\.w3\.org/)", file.text), name  # the name space of SVG
    assert {"docs/base.css", "docs/schemas.js", "docs/trial.js"} <= set(names)
    assert not re.search(r"https?:", response.text)
    assert served.client.get("/docs/index.html").status_code == 404
    assert served.client.get("/page/app.js").status_code == 401


@needs_chromium
def test_page_shows_all_operations(page: Any, served: ModelServer) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    page.goto("/docs")
    page.wait_for_selector("#operations details")
    shown = page.locator("#operations summary").evaluate_all(
        "(titles) => titles.map((title) => [...title.children].map((child) => child.textContent))"
    )
    expected = [[method.upper(), path] for path, operations in paths.items() for method in operations]
    assert sorted(title[:2] for title in shown) == sorted(expected)
    assert page.locator("#search-page").is_hidden()  # there is no store
    for details in page.locator("#operations details, #types details").all():
        details.locator("summary").click()
        details.locator(".content").wait_for()
    embeddings = page.locator("#post-v1-embeddings")
    row = embeddings.locator("tr", has=page.locator("code", has_text=re.compile("^encoding_format$")))
    assert '"float" | "base64"' in row.inner_text()
    assert "undefined" not in page.inner_text("main")
    assert "[object" not in page.inner_text("main")


@needs_chromium
def test_requests_can_be_tried(page: Any, served: ModelServer) -> None:
    page.goto("/docs#post-v1-embeddings")
    form = page.locator("#post-v1-embeddings .trial")
    form.get_by_role("button", name="Send").click()
    form.locator("text=Status 401, application/json").wait_for()
    assert "invalid_api_key" in form.locator("pre").inner_text()
    page.fill("#key", KEY)
    form.locator("textarea").fill('{"input": "it\'s a red circle", "dimensions": 4}')
    form.get_by_role("button", name="Send").click()
    form.locator("text=Status 200, application/json").wait_for()
    assert '"object": "list"' in form.locator("pre").inner_text()
    form.get_by_role("button", name="As a command").click()
    assert form.locator("pre").inner_text() == (
        f"curl '{served.url}/v1/embeddings' \\\n"
        '  -H "Authorization: Bearer $QWEN3VL_API_KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        """  -d '{"input": "it'\\''s a red circle", "dimensions": 4}'"""
    )
    form.get_by_role("button", name="Example 2").click()
    assert "data:image/png" in form.locator("textarea").input_value()


@needs_chromium
def test_links_open_what_they_lead_to(page: Any) -> None:
    page.goto("/docs#post-v1-rerank")
    page.click("#post-v1-rerank a:has-text('RerankAnswer')")
    page.wait_for_selector("#type-RerankAnswer[open] .content")
    page.click("#type-RerankAnswer a:has-text('RankedResult')")
    page.locator("#type-RankedResult[open] tr", has_text="relevance_score").wait_for()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_and_can_be_read(browser: Any, served: ModelServer, scheme: Any) -> None:
    options = {"base_url": served.url, "viewport": {"width": 390, "height": 800}, "color_scheme": scheme}
    with open_page(browser, **options) as page:
        page.goto("/docs#post-v1-rerank")
        page.wait_for_selector("#post-v1-rerank .content")
        assert page.locator("html").evaluate("(element) => element.scrollWidth") == 390

        def style(selector: str, name: str) -> Any:
            return page.locator(selector).first.evaluate(STYLE, name)

        assert contrast(style("a", "color"), style("body", "backgroundColor")) >= 4.5
        surface = style("details", "backgroundColor")
        for selector in ("summary .muted", "td", "td a", "th .muted"):
            assert contrast(style(selector, "color"), surface) >= 4.5, selector
        assert contrast(style(".method", "color"), style(".method", "backgroundColor")) >= 4.5


@needs_chromium
def test_server_that_does_not_describe_itself(page: Any) -> None:
    page.route("**/openapi.json", lambda route: route.fulfill(status=502, body="<script>alert(1)</script>"))
    page.goto("/docs")
    wait_until(lambda: page.locator("#error").is_visible(), page)
    assert page.inner_text("#error") == "The description of the server cannot be read: status 502."
