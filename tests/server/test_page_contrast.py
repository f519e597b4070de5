"""Contrast of the search page, as WCAG 2.2 has it: 4.5 for text (1.4.3), 3 for what shows a state (1.4.11)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium, open_browser, open_page
from tests.support.library_server import serve_library

pytestmark = needs_chromium

STYLE = "(element, name) => getComputedStyle(element)[name]"


def luminance(color: str) -> float:
    """The relative luminance of a color such as `rgb(20, 20, 40)`."""
    assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", color), color
    shares = [int(value) / 255 for value in re.findall(r"\d+", color)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_states_can_be_seen(tmp_path: Path, scheme: str) -> None:
    with (
        serve_library(tmp_path, layout={"hybrid": True}) as library,
        open_browser() as browser,
        open_page(browser, base_url=library.server.url, color_scheme=scheme) as page,
    ):
        page.goto("/?q=a+star&hybrid=0&rerank=0&kind=picture")
        page.wait_for_selector("body:not(.busy) .card")

        def style(selector: str, name: str) -> Any:
            return page.locator(selector).first.evaluate(STYLE, name)

        ground = style("body", "backgroundColor")
        for selector in ("#library", "#status", ".switch"):
            assert contrast(style(selector, "color"), ground) >= 4.5, selector
        card = style(".card", "backgroundColor")
        for selector in (".name", ".scores", ".pill.strong b"):
            assert contrast(style(selector, "color"), card) >= 4.5, selector
        for selector in (".toggle input:checked + span", ".toggle input:not(:checked) + span"):
            assert contrast(style(selector, "color"), style(selector, "backgroundColor")) >= 4.5, selector
        assert not page.locator("#hybrid").is_checked()
        assert contrast(style("#hybrid-label i", "backgroundColor"), ground) >= 3
