"""`qwen3vl serve --store` and `qwen3vl demo --serve`, as processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient
from qwen3vl_qdrant import QdrantStore
from qwen3vl_server.library.opening import ServedStore

from qwen3vl import StoreError
from qwen3vl.cli import extensions, main
from qwen3vl.demo.library import Library
from tests.server.test_serve import needs_entry_point
from tests.support import sample_library

pytestmark = [
    needs_entry_point,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM"),
]


@contextmanager
def serve(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run a command that serves at a free port, until the end of the context at the latest."""
    command = [sys.executable, "-m", "qwen3vl", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                if line.startswith("search page: "):
                    break
            else:
                pytest.fail(process.stderr.read())
            url = line.removeprefix("search page: ").strip()
            with httpx.Client(base_url=url, timeout=120) as client:
                yield process, client
        finally:
            process.kill()


def finish(client: httpx.Client, job_id: str) -> Any:
    give_up = time.monotonic() + 120
    while (job := client.get(f"/v1/documents/jobs/{job_id}").json())["status"] in ("waiting", "running"):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return job


def test_folder_of_uploads_is_beside_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path.resolve() / "library"
    library.mkdir()
    monkeypatch.chdir(library)
    beside = tmp_path.resolve() / "library.media"
    for location, media in (
        (".", beside),
        ("chroma:./", beside),
        ("inner/..", beside),
        (str(library), beside),
        ("inner", Path("inner.media")),
        (":memory:", None),
        ("http://localhost:6333", None),
    ):
        assert ServedStore(location, "qwen3vl").media_folder == media, location


def test_store_and_uploads_may_be_moved_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_media(location: str, media: str | None = None) -> None:
        served = ServedStore(location, "photos", media=None if media is None else Path(media))
        store = QdrantStore(QdrantClient(":memory:"), "photos")  # only its names are used
        folder = served.open_media(store)
        assert folder is not None
        folder.close()

    (tmp_path / "disk" / "library").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "disk")
    open_media("library")
    (tmp_path / "disk").rename(tmp_path / "new disk")
    monkeypatch.chdir(tmp_path / "new disk" / "library")
    open_media(".")
    with pytest.raises(StoreError, match=r"of .* in \.\./library, not of .* in \.\./other: name another folder"):
        open_media("../other", "../library.media")
    open_media("http://ann:secret@localhost:6333/", "../uploads")
    assert "secret" not in Path("../uploads/owner.json").read_text()
    open_media("http://localhost:6333", "../uploads")
    with pytest.raises(StoreError, match=r"in http://localhost:6333, not of .* in http://localhost:6334: name another"):
        open_media("http://localhost:6334", "../uploads")


def test_uploads_outlive_kill_9(tmp_path: Path) -> None:
    """The store is new; its model is then known."""
    files = tmp_path / "files"
    files.mkdir()
    sample_library.write(files)
    store = str(tmp_path / "library")
    pictures = sorted(files.glob("*.jpg"))
    parts = [("file", (path.name, path.read_bytes())) for path in pictures]
    with serve("serve", "--store", store, "--embedder", "tiny", "--device", "cpu") as (process, client):
        job_id = client.post("/v1/documents", files=parts).json()["id"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "library.media").is_dir()
    options = ("--reranker", "tiny", "--device", "cpu", "--root-path", "/library/")
    with serve("serve", "--store", store, *options) as (process, client):
        job = finish(client, job_id)
        assert (job["status"], job["failed"]) == ("done", [])
        assert job["added"] + job["unchanged"] == len(pictures)
        answer = client.post("/v1/search", json={"text": "a red star", "limit": 50}).json()
        assert {hit["source"] for hit in answer["hits"]} == {path.name for path in pictures}
        assert answer["reranked"]
        assert all(hit["rerank_error"] is None for hit in answer["hits"])
        assert all(hit["media"]["image"].startswith("/library/v1/media/") for hit in answer["hits"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert list((tmp_path / "library.media" / "jobs").iterdir()) == []


def test_files_that_were_indexed_are_shown_below_the_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, store = tmp_path / "files", str(tmp_path / "library")
    files.mkdir()
    sample_library.write(files)
    assert main(["index", str(files), "--store", store, "--model", "tiny", "--device", "cpu"]) == 1  # a broken file
    for folders, status in ((["--folder", str(files)], 200), ([], 403)):
        with serve("serve", "--store", store, "--reranker", "tiny", "--device", "cpu", *folders) as (_, client):
            body = {"text": "a red star", "limit": 3, "filter": {"kind": "picture"}}
            hits = client.post("/v1/search", json=body).json()["hits"]
            assert [client.get(hit["media"]["image"]).status_code for hit in hits] == [status] * 3
            assert all((hit["rerank_error"] is None) == (status == 200) for hit in hits)
    capsys.readouterr()
    assert main(["serve", "--store", f"nowhere:{store}", "--port", "0"]) == 2
    assert "no integration has that name" in " ".join(capsys.readouterr().out.split())
    assert main(["serve", "--store", store, "--folder", str(tmp_path / "missing")]) == 2


def test_demo_serves_its_library(tmp_path: Path) -> None:
    with serve("demo", "--out", str(tmp_path / "demo"), "--serve") as (_, client):
        answer = client.post("/v1/search", json={"text": "a red circle in the centre", "limit": 3}).json()
        assert answer["reranked"]
        thumbnails = [hit["media"]["thumbnail"] for hit in answer["hits"] if "thumbnail" in hit["media"]]
        assert thumbnails
        assert all(client.get(thumbnail).status_code == 200 for thumbnail in thumbnails)
        assert "<!doctype html>" in client.get("/").text.lower()


def test_demo_whose_server_cannot_listen_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write_note(folder: Path) -> Library:
        folder.mkdir(parents=True)
        (folder / "note.md").write_text("a red circle")
        return Library(folder, {}, {}, {}, {})

    monkeypatch.setattr("qwen3vl.cli.demo.write_library", write_note)  # the whole one takes a while
    monkeypatch.setattr("qwen3vl.cli.demo.write_questions", lambda library: iter(()))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--serve", "--out", str(tmp_path / "demo"), "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in " ".join(capsys.readouterr().out.split())


def test_demo_without_the_server_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extensions, "entry_points", lambda group: [])
    assert main(["demo", "--serve", "--out", str(tmp_path / "demo")]) == 2
    assert "pip install . ./integrations/server" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "demo").exists()  # before anything was drawn
