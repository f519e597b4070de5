"""Ingestions that have failed and that the next process repeats, unless their sources were deleted or sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server import SERVER_POLICY, create_app
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.jobs import Job, NewFile
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.points import SourceCounts

from qwen3vl import Embedder, Store, StoreError, open_store
from tests.support.library_server import serve_library
from tests.support.media_folders import open_media_folder
from tests.support.model_server import ModelServer


@pytest.fixture(scope="module")
def unreachable() -> Iterator[Embedder]:
    """The tiny model in a server that has stopped."""
    with Embedder("tiny", device="cpu", policy=SERVER_POLICY) as served:
        with ModelServer(create_app(embedder=served)) as models:
            embedder = Embedder(models.url, max_retries=0)
        with embedder:
            yield embedder


@pytest.fixture
def store(tiny_embedder: Embedder) -> Iterator[Store]:
    store = open_store(":memory:")
    store.create(tiny_embedder.recipe)
    yield store
    store.close()


def write_texts(folder: MediaFolder, **texts: str) -> list[NewFile]:
    files = []
    for source, text in texts.items():
        with folder.receive() as incoming:
            incoming.write(text.encode())
            path = folder.keep(incoming, source, ".txt")
        files.append(NewFile(source, path.relative_to(folder.path).as_posix()))
    return files


async def finished(job: Job) -> Job:
    while job.status in ("waiting", "running"):
        await asyncio.sleep(0.01)
    return job


def recorded(folder: MediaFolder) -> dict[str, list[str]]:
    """The sources in the record of each job."""
    return {path.stem: [file["source"] for file in json.loads(path.read_text())] for path in folder.jobs.iterdir()}


@pytest.mark.parametrize("at_once", [False, True])
async def test_source_that_was_sent_again(
    at_once: bool, unreachable: Embedder, tiny_embedder: Embedder, store: Store, tmp_path: Path
) -> None:
    """After its job has failed, or while that waits."""
    folder = open_media_folder(tmp_path)
    ingestion = Ingestion(unreachable, store, folder, SourceCounts(store))
    ingestion.start()
    jobs = []
    async with ingestion.deleting({"b"}) if at_once else nullcontext():  # jobs begin after it
        for texts in ({"a": "former", "b": "text"}, {"a": "new"}):
            jobs.append(await ingestion.submit(partial(write_texts, folder, **texts)))
            if not at_once:
                await finished(jobs[-1])
    assert [(await finished(job)).status for job in jobs] == ["failed", "failed"]
    assert recorded(folder) == {jobs[0].id: ["b"], jobs[1].id: ["a"]}
    await ingestion.close()

    again = Ingestion(tiny_embedder, store, folder, SourceCounts(store))
    again.start()
    for job in again.jobs:
        assert ((await finished(job)).status, job.added, job.failed) == ("done", 1, [])
    await again.close()
    documents = await store.adocuments([point.id for point in store.scan()])
    assert {(document.source, document.text) for document in documents.values()} == {("a", "new"), ("b", "text")}


def test_source_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise StoreError("the disk is full")

    with serve_library(tmp_path, reranked=False) as library:
        photos = [(name, (library.files / "star.png").read_bytes()) for name in ("a.png", "b.png")]
        with monkeypatch.context() as patch:
            patch.setattr(library.store.core, "write", fail)
            job = library.upload(*photos)
        assert job["status"] == "failed"
        assert "the disk is full" in job["error"]
        record = library.media / "jobs" / f"{job['id']}.json"
        delete = partial(library.server.client.delete, "/v1/documents")
        assert delete(params={"source": "a.png"}).json() == {"deleted": 0}
        assert [file["source"] for file in json.loads(record.read_text())] == ["b.png"]
        assert len(library.media_files()) == 1
        delete(params={"source": "b.png"})
        assert not record.exists()
        assert library.media_files() == []


def test_file_of_a_failed_job_is_kept_when_the_former_document_is_deleted_by_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise StoreError("the disk is full")

    with serve_library(tmp_path, reranked=False) as library:
        library.upload(("a.png", (library.files / "0.png").read_bytes()))
        with monkeypatch.context() as patch:
            patch.setattr(library.store.core, "write", fail)
            library.upload(("a.png", (library.files / "star.png").read_bytes()))
        library.server.client.delete("/v1/documents", params={"id": library.point("a.png")})
        (file,) = library.media_files()
        assert file.read_bytes() == (library.files / "star.png").read_bytes()
