"""Uploads that find no place on the disk: status 507, and nothing of them is kept."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server.library import media_folder
from qwen3vl_server.library.jobs import Job, JobRecords
from qwen3vl_server.library.media_folder import IncomingFile, MediaFolder

from tests.support.library_server import LibraryServer, serve_library
from tests.support.model_server import data_uri


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    with serve_library(tmp_path_factory.mktemp("full")) as library:
        library.upload(("photo.png", (library.files / "0.png").read_bytes()))
        yield library


def send(library: LibraryServer, form: str) -> Any:
    """Send two files, of which the first is a new version of one that is stored."""
    names = {"photo.png": "star.png", "new.png": "star.png"}
    if form == "form":
        files = [("file", (source, (library.files / name).read_bytes())) for source, name in names.items()]
        return library.server.client.post("/v1/documents", files=files)
    documents = [{"url": data_uri(library.files / name), "source": source} for source, name in names.items()]
    return library.server.post("/v1/documents", {"documents": documents})


def assert_refused(response: Any, library: LibraryServer) -> None:
    assert response.status_code == 507, response.text
    assert "delete documents" in response.json()["message"]
    (kept,) = library.media_files()  # of the former version
    assert kept.read_bytes() == (library.files / "0.png").read_bytes()
    assert list((library.media / "incoming").iterdir()) == []
    assert list((library.media / "jobs").iterdir()) == []


@pytest.mark.parametrize("form", ["form", "data URIs"])
def test_disk_that_is_nearly_full(library: LibraryServer, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_folder, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert_refused(send(library, form), library)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("form", ["form", "data URIs"])
def test_disk_that_is_full_before_a_file_has_arrived(
    library: LibraryServer, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive, received = MediaFolder.receive, []

    def receive_on_full_disk(self: MediaFolder) -> IncomingFile:
        incoming = receive(self)
        received.append(incoming)
        if len(received) == 2:
            incoming._file.close()
            incoming._file = Path("/dev/full").open("wb")  # noqa: SIM115 (the server closes it)
        return incoming

    monkeypatch.setattr(MediaFolder, "receive", receive_on_full_disk)
    assert_refused(send(library, form), library)
    assert len(received) == 2


@pytest.mark.parametrize("form", ["form", "data URIs"])
def test_disk_that_is_full_when_all_files_have_arrived(
    library: LibraryServer, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: JobRecords, job: Job) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JobRecords, "add", add)
    assert_refused(send(library, form), library)
