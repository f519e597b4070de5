"""Whatever one file does to a loader, it is that file's failure, with its name; the files beside it are loaded."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qwen3vl import Document, Embedder, InputError, Loader, ingest, open_store
from qwen3vl.adapters.loader import LoaderAdapter
from qwen3vl.documents import LoadFailure
from qwen3vl.loaders import Skipped
from tests.support.fake_embedder import FakeEmbedder

MAX_SECONDS = 30
"""Deadline against hanging; the tests that have it take less than two seconds."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one good file before and one after everything else in it."""
    folder = tmp_path / "library"
    folder.mkdir()
    for name in ("0-first.png", "z-last.png"):
        Image.new("RGB", (64, 48), "red").save(folder / name)
    return folder


def load(path: Path | str, **settings: Any) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the names of the documents' files, the reasons of failures by the files' names, and skipped files."""
    items = list(Loader(**settings).load(path))
    return (
        [Path(item.source).name for item in items if isinstance(item, Document)],
        {Path(item.source).name: item.reason for item in items if isinstance(item, LoadFailure)},
        [f"{Path(item.source).name}: {item.suffix}" for item in items if isinstance(item, Skipped)],
    )


def test_video_without_sample_descriptions_is_a_failure(folder: Path, media: dict[str, Path]) -> None:
    content = media["clip"].read_bytes()
    assert b"stsd" in content
    (folder / "bad.mp4").write_bytes(content.replace(b"stsd", b"dsts"))
    documents, failures, _ = load(folder)
    assert documents == ["0-first.png", "z-last.png"]
    assert list(failures) == ["bad.mp4"]


def test_unexpected_error_is_a_failure_with_its_type_and_a_logged_traceback(
    folder: Path, media: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The setting causes an OverflowError where videos are cut."""
    (folder / "clip.mp4").write_bytes(media["clip"].read_bytes())
    with caplog.at_level(logging.WARNING):
        documents, failures, _ = load(folder, segment_seconds=5e-324)
    assert documents == ["0-first.png", "z-last.png"]
    assert "OverflowError: " in failures["clip.mp4"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "clip.mp4" in record.getMessage()


def test_links_pipes_and_sockets_are_failures(folder: Path) -> None:
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "a.png").symlink_to(folder / "b.png")
    (folder / "b.png").symlink_to(folder / "a.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "other.png").symlink_to(folder / "0-first.png")
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "self").symlink_to(folder)
    (folder / "unknown").symlink_to(folder / "unknown")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.txt")
    working_folder = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(folder)  # the path of a socket has at most 108 bytes
        try:
            server.bind("socket.png")
        finally:
            os.chdir(working_folder)
        documents, failures, skipped = load(folder)
    assert documents == ["0-first.png", "other.png", "z-last.png"]
    assert sorted(failures) == sorted(
        ["a.png", "b.png", "gone.png", "loop.png", "null.png", "pipe.png", "pipe.txt", "socket.png"]
    )
    assert "form a loop" in failures["loop.png"]
    assert "does not exist" in failures["gone.png"]
    assert "not a file" in failures["pipe.png"]
    assert skipped == ["self: link to a folder", "unknown: no suffix"]
    # The same files by a pattern, and by their own names.
    documents, failures, _ = load(f"{folder}/*.png")
    assert documents == ["0-first.png", "z-last.png"]
    assert {"pipe.png", "loop.png", "nothing.png", "socket.png"} <= set(failures)
    assert list(load(folder / "loop.png")[1]) == ["loop.png"]
    assert list(load(folder / "pipe.png")[1]) == ["pipe.png"]


@pytest.fixture
def deep_tree(folder: Path) -> Iterator[Path]:
    """1,100 folders, each within the one before, and an image in the last."""
    folders = [folder / "d"]
    while len(folders) < 1100:
        folders.append(folders[-1] / "d")
    for path in folders:
        path.mkdir()
    Image.new("RGB", (64, 48), "blue").save(folders[-1] / "deep.png")
    yield folder
    (folders[-1] / "deep.png").unlink()
    for path in reversed(folders):
        path.rmdir()


