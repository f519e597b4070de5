"""Ingestions of documents that clients send: their status, and what becomes of their files."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from socket import create_connection

import pytest
from PIL import Image
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from qwen3vl_server.library import ingestion as ingestion_module
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.jobs import Job, JobRecords, NewFile
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.points import SourceCounts

from qwen3vl import Embedder, open_store
from tests.support.library_server import LibraryServer, serve_library
from tests.support.media_folders import open_media_folder
from tests.support.model_server import ModelServer, data_uri, wait_until


@pytest.fixture
def library(tmp_path: Path) -> Iterator[LibraryServer]:
    with serve_library(tmp_path) as library:
        yield library


def write_text(folder: MediaFolder, number: int) -> list[NewFile]:
    with folder.receive() as incoming:
        incoming.write(f"text {number}".encode())
        path = folder.keep(incoming, "notes", ".txt")
    return [NewFile("notes", path.relative_to(folder.path).as_posix())]


async def finished(job: Job) -> Job:
    while job.status in ("waiting", "running"):
        await asyncio.sleep(0.01)
    return job


async def test_latest_finished_ingestions_are_listed(
    tiny_embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion_module, "_MAX_FINISHED_JOBS", 4)
    store, folder = open_store(":memory:"), open_media_folder(tmp_path)
    store.create(tiny_embedder.recipe)
    ingestion = Ingestion(tiny_embedder, store, folder, SourceCounts(store))
    ingestion.start()
    submitted: list[Job] = []
    for number in range(7):
        job = await ingestion.submit(partial(write_text, folder, number))
        submitted.insert(0, job)
        assert ingestion.jobs == submitted[:5]  # the new one, and four that have finished
        assert (await finished(job)).status == "done"
    await ingestion.close()
    store.close()


async def test_documents_wait_for_a_server_of_models_that_cannot_be_reached(
    tiny_embedder: Embedder, tmp_path: Path
) -> None:
    store, folder = open_store(":memory:"), open_media_folder(tmp_path)
    store.create(tiny_embedder.recipe)
    served = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    with served, ModelServer(create_app(embedder=served)) as models:
        embedder = Embedder(models.url, max_retries=0)
    with embedder:
        ingestion = Ingestion(embedder, store, folder, SourceCounts(store))
        ingestion.start()
        job = await finished(await ingestion.submit(partial(write_text, folder, 1)))
        assert job.status == "failed"
        assert "cannot be reached" in str(job.error)
        await ingestion.close()
    again = Ingestion(tiny_embedder, store, folder, SourceCounts(store))
    again.start()
    (repeated,) = again.jobs
    await finished(repeated)
    assert (repeated.id, repeated.status, repeated.added) == (job.id, "done", 1)
    await again.close()
    store.close()


async def test_collections_share_a_folder_of_uploads(tiny_embedder: Embedder, tmp_path: Path) -> None:
    """A server of one collection neither ingests nor deletes what was sent to the server of another one before."""
    stores = {name: open_store(":memory:", name) for name in ("a", "b")}

    def open_ingestion(collection: str) -> Ingestion:
        store = stores[collection]
        store.create(tiny_embedder.recipe)
        return Ingestion(tiny_embedder, store, open_media_folder(tmp_path, collection), SourceCounts(store))

    def write_picture(folder: MediaFolder) -> list[NewFile]:
        with folder.receive() as incoming:
            Image.new("RGB", (64, 64), "red").save(content := BytesIO(), "PNG")
            incoming.write(content.getvalue())
            path = folder.keep(incoming, "red.png", ".png")
        return [NewFile("red.png", path.relative_to(folder.path).as_posix())]

    for collection in ("a", "b"):
        ingestion = open_ingestion(collection)
        ingestion.start()
        assert ingestion.jobs == []
        job = await finished(await ingestion.submit(partial(write_picture, ingestion.folder)))
        assert (job.status, job.added) == ("done", 1)
        await ingestion.close()
        if collection == "a":  # another upload is accepted, and the server is killed before it is ingested
            left = await ingestion.submit(partial(write_text, ingestion.folder, 1))
        else:
            stores["b"].delete_where({"source": "red.png"})
            await ingestion.prune("red.png")
            assert not ingestion.folder.folder_of("red.png").exists()
        ingestion.folder.close()

    ingestion = open_ingestion("a")
    (document,) = stores["a"].documents([point.id for point in stores["a"].scan()]).values()
    assert document.image is not None
    assert Path(document.image).is_file()
    ingestion.start()
    resumed = ingestion.job(left.id)
    assert resumed is not None
    assert ((await finished(resumed)).status, resumed.added) == ("done", 1)
    await ingestion.close()


@pytest.mark.skipif(sys.platform != "linux", reason="open files are counted on Linux only")
def test_form_with_more_files_than_may_be_open(library: LibraryServer) -> None:
    import resource

    files = [("file", (f"{number}.txt", b"text %d" % number)) for number in range(150)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(limits[0]) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[60], limits[1]))  # new files get the lowest free numbers
    try:
        response = library.server.client.post("/v1/documents", files=files)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert response.status_code == 202, response.text
    assert library.finished(response.json()["id"])["added"] == 150


def leave(library: LibraryServer, request: bytes, begun: threading.Event) -> None:
    """Send a request, leave when the server has begun to work on it, and wait until the server knows."""
    with create_connection(("127.0.0.1", library.server.port)) as connection:
        connection.sendall(request)
        assert begun.wait(60)
    left = 'qwen3vl_requests_total{path="/v1/documents",status="499"} 1.0'
    wait_until(lambda: left in library.server.client.get("/metrics").text)


def test_documents_of_a_client_that_leaves_while_they_are_written(
    library: LibraryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, resume = threading.Event(), threading.Event()
    add = JobRecords.add

    def add_later(self: JobRecords, job: Job) -> None:
        writing.set()
        assert resume.wait(60)
        add(self, job)

    monkeypatch.setattr(JobRecords, "add", add_later)
    document = {"url": data_uri(library.files / "star.png"), "source": "left.png"}
    body = json.dumps({"documents": [document]}).encode()
    head = b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    leave(library, head + body, writing)
    resume.set()
    client = library.server.client
    wait_until(lambda: [job["status"] for job in client.get("/v1/documents/jobs").json()["jobs"]] == ["done"])
    assert client.get("/v1/documents", params={"contains": "left.png"}).json()["total"] == 1
    wait_until(lambda: not list((library.media / "jobs").iterdir()))


def test_deletion_of_a_client_that_leaves(library: LibraryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    library.upload(("photo.png", (library.files / "star.png").read_bytes()))
    pruning, resume = threading.Event(), threading.Event()
    prune = Ingestion.prune

    async def prune_later(self: Ingestion, source: str, finished: Job | None = None) -> None:
        pruning.set()
        assert await asyncio.to_thread(resume.wait, 60)
        await prune(self, source, finished)

    monkeypatch.setattr(Ingestion, "prune", prune_later)
    leave(library, b"DELETE /v1/documents?source=photo.png HTTP/1.1\r\nHost: localhost\r\n\r\n", pruning)
    assert len(library.media_files()) == 1
    resume.set()
    wait_until(lambda: library.media_files() == [])


def test_documents_that_are_sent_while_they_are_deleted_are_kept(
    library: LibraryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file as before: it must not be taken for stored because its points are not deleted yet."""
    photo = (library.files / "star.png").read_bytes()
    library.upload(("photo.png", photo))
    deleting, resume = threading.Event(), threading.Event()
    adelete = library.store.adelete

    async def delete_later(ids: Sequence[str]) -> None:
        deleting.set()
        assert await asyncio.to_thread(resume.wait, 60)
        await adelete(ids)

    monkeypatch.setattr(library.store, "adelete", delete_later)
    client = library.server.client
    with ThreadPoolExecutor(1) as threads:
        deletion = threads.submit(client.delete, "/v1/documents", params={"source": "photo.png"})
        assert deleting.wait(60)
        job_id = client.post("/v1/documents", files={"file": ("photo.png", photo)}).json()["id"]
        with suppress(AssertionError):  # time in which the job could end that must not begin
            wait_until(lambda: client.get(f"/v1/documents/jobs/{job_id}").json()["status"] == "done", seconds=1)
        resume.set()
        assert deletion.result().json() == {"deleted": 1}
    job = library.finished(job_id)
    assert (job["status"], job["added"], job["unchanged"]) == ("done", 1, 0)
    assert client.get("/v1/documents", params={"contains": "photo.png"}).json()["total"] == 1
    hit = client.get(f"/v1/documents/{library.point('photo.png')}").json()
    assert client.get(hit["media"]["image"]).content == photo


