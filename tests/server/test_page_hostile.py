"""The search page in Chromium with hostile names, texts, metadata, queries and errors: they are shown as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.browser import needs_chromium, open_browser, open_page, wait_until
from tests.support.library_server import LibraryServer, serve_library

pytestmark = needs_chromium

PAYLOADS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    '"><svg onload=alert(3)>',
    "javascript:alert(4)",
    "'-alert(5)-'",
    "{{7*7}}${alert(6)}",
)
LONG = "n" * 900


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    with serve_library(tmp_path_factory.mktemp("hostile"), layout={"hybrid": True}) as library:
        star = (library.files / "star.png").read_bytes()
        files = [("x.png", star)] * len(PAYLOADS)
        files += [("x.txt", f"hostile {payload}".encode()) for payload in PAYLOADS]
        sources = [f"{payload}{suffix}" for suffix in (".png", ".txt") for payload in PAYLOADS]
        assert library.upload(*files, data={"source": sources})["failed"] == []
        library.upload(("captioned.png", star), data={"metadata": '{"<b>key</b>": "<script>alert(7)</script>"}'})
        library.upload(("x.png", star), data={"source": LONG, "metadata": json.dumps({LONG: LONG})})
        yield library


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, library: LibraryServer) -> Iterator[Any]:
    with open_page(browser, base_url=library.server.url) as page:
        yield page


@pytest.mark.parametrize("payload", PAYLOADS)
def test_names_texts_and_queries_are_text(page: Any, payload: str) -> None:
    """A script that ran, or a policy that had to stop one, would be among the problems of the page."""
    page.goto(f"/?q={quote(payload)}&source={quote(payload)}&like=&kind={quote(payload)}&n={quote(payload)}")
    page.wait_for_selector("#status:has-text('Nothing found')")
    assert page.input_value("#words") == payload
    assert page.input_value("#source") == payload
    for suffix in (".png", ".txt"):
        page.goto(f"/?q=hostile&source={quote(payload + suffix)}")
        page.click(".card .open")
        assert payload in page.inner_text("#viewer-name") + page.inner_text("#viewer-source")
        if suffix == ".txt":
            assert page.inner_text("#stage") == f"hostile {payload}"
        page.click("#viewer-like")
        page.wait_for_selector("#chip-name:has-text('like ')")
        page.wait_for_selector("body:not(.busy) .card")
        assert page.locator("main script, main svg[onload], [onerror]").count() == 0
    page.goto(f"/?hit={quote(payload)}")
    page.wait_for_selector("#error:not([hidden])")


def test_metadata_and_errors_are_text(page: Any, library: LibraryServer) -> None:
    page.goto("/?q=a&source=captioned.png")
    page.click(".card .open")
    assert page.inner_text("#viewer-metadata").split("\n") == ["<b>key</b>", "<script>alert(7)</script>"]
    page.route("**/v1/search", lambda route: route.fulfill(status=400, json={"message": PAYLOADS[0]}))
    page.goto("/?q=b")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error") == PAYLOADS[0]


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_and_keys_widen_nothing(browser: Any, library: LibraryServer, width: int) -> None:
    options = {"base_url": library.server.url, "viewport": {"width": width, "height": 800}}
    with open_page(browser, **options) as page:
        page.goto(f"/?q=a&source={LONG}")
        page.wait_for_selector(".card")
        assert page.locator("html").evaluate("(element) => element.scrollWidth") == width
        page.click(".card .open")
        page.wait_for_selector("#viewer-metadata dd")
        assert page.locator(".details").evaluate("(element) => element.scrollWidth <= element.clientWidth")
        assert page.locator("#viewer-metadata dd").bounding_box()["width"] > 100


def test_policy_stops_scripts(browser: Any, library: LibraryServer) -> None:
    """What the other tests rely on: an injected script does not run, and is a problem."""
    policy = httpx.get(library.server.url).headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert "script-src 'self'" in policy
    assert not re.search(r"unsafe|\*|http|blob:|data:", "; ".join(policy))
    for script, message in (
        ("document.body.innerHTML = '<p>'", "TrustedHTML"),
        ("document.body.setAttribute('onclick', 'alert(1)')", "TrustedScript|Content Security Policy"),
        ("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:1/'}))", "Content Security Policy"),
        ("document.body.append(Object.assign(new Image(), {src: 'data:image/png,'}))", "Content Security Policy"),
    ):
        with pytest.raises(AssertionError, match=message):
            run_in_page(browser, library.server.url, script)


def run_in_page(browser: Any, url: str, script: str) -> None:
    with open_page(browser) as page:
        page.goto(url)
        page.evaluate(f"() => {{ try {{ {script}; }} catch (error) {{ console.error(String(error)); }} }}")
        wait_until(lambda: page.problems, page)
