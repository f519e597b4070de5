"""Loading PDF files: broken pages, claims of pages that are not there, and the number of times a file is opened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium
import pytest

from qwen3vl import Document, Loader, MediaPolicy
from qwen3vl.documents import LoadFailure
from tests.support.hostile import pdf

BROKEN = b"<</Type/Nothing>>"
"""An object in the place of a page."""


def write_pages(path: Path, pages: list[bytes | None], count: int | None = None, slow_page: int | None = None) -> Path:
    """Write a PDF with a page for each text, a broken one for None, and one that is not read within minutes."""
    objects = {1: b"<</Type/Catalog/Pages 2 0 R>>", 3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"}
    kids: list[int] = []
    for text in pages:
        number = 2 * len(kids) + 4
        kids.append(number)
        resources = b"<</Font<</F1 3 0 R>>>>"
        page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Resources%s/Contents %d 0 R>>" % (
            resources,
            number + 1,
        )
        objects[number] = BROKEN if text is None else page
        objects[number + 1] = pdf.stream(b"BT /F1 9 Tf 9 99 Td (%s) Tj ET" % (text or b""))
        if len(kids) == slow_page:
            objects[number] = page.replace(b"<</Font", b"<</XObject<</Form 100 0 R>>/Font")
            objects[number + 1] = pdf.stream(b"/Form Do")
            # Each form calls the next one 10 times: 10 ** 10 calls.
            for form in range(100, 110):
                objects[form] = pdf.form(b"/Form Do " * 10, b"/XObject<</Form %d 0 R>>" % (form + 1))
            objects[110] = pdf.form(b"0 0 9 9 re f")
    references = b" ".join(b"%d 0 R" % kid for kid in kids)
    objects[2] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (references, len(pages) if count is None else count)
    path.write_bytes(pdf.write(objects))
    return path


def load(path: Path, **policy: Any) -> tuple[list[str], list[LoadFailure]]:
    """Return the texts of the pages, and the failures."""
    loaded = list(Loader(policy=MediaPolicy(**policy)).load(path))
    texts = [document.text for document in loaded if isinstance(document, Document)]
    return texts, [failure for failure in loaded if isinstance(failure, LoadFailure)]


@pytest.mark.parametrize("isolated", [False, True])
def test_pages_that_a_file_claims_and_does_not_have_are_one_failure(tmp_path: Path, isolated: bool) -> None:
    path = write_pages(tmp_path / "claims.pdf", [b"the only page"], count=1_000_000)
    texts, failures = load(path, isolated=isolated)
    assert texts == ["the only page"]
    (failure,) = failures
    assert (failure.source, failure.locator) == (str(path), "page=2")
    assert "the pages 2 to 1000000 cannot be read" in failure.reason
    assert "the pages after 101 were not tried" in failure.reason


@pytest.mark.parametrize("isolated", [False, True])
def test_broken_pages_are_failures_between_the_others(tmp_path: Path, isolated: bool) -> None:
    path = write_pages(tmp_path / "report.pdf", [b"one", None, b"three", None, None, b"six"])
    texts, failures = load(path, isolated=isolated)
    assert texts == ["one", "three", "six"]
    assert [failure.locator for failure in failures] == ["page=2", "page=4"]
    assert "pages 4 to 5" in failures[1].reason


def test_file_is_opened_a_few_times_however_many_pages_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pages(tmp_path / "long.pdf", [b"page %d" % number for number in range(2000)])
    num_opened = 0

    class CountingDocument(pdfium.PdfDocument):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            nonlocal num_opened
            num_opened += 1
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(pdfium, "PdfDocument", CountingDocument)
    texts, failures = load(path)
    assert texts == [f"page {number}" for number in range(2000)]
    assert failures == []
    assert num_opened < 12


def test_page_that_takes_too_long_is_a_failure_and_the_others_are_read(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "slow.pdf", [b"one", b"two", b"three"], slow_page=2)
    texts, failures = load(path, isolated=True, seconds=1)
    assert texts == ["one", "three"]
    assert [failure.locator for failure in failures] == ["page=2"]
    assert "more than the 1 seconds" in failures[0].reason


FORK_WHILE_READING = """
import os, signal, sys, threading, time
from pathlib import Path
from qwen3vl.media.pdf import page_count, page_texts

path, reading = Path(sys.argv[1]), threading.Event()

def read():
    for _ in page_texts(path, 1, 2):
        reading.set()
        time.sleep(0.5)

thread = threading.Thread(target=read)
thread.start()
reading.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(0 if page_count(path) == 2 else 3)
_, status = os.waitpid(child, 0)
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_reads_a_file_while_its_parent_reads_one(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "report.pdf", [b"one", b"two"])
    assert (
        subprocess.run([sys.executable, "-c", FORK_WHILE_READING, str(path)], timeout=60, check=False).returncode == 0
    )
