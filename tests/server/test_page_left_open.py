"""The search page in a tab that was left open for hours, at a server with keys, whose URLs of media expire."""

from __future__ import annotations

import time
from pathlib import Path

from qwen3vl_server import ServerSettings

from tests.support.browser import needs_chromium, open_browser, open_page, wait_for
from tests.support.library_server import serve_library

pytestmark = needs_chromium

HOURS = 3


def test_picture_that_is_opened_later(tmp_path: Path) -> None:
    with (
        serve_library(tmp_path, settings=ServerSettings(api_keys=("a-key",)), reranked=False) as library,
        open_browser() as browser,
        open_page(browser, base_url=library.server.url) as page,
    ):
        page.goto("/?q=a+star&kind=picture")
        page.fill("#key-value", "a-key")
        page.press("#key-value", "Enter")
        page.wait_for_selector("body:not(.busy) .card")
        library.server.app.state.library.signer._now = lambda: time.time() + 3600 * HOURS
        page.evaluate(f"() => {{ const now = Date.now; Date.now = () => now() + 3600 * 1000 * {HOURS}; }}")
        page.click(".card .open")
        shown = "document.querySelector('#stage img')?.naturalWidth > 0"
        wait_for(page, f"{shown} || document.querySelector('#stage .failure') !== null")
        assert page.evaluate(shown)
