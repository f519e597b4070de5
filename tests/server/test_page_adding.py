"""Adding documents on the search page, in Chromium: by keys, by drop, with and without a key, and files that fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server import ServerSettings

from tests.support.browser import needs_chromium, open_browser, open_page, wait_for, wait_until
from tests.support.library_server import LibraryServer, serve_library

pytestmark = needs_chromium

HOSTILE = "<img src=x onerror=alert(1)>.txt"
DROP = """([type, files]) => {
    const data = new DataTransfer();
    for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
    const init = {bubbles: true, cancelable: true, dataTransfer: data};
    document.querySelector("#add-drop").dispatchEvent(new DragEvent(type, init));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    settings = ServerSettings(max_upload_bytes=2**19)
    with serve_library(tmp_path_factory.mktemp("adding"), settings=settings) as library:
        yield library


@pytest.fixture
def page(browser: Any, library: LibraryServer) -> Iterator[Any]:
    with open_page(browser, base_url=library.server.url) as page:
        page.goto("/")
        page.wait_for_selector("#library:not(:empty)")
        yield page


def texts(page: Any, selector: str) -> list[str]:
    return list(page.locator(selector).all_inner_texts())


def test_files_are_chosen_by_keys_and_found(page: Any, library: LibraryServer) -> None:
    before = library.store.count()
    new = {"new.png": "star.png", "new.pdf": "slides.pdf", "new.mp4": "mover.mp4"}
    files = [
        {"name": name, "mimeType": "", "buffer": (library.files / former).read_bytes()} for name, former in new.items()
    ]
    files.append({"name": "new.md", "mimeType": "", "buffer": b"A note on the tides of the harbour."})
    choosers: list[Any] = []
    page.on(
        "filechooser", lambda chooser: choosers.append(chooser)
    )  # from here on, Chromium shows no chooser of its own
    page.focus("#open-add")
    page.keyboard.press("Enter")
    wait_for(page, "document.activeElement.id === 'add-pick'")
    page.keyboard.press("Enter")
    wait_until(lambda: choosers, page, "a file chooser")
    choosers[0].set_files(files)
    page.wait_for_selector("#add-status:has-text('4 of 4 files added')")
    assert texts(page, "#add-list .add-name") == [file["name"] for file in files]
    assert texts(page, "#add-list .done span") == [
        *("added, 1 document", "added, 2 documents", "added, 1 document", "added, 1 document")
    ]
    assert page.locator("progress").count() == 0
    page.keyboard.press("Escape")
    page.wait_for_selector(f"#library:has-text('{before + 5} documents')")
    assert page.evaluate("document.activeElement.id") == "open-add"
    page.fill("#words", "a note on the tides of the harbour")
    page.press("#words", "Enter")
    page.wait_for_selector(".card:has-text('new.md')")
    # The same file again, while its hits are shown.
    page.click("#open-add")
    page.set_input_files("#add-files", files=[files[0]])
    page.wait_for_selector("#add-list .done:has-text('was there already')")


def test_progress_is_shown_while_a_file_is_sent_and_indexed(page: Any, library: LibraryServer) -> None:
    shown = """new Promise((resolve) => {
        const states = [];
        new MutationObserver(() => {
            const row = document.querySelector("#add-list li");
            const progress = row.querySelector("progress");
            states.push([row.querySelector("span").textContent, progress ? progress.value : null]);
            if (row.className) resolve(states);
        }).observe(document.querySelector("#add-list"), {subtree: true, childList: true, characterData: true});
    })"""
    page.click("#open-add")
    page.evaluate(f"() => {{ window.states = {shown}; }}")
    page.set_input_files("#add-files", files=[library.files / "slides.pdf"])
    states = page.evaluate("window.states")
    assert ["uploading, 100 %", 1] in states
    assert "being indexed" in [text for text, _ in states]
    assert states[-1] == ["added, 2 documents", None]


def test_dropped_files_that_cannot_be_added_are_listed_with_the_reason(page: Any, library: LibraryServer) -> None:
    star = list((library.files / "star.png").read_bytes())
    page.click("#open-add")
    page.evaluate(DROP, ["dragenter", [["star.png", star]]])
    assert page.locator("#drop").is_hidden()
    assert "over" in page.locator("#add-drop").get_attribute("class")
    page.evaluate(DROP, ["drop", [["broken.png", star[:60]], [HOSTILE, list(b"a text")]]])
    assert "over" not in page.locator("#add-drop").get_attribute("class")
    large = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(2**20)}
    page.set_input_files("#add-files", files=[large])
    page.wait_for_selector("#add-status:has-text('1 of 3 files added, 2 failed')")
    assert texts(page, "#add-list .add-name") == ["broken.png", HOSTILE, "large.png"]
    assert texts(page, "#add-list .done .add-name") == [HOSTILE]
    broken, too_large = texts(page, "#add-list .failed span")
    assert "broken" in broken or "truncated" in broken or "image" in broken, broken
    assert too_large == "It has 1 MiB, and this server takes 0.5 MiB at a time."
    assert page.locator("#add img").count() == 0
    page.route("**/v1/documents", lambda route: route.abort())
    page.set_input_files("#add-files", files=[library.files / "star.png"])
    page.wait_for_selector(".failed:has-text('It could not be sent')")
    page.unroute("**/v1/documents")
    page.route("**/v1/documents", lambda route: route.fulfill(status=507, json={"message": "<b>the disk is full</b>"}))
    page.set_input_files("#add-files", files=[library.files / "star.png"])
    page.wait_for_selector(".failed:has-text('<b>the disk is full</b>')")