def test_tree_of_1100_folders_is_walked(deep_tree: Path) -> None:
    documents, failures, _ = load(deep_tree)
    assert documents == ["0-first.png", "z-last.png", "deep.png"]
    assert failures == {}
    (deep_tree / "d" / "up").symlink_to(deep_tree)
    for pattern in ("**/*.png", "**/**"):
        assert load(f"{deep_tree}/{pattern}")[:2] == (documents, {})
    (deep_tree / "d" / "up").unlink()


def test_folder_that_cannot_be_listed_is_a_failure(folder: Path) -> None:
    """Below 4,096 bytes of a path, folders can be made from within, but cannot be opened by their path."""
    working_folder = Path.cwd()
    name = "f" * 250
    os.chdir(folder)
    try:
        for _ in range(18):
            Path(name).mkdir()
            os.chdir(name)
        documents, failures, _ = load(folder)
        assert documents == ["0-first.png", "z-last.png"]
        assert failures == {name: "it cannot be read: File name too long; check its permissions"}
        assert load(f"{folder}/**/*.png")[:2] == (documents, failures)
    finally:
        for _ in range(18):
            os.chdir("..")
            Path(name).rmdir()
        os.chdir(working_folder)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["0-first.png", "z-last.png"]),
        ("**/*.png", ["0-first.png", "z-last.png", "b.png", "c.png"]),
        ("a/**/*.png", ["b.png", "c.png"]),
        ("a/**", ["b.png", "c.png"]),
        ("*/b.png", ["b.png"]),
        ("**/a/[ab].png", ["b.png"]),
        ("**/a/**/c.png", ["c.png"]),
        ("a/?/*", ["c.png"]),
        (".hidden/*.png", ["h.png"]),
        ("../library/*.png", ["0-first.png", "z-last.png"]),
    ],
    ids=range(10),
)
def test_patterns_match_files_at_every_depth(
    pattern: str, names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/b.png", "a/d/c.png", ".hidden/h.png", "a/.x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), "red").save(folder / name)
    assert load(f"{folder}/{pattern}")[:2] == (names, {})
    monkeypatch.chdir(folder)
    assert load(pattern)[:2] == (names, {})


