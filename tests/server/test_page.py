"""The search page in Chromium: by mouse and by keys, on a screen and a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Document, Embedder, open_store
from qwen3vl.stores import Point
from tests.support.browser import needs_chromium, open_browser, open_page, wait_for
from tests.support.fake_embedder import fake_vector
from tests.support.library_server import LibraryServer, serve_library
from tests.support.model_server import ModelServer
from tests.support.sample_library import MOVER, SLIDE, STAR

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    with serve_library(tmp_path_factory.mktemp("page"), layout={"hybrid": True}) as library:
        yield library


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, library: LibraryServer) -> Iterator[Any]:
    with open_page(browser, base_url=library.server.url) as page:
        yield page


def open_start(page: Any) -> None:
    """Open the page, and wait until it listens."""
    page.goto("/")
    page.wait_for_selector("#library:not(:empty)")


def search(page: Any, words: str) -> None:
    page.fill("#words", words)
    page.press("#words", "Enter")
    page.wait_for_selector("body:not(.busy) .card")


def names(page: Any) -> list[str]:
    return list(page.locator(".card .name").all_inner_texts())


def shown_names(library: LibraryServer, **body: Any) -> list[str]:
    return [Path(hit["source"]).name for hit in library.search(limit=24, **body)["hits"]]


def test_search_shows_the_hits_of_the_api(page: Any, library: LibraryServer) -> None:
    open_start(page)
    assert page.locator("#welcome").is_visible()
    assert page.locator("#library").inner_text() == f"{library.store.count()} documents"
    search(page, STAR.caption())
    # Scores may be equal but for rounding.
    assert sorted(names(page)) == sorted(shown_names(library, text=STAR.caption(), mode="hybrid"))
    assert re.fullmatch(r"24 hits by vectors and words, reranked in \d+\.\d\d s", page.inner_text("#status"))
    assert page.locator(".card").first.locator(".pill").all_inner_texts()[0].endswith(" reranker")
    assert "RERANKER" in page.locator(".pill").first.get_attribute("title").upper()
    wait_for(page, "[...document.querySelectorAll('.card:first-child img')].every((i) => i.naturalWidth > 0)")


def test_switches_and_filters_and_links(page: Any, library: LibraryServer) -> None:
    open_start(page)
    search(page, "a red star")
    page.click("#hybrid-label")
    page.wait_for_selector("#status:has-text('by vectors, reranked')")
    page.click("#rerank-label")
    page.wait_for_selector("#status:not(:has-text('reranked'))")
    assert names(page) == shown_names(library, text="a red star", mode="dense", rerank=False)
    page.click("text=Pages")
    wait_for(page, "document.querySelectorAll('.card').length === 2")
    assert page.url.endswith("?q=a+red+star&kind=page&hybrid=0&rerank=0")
    page.click("text=Pages")
    page.fill("#source", "slides")
    page.wait_for_selector("#sources option", state="attached")
    page.fill("#source", str(library.files / "star.png"))
    page.press("#source", "Enter")
    wait_for(page, "document.querySelectorAll('.card').length === 1")
    link = page.url
    page.go_back()
    wait_for(page, "document.querySelectorAll('.card').length === 24")
    page.goto(link)
    page.wait_for_selector(".card")
    assert names(page) == ["star.png"]
    assert not page.locator("#rerank").is_checked()


def test_more_hits(page: Any, library: LibraryServer) -> None:
    page.goto("/?q=a+star&rerank=0")
    page.click("#more")
    wait_for(page, "document.querySelectorAll('.card').length > 24")
    assert page.url.endswith("n=48")
    assert page.evaluate("document.activeElement.closest('.card') === document.querySelectorAll('.card')[24]")


def test_more_ends_before_the_limit_of_the_server(browser: Any) -> None:
    documents = [Document(f"{number}.txt", "text", text=f"text {number}") for number in range(1001)]
    with Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder, closing(open_store(":memory:")) as store:
        recipe = embedder.recipe
        store.create(recipe)
        vectors = [fake_vector(document.text, recipe.dimensions) for document in documents]
        ids = [store.point_id(document, recipe) for document in documents]
        store.upsert([Point(*fields) for fields in zip(ids, vectors, documents, strict=True)])
        app = create_app(embedder=embedder, store=store)
        with ModelServer(app) as server, open_page(browser, base_url=server.url) as page:
            page.goto("/?q=a&n=936")
            page.click("#more")
            wait_for(page, "document.querySelectorAll('.card').length === 960")
            assert page.locator("#more").is_hidden()
            assert page.locator("#error").is_hidden()


def test_dropped_pasted_and_chosen_pictures(page: Any, library: LibraryServer) -> None:
    path = library.files / "star.png"
    give = """async ([selector, type, name, bytes, kind]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, {type: kind}));
        const init = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
        const make = type === "paste" ? ClipboardEvent : DragEvent;
        document.querySelector(selector).dispatchEvent(new make(type, init));
    }"""
    content = list(path.read_bytes())
    open_start(page)
    page.evaluate(give, ["main", "dragenter", "star.png", content, "image/png"])
    assert page.locator("#drop").is_visible()
    page.evaluate(give, ["main", "drop", "star.png", content, "image/png"])
    page.wait_for_selector("body:not(.busy) .card")
    assert page.locator("#drop").is_hidden()
    assert names(page)[0] == "star.png"
    page.wait_for_selector("#chip canvas")
    page.fill("#words", "a blue ring")
    page.press("#words", "Enter")
    page.wait_for_selector("#status:has-text('by vectors and words')")
    page.click("#chip-remove")
    page.wait_for_selector("#chip", state="hidden")
    page.evaluate(give, ["#words", "paste", "pasted.png", content, "image/png"])
    page.wait_for_selector("#chip canvas[title='pasted.png']")
    page.go_back()
    page.wait_for_selector("#chip", state="hidden")
    page.set_input_files("#file", path)
    page.wait_for_selector("#chip canvas[title='star.png']")
    page.evaluate(give, ["main", "drop", "notes.pdf", [1], "application/pdf"])
    assert "That is no picture" in page.inner_text("#error")
    page.evaluate(give, ["main", "drop", "broken.png", [1, 2], "image/png"])
    page.wait_for_selector("#error:has-text('the query')")


def test_clip_plays_from_its_second(page: Any, library: LibraryServer) -> None:
    requests: list[Any] = []
    page.on("response", lambda response: requests.append(response) if "/video" in response.url else None)
    page.goto(f"/?q={quote(MOVER.caption())}&kind=clip")
    page.click(".card:has-text('mover.mp4') .open")
    wait_for(page, "document.querySelector('video')?.currentTime > 0.3")
    assert page.locator("video").evaluate("(video) => video.src").endswith("#t=0,4")
    assert {response.status for response in requests} == {206}
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert page.locator("video").count() == 0
    # A part in the middle of a video.
    page.route("**/v1/search", lambda route: part_of_a_video(route))
    page.click("#rerank-label")
    page.wait_for_selector(".card:has-text('0:02–0:03')")
    page.click(".card .open")
    wait_for(page, "document.querySelector('video')?.currentTime > 2.05")
    assert page.locator("video").evaluate("(video) => video.src").endswith("#t=2,3.5")


def part_of_a_video(route: Any) -> None:
    """Answer as for a library with longer videos: the first hit is the part from the second 2 to 3.5."""
    answer = route.fetch()
    content = answer.json()
    for hit in content.get("hits", ()):
        hit["seconds"] = [2, 3.5]
    route.fulfill(response=answer, json=content)


def test_page_of_a_pdf_opens_at_full_size(page: Any, library: LibraryServer) -> None:
    page.goto(f"/?q={quote(SLIDE.caption())}&kind=page")
    page.click(".card:has-text('page 2') .open")
    wait_for(page, "document.querySelector('#stage img')?.naturalWidth === 1684")
    assert page.inner_text("#viewer-name") == "slides.pdf, page 2"
    fitted = page.locator("#stage img").bounding_box()["width"]
    page.click(".zoom")
    assert page.locator("#stage img").bounding_box()["width"] == 1684 > fitted
    assert page.locator("#viewer-scores .score").count() == 2
    page.click("#viewer-only")
    page.wait_for_selector("#viewer", state="hidden")
    assert page.input_value("#source") == str(library.files / "slides.pdf")


def test_more_like_this(page: Any, library: LibraryServer) -> None:
    point_id = library.point("star.png")
    page.goto(f"/?hit={point_id}")
    page.wait_for_selector("#viewer[open]")
    assert page.inner_text("#viewer-name") == "star.png"
    page.click("#viewer-like")
    page.wait_for_selector("body:not(.busy) .card")
    assert sorted(names(page)) == sorted(shown_names(library, like=point_id))
    assert page.url.endswith(f"?like={point_id}")
    assert page.inner_text("#chip-name") == "like star.png"
    page.hover(".card")
    page.click(".card:first-child .like")
    wait_for(page, f"!location.search.includes('{point_id}')")
    page.go_back()
    page.wait_for_selector("#chip-name:has-text('like star.png')")


def test_keyboard_alone(page: Any) -> None:
    def focused() -> Any:
        return page.evaluate("document.activeElement.id || document.activeElement.className")

    def index() -> Any:
        return page.evaluate("[...document.querySelectorAll('.open')].indexOf(document.activeElement)")

    open_start(page)
    wait_for(page, "document.activeElement.id === 'words'")
    page.keyboard.type("a red star")
    page.keyboard.press("Enter")
    page.wait_for_selector("body:not(.busy) .card")
    page.keyboard.press("ArrowDown")
    assert index() == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    columns = index() - 1
    assert columns == page.evaluate(
        "getComputedStyle(document.querySelector('.results')).gridTemplateColumns.split(' ').length"
    )
    page.keyboard.press("ArrowUp")
    assert index() == 1
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    opened = page.inner_text("#viewer-name")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-position") == "3 of 24"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#viewer-name") == opened
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    assert index() == 1
    page.keyboard.press("Tab")
    assert focused() == "like"
    page.keyboard.press("Enter")
    page.wait_for_selector("#chip:not([hidden])")
    wait_for(page, "document.activeElement.className === 'open'")
    assert index() == 0
    page.keyboard.press("ArrowUp")
    assert focused() == "words"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert focused() == "words"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("/")
    assert (focused(), page.input_value("#words")) == ("words", "")


def test_errors_are_shown_and_go_away(page: Any, library: LibraryServer) -> None:
    open_start(page)
    page.route("**/v1/search", lambda route: route.abort())
    page.fill("#words", "a star")
    page.press("#words", "Enter")
    page.wait_for_selector("#error:has-text('The server cannot be reached')")
    page.unroute("**/v1/search")
    page.press("#words", "Enter")
    page.wait_for_selector(".card")
    assert page.locator("#error").is_hidden()
    page.goto("/?like=no-point")
    page.wait_for_selector("#error:has-text('no point')")
    page.goto("/?q=a&source=nowhere")
    page.wait_for_selector("#status:has-text('Nothing found')")


def test_media_that_are_not_shown(page: Any, library: LibraryServer) -> None:
    page.route("**/v1/media/**", lambda route: route.fulfill(status=403, json={"message": "no"}))
    page.goto("/?q=a+star")
    page.click(".open:has(.missing)")
    page.wait_for_selector(".failure:has-text('not shown by this server')")


def test_page_asks_for_a_key(browser: Any, tmp_path: Path) -> None:
    settings = ServerSettings(api_keys=("a-key",))
    with serve_library(tmp_path, settings=settings) as library, open_page(browser, base_url=library.server.url) as page:
        page.goto("/?q=a+star")
        page.fill("#key-value", "wrong")
        page.press("#key-value", "Enter")
        page.wait_for_selector("#key-error:has-text('not accepted')")
        page.fill("#key-value", "a-key")
        page.press("#key-value", "Enter")
        page.wait_for_selector(".card")
        wait_for(page, "document.querySelector('.card img').naturalWidth > 0")
        assert page.evaluate("Object.values(sessionStorage)") == ["a-key"]
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.reload()
        page.wait_for_selector(".card")
        page.click("text=Clips")
        page.click(".card:has-text('mp4') .open")
        wait_for(page, "document.querySelector('video')?.currentTime > 0")
        # Without an index of words there is no hybrid search.
        assert page.locator("#hybrid").is_disabled()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(browser: Any, library: LibraryServer, scheme: str) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True, "is_mobile": True}
    with open_page(browser, base_url=library.server.url, **options) as page:
        page.goto("/?q=a+red+star")
        page.wait_for_selector(".card")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.tap(".card:nth-child(2) .open")
        page.wait_for_selector("#viewer[open]")
        box = page.locator("#viewer").bounding_box()
        assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 390, 844)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 300) == (scheme == "dark")
        page.tap("#viewer-close")
        page.wait_for_selector("#viewer", state="hidden")