def test_file_is_followed_while_the_server_cannot_be_reached(page: Any, library: LibraryServer) -> None:
    """As during a restart, behind a proxy or not: the server has the file, and goes on with it."""
    polls: list[str] = []

    def answer(route: Any) -> None:
        polls.append(route.request.url)
        if len(polls) == 1:
            route.abort()
        elif len(polls) == 2:
            route.fulfill(status=502, body="<html>Bad Gateway</html>")
        else:
            route.continue_()

    page.route("**/v1/documents/jobs/*", answer)
    page.click("#open-add")
    page.set_input_files("#add-files", files=[{"name": "kept.txt", "mimeType": "", "buffer": b"A text that is kept."}])
    page.wait_for_selector("#add-list .done:has-text('added, 1 document')")
    assert len(polls) >= 3
    page.unroute("**/v1/documents/jobs/*")
    page.route("**/v1/documents/jobs/*", lambda route: route.fulfill(status=404, json={"message": "there is no job"}))
    page.set_input_files("#add-files", files=[library.files / "star.png"])
    page.wait_for_selector("#add-list .failed:has-text('there is no job')")


def test_key_is_sent_with_uploads(browser: Any, tmp_path: Path) -> None:
    settings = ServerSettings(api_keys=("a-key",))
    with serve_library(tmp_path, settings=settings) as library, open_page(browser, base_url=library.server.url) as page:
        page.goto("/")
        page.fill("#key-value", "a-key")
        page.press("#key-value", "Enter")
        page.click("#open-add")
        # The key is lost, as in a browser that clears a tab's storage: the page asks for it again, above the dialog.
        page.evaluate("sessionStorage.clear()")
        page.set_input_files("#add-files", files=[library.files / "star.png"])
        page.fill("#key-value", "a-key")
        page.press("#key-value", "Enter")
        page.wait_for_selector("#add-list .done")


def test_server_that_takes_no_documents_offers_nothing(browser: Any, tmp_path: Path) -> None:
    with serve_library(tmp_path, uploads=False) as library, open_page(browser, base_url=library.server.url) as page:
        page.goto("/")
        page.wait_for_selector("#library:not(:empty)")
        assert page.locator("#open-add").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(browser: Any, library: LibraryServer, scheme: str) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True, "is_mobile": True}
    with open_page(browser, base_url=library.server.url, **options) as page:
        page.goto("/")
        page.tap("#open-add")
        page.set_input_files("#add-files", files=[library.files / name for name in ("star.png", "slides.pdf")])
        page.wait_for_selector("#add-status:has-text('2 of 2 files added')")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        box = page.locator("#add").bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390