def test_files_that_change_after_they_were_listed_are_failures(folder: Path) -> None:
    for name in ("1.txt", "2.txt", "3.txt"):
        (folder / name).write_text("words")
    items = Loader().load(folder)
    next(items)
    (folder / "1.txt").unlink()
    (folder / "2.txt").unlink()
    (folder / "2.txt").mkdir()
    (folder / "3.txt").write_text("other words")
    rest = list(items)
    assert [Path(item.source).name for item in rest if isinstance(item, LoadFailure)] == ["1.txt", "2.txt"]
    assert [item.text for item in rest if isinstance(item, Document)] == ["other words", ""]  # and an image


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[2Jb.png", "a#page=x.png", "a\u202egnp.png", "~x.png", "*[a].png"])
def test_strange_names_are_loaded(name: str, folder: Path, tiny_embedder: Embedder) -> None:
    (folder / "0-first.png").rename(folder / name)
    (document,) = [item for item in Loader().load(folder / name) if isinstance(item, Document)]
    assert document.source == str(folder / name)
    assert tiny_embedder.embed([document.input], on_error="collect").ok.all()


@pytest.mark.parametrize("path", ["~nosuchuser/x", "~nosuchuser/*.png", "a\0b", "a\0*", "x" * 5000, ""], ids=range(6))
def test_path_that_cannot_exist_is_a_failure(path: str, folder: Path) -> None:
    items = list(Loader().load([path, folder]))
    assert isinstance(items[0], LoadFailure)
    assert "no such file" in items[0].reason
    assert [type(item) for item in items[1:]] == [Document, Document]


@pytest.mark.parametrize(
    ("name", "content", "num_documents"),
    [
        ("line.txt", "a" * 60_000_000, 50_000),
        ("words.txt", "word " * 4_000_000, 16_667),
        ("heading.md", "# a" + " " * 200_000 + "x", 1),
        ("paragraphs.txt", "a\n\n" * 400_000, 1_000),
    ],
    ids=["line", "words", "heading", "paragraphs"],
)
def test_long_lines_are_split_in_linear_time(name: str, content: str, num_documents: int, folder: Path) -> None:
    (folder / name).write_text(content)
    start = time.monotonic()
    documents = [item for item in Loader().load(folder / name) if isinstance(item, Document)]
    assert abs(len(documents) - num_documents) <= 0.01 * num_documents
    assert sum(len("".join(document.text.split())) for document in documents) == len("".join(content.split()))
    assert time.monotonic() - start < MAX_SECONDS


def test_failure_has_source_and_locator() -> None:
    assert LoadFailure("a.pdf", "broken").name == "a.pdf"
    failure = LoadFailure("a#page=x.pdf", "broken", "page=3")
    assert (failure.source, failure.locator, failure.name) == ("a#page=x.pdf", "page=3", "a#page=x.pdf#page=3")


@pytest.mark.parametrize("locator", ["page=3", ""])
def test_sync_keeps_points_of_a_failed_source_with_a_fragment_in_its_name(locator: str) -> None:
    source = "a#page=x.pdf"
    pages = [Document(source, "page", locator=f"page={number}", image=f"{source}#page={number}") for number in (1, 2)]
    other = Document("b.txt", "text", text="b")
    with closing(open_store(":memory:")) as store:
        ingest([*pages, other], FakeEmbedder(), store)
        failure = LoadFailure(source, "it is broken", locator) if locator else LoadFailure(source, "it is broken")
        report = ingest([failure, other], FakeEmbedder(), store, sync=True)
        assert (report.deleted, report.replaced, store.count()) == (0, 0, 3)
        assert report.failed == [(f"{source}#{locator}".removesuffix("#"), "it is broken")]


@pytest.mark.parametrize("path", ["link", "link/photos", "link/photos/a.txt"])
def test_sync_keeps_points_below_a_link_whose_disk_is_not_mounted(path: str, tmp_path: Path) -> None:
    for file in ("disk/photos/a.txt", "other/b.txt"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(file)
    (tmp_path / "link").symlink_to("disk")
    paths = [tmp_path / path, tmp_path / "other"]
    with closing(open_store(":memory:")) as store:
        assert ingest(Loader().load(paths), FakeEmbedder(), store).added == 2
        (tmp_path / "disk").rename(tmp_path / "unmounted")
        report = ingest(Loader().load(paths), FakeEmbedder(), store, sync=True)
        assert (report.deleted, store.count(), report.skipped) == (0, 2, {})
        ((name, reason),) = report.failed
    assert name == str(tmp_path / "disk" / path.partition("/")[2]).rstrip("/")
    assert "it does not exist" in reason or "there is no such file" in reason


def test_adapters_keep_failures_or_raise_them_with_their_name(folder: Path) -> None:
    adapter = LoaderAdapter(Loader(), "warn")
    assert len(list(adapter.documents([folder, folder / "none.png"]))) == 2
    (failure,) = adapter.failures
    assert (failure.source, failure.locator) == (str(folder / "none.png"), "")
    with pytest.raises(InputError, match=r"none\.png: there is no such file"):
        list(LoaderAdapter(Loader(), "raise").documents(folder / "none.png"))


def test_iteration_does_not_write_into_the_lists_of_a_later_one(folder: Path) -> None:
    adapter = LoaderAdapter(Loader(), "warn")
    (folder / "notes.unknown").touch()
    first = adapter.documents([folder, folder / "none.png"])
    next(first)
    failures, skipped = adapter.failures, adapter.skipped
    assert len(list(adapter.documents(sorted(folder.glob("*.png"))))) > 0
    assert len(list(first)) > 0
    assert (adapter.failures, adapter.skipped) == ([], [])
    assert (len(failures), skipped) == (1, [str(folder / "notes.unknown")])


@pytest.mark.parametrize(
    ("locator", "page", "seconds"),
    [
        ("page=3", 3, None),
        ("page=" + "9" * 5000, None, None),
        ("page=x", None, None),
        ("t=1.5,3", None, (1.5, 3.0)),
        ("t=5", None, None),
        ("t=,5", None, None),
        ("t=a,b", None, None),
        ("", None, None),
    ],
    ids=range(8),
)
def test_locator_of_any_form_can_be_read(locator: str, page: int | None, seconds: tuple[float, float] | None) -> None:
    document = Document("a", "page", locator=locator)
    assert (document.page, document.seconds) == (page, seconds)