def test_failure_of_a_deletion_whose_client_has_left_is_logged(
    library: LibraryServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library.upload(("photo.png", (library.files / "star.png").read_bytes()))
    pruning, resume = threading.Event(), threading.Event()

    async def fail_later(self: Ingestion, source: str, finished: Job | None = None) -> None:
        pruning.set()
        assert await asyncio.to_thread(resume.wait, 60)
        raise OSError("the disk is gone")

    monkeypatch.setattr(Ingestion, "prune", fail_later)
    leave(library, b"DELETE /v1/documents?source=photo.png HTTP/1.1\r\nHost: localhost\r\n\r\n", pruning)
    resume.set()
    wait_until(lambda: "has left failed: the disk is gone" in caplog.text)


def test_references_that_are_too_many_or_lack_a_source(tmp_path: Path) -> None:
    photo = f"data:image/png;base64,{'A' * 2000}"  # longer than a source may be
    with serve_library(tmp_path, settings=ServerSettings(max_items=3)) as library:
        for documents, status, message in (
            ([{"url": photo}], 400, "needs a source"),
            ([{"url": photo, "source": "a"}] * 4, 422, "documents has 4 items, and at most 3 are accepted"),
        ):
            response = library.server.post("/v1/documents", {"documents": documents})
            assert response.status_code == status, response.text
            assert message in response.json()["message"]
        assert library.server.client.get("/v1/documents/jobs").json()["jobs"] == []


def test_wrong_parameter_is_not_called_a_wrong_body(library: LibraryServer) -> None:
    response = library.server.client.get("/v1/documents", params={"limit": 0})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "limit"
    assert response.json()["message"].startswith("the request is not as the documentation at /docs says: limit: ")
