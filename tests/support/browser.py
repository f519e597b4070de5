"""A page in Chromium, and everything that must not happen in it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium")
TIMEOUT_MS = 180_000
"""Generous, since other processes may take the processors."""


@contextmanager
def open_browser(*arguments: str) -> Iterator[Any]:
    """Start Chromium, with arguments of its command line."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(arguments), timeout=TIMEOUT_MS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Any, **options: Any) -> Iterator[Any]:
    """Open a page in a context of its own; at the end, check that no script failed and no policy was violated."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: _dismiss(dialog, problems))
    page.on("request", lambda request: _check_origin(request.url, problems))
    page.problems = problems
    yield page
    context.close()
    # An answer with an error status is logged by Chromium itself; the tests that cause one look at what is shown.
    remaining = [text for text in problems if not text.startswith("Failed to load resource")]
    assert not remaining, remaining


def wait_for(page: Any, expression: str) -> None:
    """Wait until an expression is true. Playwright's own `wait_for_function` needs a policy that allows `eval`."""
    wait_until(lambda: page.evaluate(expression), page, expression)


def wait_until(condition: Callable[[], Any], page: Any, name: str = "") -> None:
    """Wait until a condition holds, while the page's events are handled."""
    give_up = time.monotonic() + TIMEOUT_MS / 1000
    while not condition():
        assert time.monotonic() < give_up, name
        page.wait_for_timeout(30)


def _check_origin(url: str, problems: list[str]) -> None:
    if not url.startswith(("http://127.0.0.1:", "data:,", "about:")):
        problems.append(f"a request to {url}")


def _dismiss(dialog: Any, problems: list[str]) -> None:
    problems.append(f"a dialog: {dialog.message}")
    dialog.dismiss()
