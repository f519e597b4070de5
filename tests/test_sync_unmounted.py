"""`sync` keeps the points of files that may be gone only because their disk is not mounted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qwen3vl import Document, Report, Store, ingest, open_store
from qwen3vl.cli import main
from qwen3vl.documents import LoadFailure
from qwen3vl.ingestion.urls import is_below
from qwen3vl.loaders import Loader
from tests.support.fake_embedder import FakeEmbedder, passages


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in ("notes/a.txt", "notes/b.txt", "nas/c.txt", "nas/deep/d.txt"):
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "library"


@pytest.fixture
def store(library: Path) -> Iterator[Store]:
    with closing(open_store(":memory:")) as store:
        assert ingest(Loader().load([library]), FakeEmbedder(), store).added == 4
        yield store


def sync(store: Store, *paths: Path) -> Report:
    return ingest(Loader().load(paths), FakeEmbedder(), store, sync=True)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def test_points_below_an_empty_folder_are_kept_until_it_is_removed(
    library: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    nas = library / "nas"
    empty(nas)
    for paths in ([library], [nas, library / "notes"]):
        report = sync(store, *paths)
        assert (report.unchanged, report.deleted, report.kept, store.count()) == (2, 0, {str(nas): 2}, 4)
    assert f"sync keeps 2 points of files below {nas}, which is empty" in caplog.text
    nas.rmdir()
    report = sync(store, library)
    assert (report.unchanged, report.deleted, report.kept, store.count()) == (2, 2, {}, 2)


def test_points_of_deleted_and_changed_files_are_deleted(library: Path, store: Store) -> None:
    shutil.rmtree(library / "nas" / "deep")
    (library / "notes" / "a.txt").unlink()
    (library / "notes" / "b.txt").write_text("changed")
    report = sync(store, library)
    assert (report.added, report.replaced, report.deleted, report.kept) == (1, 1, 2, {})


def test_points_below_what_is_a_file_now_are_deleted(library: Path, store: Store) -> None:
    shutil.rmtree(library / "nas")
    (library / "nas").write_text("a file")
    report = sync(store, library)
    assert (report.deleted, report.kept) == (2, {})


def test_points_of_names_that_are_no_paths_are_deleted(store: Store) -> None:
    ingest([*passages(2, "wiki"), *passages(2, "s3://bucket")], FakeEmbedder(), store)
    report = ingest(passages(1, "other"), FakeEmbedder(), store, sync=lambda source: not source.startswith("/"))
    assert (report.added, report.deleted, report.kept) == (1, 4, {})


@pytest.mark.parametrize(
    ("failed", "kept"),
    [
        ("s3://bucket/*.pdf", {"s3://bucket/a.pdf", "s3://bucket/B/c.pdf"}),
        ("s3://bucket/**/*.pdf", {"s3://bucket/a.pdf", "s3://bucket/B/c.pdf"}),
        ("s3://bucket/B/[a-c].pdf", {"s3://bucket/B/c.pdf"}),
        ("s3://bucket/", {"s3://bucket/a.pdf", "s3://bucket/B/c.pdf", "s3://bucket/d.pdf?region=x"}),
        ("s3://bucket?region=x", {"s3://bucket/d.pdf?region=x"}),
        ("s3://bucket/*.pdf?region=x", {"s3://bucket/d.pdf?region=x"}),
        ("zip://::s3://bucket/all.zip", {"zip://e/f.pdf::s3://bucket/all.zip"}),
        ("zip://e/*::s3://bucket/all.zip", {"zip://e/f.pdf::s3://bucket/all.zip"}),
    ],
)
def test_points_of_urls_that_cannot_be_listed_are_kept(failed: str, kept: set[str]) -> None:
    sources = {
        "s3://bucket/a.pdf",
        "s3://bucket/B/c.pdf",
        "s3://bucket/d.pdf?region=x",
        "zip://e/f.pdf::s3://bucket/all.zip",
        "s3://other/a.txt",
    }
    with closing(open_store(":memory:")) as store:
        documents = [Document(source, "text", text="a text") for source in sorted(sources)]
        assert ingest(documents, FakeEmbedder(), store).added == 5
        failure = LoadFailure(failed, "it cannot be listed")
        report = ingest([failure, *passages(1, "other")], FakeEmbedder(), store, sync=lambda name: name in sources)
        assert report.deleted == 5 - len(kept)
        assert {point.source for point in store.scan()} & sources == kept


@pytest.mark.parametrize(
    ("url", "root", "below"),
    [
        ("s3://bucket/scans/a.pdf", "s3://bucket/scans", True),
        ("s3://bucket/scans/a.pdf", "s3://bucket/", True),
        ("s3://bucket/scans", "s3://bucket/scans", True),
        ("s3://bucket/scans2/a.pdf", "s3://bucket/scans", False),
        ("s3://bucket/scans/a.pdf", "s3://bucket/scans/*.pdf", False),
        ("s3://bucket/scans/a.pdf?region=x", "s3://bucket/scans?region=x", True),
        ("s3://bucket/scans/a.pdf?region=x", "s3://bucket/scans", False),
        ("s3://bucket/scans/a.pdf", "s3://bucket/scans?region=x", False),
        ("zip://a.pdf::s3://bucket/all.zip", "zip://::s3://bucket/all.zip", True),
        ("zip://a.pdf::s3://bucket/all.zip", "zip://::s3://bucket/other.zip", False),
    ],
)
def test_urls_below_others(url: str, root: str, below: bool) -> None:
    assert is_below(url, root) == below


def test_command_line_names_the_folder(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["index", str(library), "--store", str(tmp_path / "store")]
    assert main([*arguments, "--model", "tiny"]) == 0
    empty(library / "nas")
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["deleted"], summary["kept"], summary["stored"]) == (0, {str(library / "nas"): 2}, 4)
    assert main(arguments) == 0
    output = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "kept2offilesbelowemptyfolders" in output
    assert f"{library / 'nas'}:2;ifthefilesaredeleted" in output


def test_command_line_says_why_nothing_is_deleted(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["index", str(library), "--store", str(tmp_path / "store")]
    assert main([*arguments, "--model", "tiny"]) == 0
    shutil.rmtree(library)
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["not_deleted"] == "the stream contained no document"
    assert main(arguments) == 1
    output = "".join(capsys.readouterr().out.replace("│", " ").split())
    assert "notdeletedwhatisgonefrombelowthepaths:thestreamcontainednodocument" in output
