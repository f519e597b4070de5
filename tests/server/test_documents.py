"""`/v1/documents`: uploads are ingested in the background, listed, replaced and deleted, and outlive the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient
from qwen3vl_qdrant import AsyncQdrantStore
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from qwen3vl_server.library import media_folder
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.jobs import Job, JobRecords

from qwen3vl import AsyncStore, Reranker, Store, open_store
from qwen3vl.hashing import file_digest
from tests.support.drawn_scenes import draw_scenes
from tests.support.engines import busy_embedder
from tests.support.library_server import LibraryServer, open_embedder, serve_library
from tests.support.model_server import ModelServer, data_uri, wait_until

KEPT = ServerSettings(max_upload_bytes=300_000)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[LibraryServer]:
    with serve_library(tmp_path, settings=KEPT) as library:
        yield library


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    """For tests after which nothing is kept."""
    with serve_library(tmp_path_factory.mktemp("untouched"), settings=KEPT) as library:
        yield library


def read(library: LibraryServer, name: str) -> bytes:
    return (library.files / name).read_bytes()


def sources(library: LibraryServer, **query: Any) -> Any:
    return library.server.client.get("/v1/documents", params=query).json()


def test_upload_is_ingested_and_found(library: LibraryServer) -> None:
    before = library.store.count()
    files = [(f"new/{name}", read(library, name)) for name in ("star.png", "slides.pdf", "mover.mp4", "notes.md")]
    job = library.upload(*files, data={"metadata": '{"album": "summer"}'})
    assert job["status"] == "done"
    assert (job["added"], job["failed"], job["error"]) == (6, [], None)
    assert library.store.count() == before + 6
    hits = library.search(text="a star", limit=20, filter={"album": "summer"})["hits"]
    assert sorted({hit["source"] for hit in hits}) == sorted(name for name, _ in files)
    page = next(hit for hit in hits if hit["page"] == 2)
    assert page["metadata"] == {"album": "summer", "page": 2, "pages": 2}
    for hit in hits:
        if hit["kind"] != "text":
            assert library.server.client.get(hit["media"]["thumbnail"]).status_code == 200
    stored = {path.stem for path in library.media_files()}
    assert stored == {file_digest(library.files / name) for name in ("star.png", "slides.pdf", "mover.mp4")}
    again = library.upload(*files)
    assert (again["added"], again["unchanged"]) == (0, 6)
    assert library.server.client.get("/v1/documents/jobs").json()["jobs"][0] == again


def test_new_version_of_a_source_replaces_the_former(library: LibraryServer) -> None:
    library.upload(("photo.png", read(library, "star.png")))
    job = library.upload(("photo.png", read(library, "0.png")))
    assert (job["added"], job["replaced"]) == (1, 1)
    assert sources(library, contains="photo.png")["sources"] == [{"source": "photo.png", "documents": 1}]
    assert [path.stem for path in library.media_files()] == [file_digest(library.files / "0.png")]
    broken = library.upload(("photo.png", read(library, "star.png")[:60]))
    assert (broken["status"], broken["added"], broken["replaced"]) == ("done", 0, 0)
    assert broken["failed"][0]["source"] == "photo.png"
    assert [path.stem for path in library.media_files()] == [file_digest(library.files / "0.png")]


def test_versions_of_a_source_that_wait_for_each_other(library: LibraryServer) -> None:
    names = ("star.png", "0.png", "star.png")
    with busy_embedder(Path("tiny")):
        jobs = [
            library.server.client.post("/v1/documents", files={"file": ("photo.png", read(library, name))}).json()["id"]
            for name in names
        ]
    finished = [library.finished(job) for job in jobs]
    assert [(job["added"], job["replaced"], job["failed"]) for job in finished] == [(1, 0, []), (1, 1, []), (1, 1, [])]
    assert [path.stem for path in library.media_files()] == [file_digest(library.files / names[-1])]


def test_file_that_arrives_while_its_source_is_deleted(library: LibraryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, pruning, resume = (threading.Event() for _ in range(3))
    add, prune = JobRecords.add, Ingestion.prune

    def add_later(self: JobRecords, job: Job) -> None:
        writing.set()
        assert resume.wait(60)
        add(self, job)

    async def prune_now(self: Ingestion, source: str, finished: Job | None = None) -> None:
        pruning.set()
        await prune(self, source, finished)

    monkeypatch.setattr(JobRecords, "add", add_later)
    monkeypatch.setattr(Ingestion, "prune", prune_now)
    with ThreadPoolExecutor(2) as threads:
        upload = threads.submit(library.upload, ("photo.png", read(library, "star.png")))
        assert writing.wait(60)
        deletion = threads.submit(library.server.client.delete, "/v1/documents", params={"source": "photo.png"})
        assert pruning.wait(60)
        wait([deletion], timeout=0.5)  # it has to wait for the upload
        resume.set()
        assert upload.result()["failed"] == []
        assert deletion.result().json() == {"deleted": 0}


def test_record_that_cannot_be_deleted_stops_no_other_ingestion(library: LibraryServer) -> None:
    with busy_embedder(Path("tiny")):
        files = {"file": ("photo.png", read(library, "star.png"))}
        job = library.server.client.post("/v1/documents", files=files).json()["id"]
        record = library.media / "jobs" / f"{job}.json"
        record.unlink()
        record.mkdir()
    assert library.finished(job)["added"] == 1
    assert library.upload(("other.png", read(library, "0.png")))["added"] == 1


@pytest.mark.parametrize("kind", ["edge", "chroma", "async"])
def test_stores_of_other_kinds(kind: str, tmp_path: Path) -> None:
    scenes = [path for path, _ in draw_scenes(tmp_path, 3)]
    policy = replace(SERVER_POLICY, folders=(tmp_path / "media",))
    store: AsyncStore
    if kind == "async":
        store = AsyncQdrantStore(AsyncQdrantClient(":memory:"))
    else:
        store = open_store(str(tmp_path / "store") if kind == "edge" else f"chroma:{tmp_path / 'chroma'}")
    with open_embedder(policy) as embedder:
        app = create_app(embedder=embedder, store=store, media=tmp_path / "media")
        with ModelServer(app) as server:
            library = LibraryServer(server, None, tmp_path, tmp_path / "media")
            assert library.search(text="a star")["hits"] == []
            assert library.upload(*((path.name, path.read_bytes()) for path in scenes))["added"] == 3
            job = library.upload((scenes[0].name, scenes[1].read_bytes()))
            assert (job["added"], job["replaced"]) == (1, 1)
            (hit,) = library.search(text="a star", filter={"source": scenes[0].name}, limit=1)["hits"]
            assert server.client.get(hit["media"]["image"]).content == scenes[1].read_bytes()
            assert len(library.search(like=hit["id"])["hits"]) == 2
            assert sources(library)["documents"] == 3
            deleted = server.client.delete("/v1/documents", params={"source": scenes[0].name, "id": hit["id"]})
            assert deleted.json() == {"deleted": 1}
            assert len(library.media_files()) == 2
    if isinstance(store, Store):
        store.close()


def test_sources_are_names_and_no_paths(library: LibraryServer) -> None:
    names = [
        "../../../escape.png",
        "/etc/cron.d/x.png",
        "..\\..\\x.png",
        "<img src=x onerror=alert(1)>.png",
        "\u202e.png",
    ]
    job = library.upload(*((name, read(library, "star.png")) for name in names))
    assert job["added"] == len(names)
    assert all(path.resolve().is_relative_to(library.media) for path in library.media.rglob("*"))
    assert not (library.media.parent / "escape.png").exists()
    listed = sources(library, limit=1000)
    assert set(names) <= {source["source"] for source in listed["sources"]}
    given = library.upload(("x.png", read(library, "star.png")), data={"source": "inventory/42"})
    assert given["sources"] == ["inventory/42"]


def test_documents_by_reference(tmp_path: Path) -> None:
    with serve_library(tmp_path, policy=replace(SERVER_POLICY, urls=True)) as library:
        documents = [
            {"url": data_uri(library.files / "star.png"), "source": "inline", "metadata": {"a": 1}},
            {"url": f"{library.server.url}/v1/media/x/image", "source": "private"},
            {"url": "http://169.254.169.254/latest/meta-data"},
        ]
        response = library.server.post("/v1/documents", {"documents": documents})
        job = library.finished(response.json()["id"])
        assert job["added"] == 1
        assert [failure["source"] for failure in job["failed"]] == [
            "private",
            "http://169.254.169.254/latest/meta-data",
        ]
        assert all("not a public address" in failure["reason"] for failure in job["failed"])
        assert library.search(text="a", filter={"a": 1})["hits"][0]["source"] == "inline"


def test_delete_by_source_and_by_id(library: LibraryServer) -> None:
    client = library.server.client
    library.upload(("a.pdf", read(library, "slides.pdf")), ("b.png", read(library, "star.png")))
    before = library.store.count()
    first, second = library.search(text="a", limit=2, filter={"source": "a.pdf"})["hits"]
    assert client.delete("/v1/documents", params={"id": [first["id"], "no-point"]}).json() == {"deleted": 1}
    assert client.get(second["media"]["image"]).status_code == 200  # the other page still shows the file
    assert client.delete("/v1/documents", params={"source": ["b.png", "unknown"]}).json() == {"deleted": 1}
    assert [path.suffix for path in library.media_files()] == [".pdf"]
    assert client.delete("/v1/documents", params={"id": second["id"]}).json() == {"deleted": 1}
    assert library.media_files() == []
    assert library.store.count() == before - 3
    indexed = str(library.files / "star.png")
    assert client.delete("/v1/documents", params={"source": indexed}).json() == {"deleted": 1}
    assert Path(indexed).exists()  # a file that the server does not own
    assert client.delete("/v1/documents").status_code == 400
    assert client.get(f"/v1/documents/{first['id']}").status_code == 404


def test_list_of_sources(untouched: LibraryServer) -> None:
    everything = sources(untouched, limit=1000)
    assert everything["total"] == len(everything["sources"]) == 35
    assert everything["documents"] == untouched.store.count()
    part = sources(untouched, contains="SLIDES")
    assert part["sources"] == [{"source": str(untouched.files / "slides.pdf"), "documents": 2}]
    assert sources(untouched, limit=2, offset=3)["sources"] == everything["sources"][3:5]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"source": (None, "a")}, "0 files and 1 fields"),
        ({"file": ("a.png", b"1"), "metadata": (None, "[]")}, "metadata are a JSON object"),
        (
            {"file": ("a.png", b"1"), "metadata": (None, '{"image": "/etc/passwd"}')},
            "its metadata use image, reserved",
        ),
        ({"file": ("a.png", b"1"), "metadata": (None, "{")}, "metadata is malformed"),
        ({"file": ("a.png", b"1"), "folder": (None, "/etc")}, "'folder' has no use"),
        ({"file": ("a.png", b"1"), "source": (None, "a\0b")}, "no control characters"),
        ({"file": ("a.png", b"1"), "source": (None, "a" * 1001)}, "1 to 1000 characters"),
        ({"file": ("a.png", b"1"), "metadata": (None, "1" * (2**16 + 1))}, "more than 64 KiB"),
    ],
)
def test_forms_that_are_errors(untouched: LibraryServer, parts: Any, message: str) -> None:
    response = untouched.server.client.post("/v1/documents", files=parts)
    assert response.status_code in (400, 413), response.text
    assert message in response.json()["message"]
    assert_nothing_kept(untouched)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"documents": []}, "documents"),
        ({"documents": [{"url": "/etc/passwd"}]}, "the server opens no files"),
        ({"documents": [{"url": "file:///etc/passwd"}]}, "the server opens no files"),
        ({"documents": [{"url": "ftp://example.org/a.png"}]}, "the server opens no files"),
        ({"documents": [{"url": "https://example.org/a.png"}]}, "--media-urls"),
        ({"documents": [{"url": "data:image/png;base64,AAAA"}]}, "needs a source"),
        ({"documents": [{"url": "data:image/png;base64,A", "source": "a"}]}, "valid data"),
        ({"documents": [{"url": "data:,a", "source": "a", "metadata": {"kind": "page"}}]}, "use kind, reserved"),
        ({"documents": [{"url": "data:,a", "source": "\ud800"}]}, "surrogate"),
    ],
)
def test_references_that_are_errors(untouched: LibraryServer, body: Any, message: str) -> None:
    response = untouched.server.post("/v1/documents", body)
    assert response.status_code == 400, response.text
    assert message in response.json()["message"]
    assert_nothing_kept(untouched)


def assert_nothing_kept(library: LibraryServer) -> None:
    assert library.media_files() == []
    assert list((library.media / "incoming").iterdir()) == []
    assert list((library.media / "jobs").iterdir()) == []


def test_malformed_and_cut_uploads_leave_nothing(untouched: LibraryServer) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    for content in (b"", b"garbage", head + b"1234", head.replace(b"\r\n\r\n", b"\r\n"), b"--x\r\n" + b"a" * 10_000):
        response = untouched.server.client.post(
            "/v1/documents", content=content, headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert response.status_code == 400, content
        assert_nothing_kept(untouched)
    request = b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with create_connection(("127.0.0.1", untouched.server.port)) as connection:
        connection.sendall(request + b"Content-Length: 200000\r\n\r\n" + head + b"1" * 50_000)
        wait_until(lambda: list((untouched.media / "incoming").iterdir()))
    wait_until(lambda: not list((untouched.media / "incoming").iterdir()))  # the client has left
    assert_nothing_kept(untouched)


def test_oversized_upload_is_cut_off(untouched: LibraryServer) -> None:
    """While it arrives: the rest is not read."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    announced = untouched.server.client.post("/v1/documents", content=head + b"1" * 300_000, headers=form)
    assert announced.status_code == 413
    assert "300000 bytes" in announced.json()["message"]
    with create_connection(("127.0.0.1", untouched.server.port), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for data in (head, *[b"1" * 100_000] * 3):  # and no end
            connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    wait_until(lambda: not list((untouched.media / "incoming").iterdir()))
    assert_nothing_kept(untouched)


def test_slow_and_too_many_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with serve_library(tmp_path, settings=ServerSettings(timeout_s=0.5)) as library:
        with create_connection(("127.0.0.1", library.server.port), timeout=60) as connection:
            connection.sendall(request + b"Content-Length: 100\r\n\r\n--x")
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        uploads = library.server.app.state.library.uploads
        with uploads.lease() as lease:
            lease.add(16)
            response = library.server.client.post("/v1/documents", files={"file": ("a.png", b"1")})
            assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        monkeypatch.setattr(media_folder, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        response = library.server.client.post("/v1/documents", files={"file": ("a.png", b"1")})
        assert response.status_code == 507


def test_form_of_another_site_is_refused(untouched: LibraryServer) -> None:
    response = untouched.server.client.post(
        "/v1/documents", files={"file": ("a.png", b"1")}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert response.status_code == 403
    content = json.dumps({"documents": [{"url": "data:,a", "source": "a.txt"}]})
    response = untouched.server.client.post("/v1/documents", content=content, headers={"Content-Type": "text/plain"})
    assert response.status_code == 400


def test_server_without_a_media_folder_takes_no_documents() -> None:
    with open_embedder(SERVER_POLICY) as embedder:
        with ModelServer(create_app(embedder=embedder, store=open_store(":memory:"))) as server:
            response = server.client.post("/v1/documents", files={"file": ("a.png", b"1")})
            assert response.status_code == 409
            assert "--media DIR" in response.json()["message"]
            assert server.client.get("/v1/documents/jobs").status_code == 409
            assert server.client.get("/v1/documents").json()["total"] == 0
            assert server.client.delete("/v1/documents", params={"source": "a"}).json() == {"deleted": 0}
        reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
        with reranker, ModelServer(create_app(reranker=reranker)) as server:
            for path in ("/", "/v1/search", "/v1/documents", "/page/app.js"):
                assert server.client.get(path).status_code == 404
