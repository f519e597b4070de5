"""Ingestion through a faulty network: every point arrives, or the report names those that do not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import chromadb
import httpx
import pytest
from qdrant_client import QdrantClient
from qwen3vl_chroma import ChromaStore
from qwen3vl_qdrant import QdrantStore

from qwen3vl import IngestError, Store, StoreError, ingest, open_store
from qwen3vl.stores.failures import DEFAULT_TIMEOUT_S
from qwen3vl.stores.retry import Retry
from tests.support import qdrant_rest
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, passages
from tests.support.proxy import FAULTS, Proxy, random_faults

QUICK_RETRY = Retry(attempts=8, initial_delay_s=0.01, max_delay_s=0.05)
Connect = Callable[[int, Retry], Store]
"""Opens a store through a port."""


def is_write(method: str, path: str) -> bool:
    return path.split("?")[0].endswith(("/upsert", "/points")) and (method == "PUT" or "upsert" in path)


@pytest.fixture(params=["qdrant", "chroma"])
def server(request: pytest.FixtureRequest, chroma_port: int) -> Iterator[tuple[int, Connect]]:
    """A server's port, and how to open a store through another port."""
    if request.param == "chroma":
        collection = f"faults-{request.node.name.replace('[', '-').replace(']', '')}"

        def connect(port: int, retry: Retry) -> Store:
            return ChromaStore(chromadb.HttpClient("127.0.0.1", port), collection, retry=retry)

        yield chroma_port, connect
    else:
        with qdrant_rest.serve() as port:
            yield (
                port,
                lambda port, retry: QdrantStore(
                    QdrantClient("127.0.0.1", port=port, timeout=5, check_compatibility=False), retry=retry
                ),
            )


def test_all_points_arrive_despite_random_faults(server: tuple[int, Connect]) -> None:
    port, connect = server
    documents = passages(600)
    choose_fault = None
    with Proxy(port, lambda *request: choose_fault(*request) if choose_fault else "") as proxy:
        store = connect(proxy.port, QUICK_RETRY)
        choose_fault = random_faults(0.5, 7, "collections")
        report = ingest(documents, FakeEmbedder(), store)
        choose_fault = None
        assert (report.added, report.failed) == (600, [])
        assert set(FAULTS) <= set(proxy.faults)
        assert {point.id for point in store.scan()} == {
            store.point_id(document, fake_recipe()) for document in documents
        }


def test_points_that_are_not_written_are_reported(server: tuple[int, Connect]) -> None:
    """The server rejects two writes more often than the store retries."""
    port, connect = server
    num_writes = 0

    def choose(method: str, path: str) -> str:
        nonlocal num_writes
        writing = is_write(method, path)
        num_writes += writing
        return "503" if writing and 3 <= num_writes < 9 else ""

    # More than four writes, of 512 points at most: both rejected writes are within the first run.
    documents = passages(2400)
    with Proxy(port, choose) as proxy:
        store = connect(proxy.port, Retry(attempts=3, initial_delay_s=0.01, max_delay_s=0.02))
        report = ingest(documents, FakeEmbedder(), store)
        assert report.added + len(report.failed) == 2400
        assert 0 < len(report.failed) < 2400
        assert all("it was not written" in reason and "503" in reason for _, reason in report.failed)
        missing = {name for name, _ in report.failed}
        stored = {f"{point.source}#{point.locator}" for point in store.scan()}
        assert stored == {document.name for document in documents} - missing
        again = ingest(documents, FakeEmbedder(), store)
        assert (again.added, again.unchanged, again.failed) == (len(missing), 2400 - len(missing), [])


@pytest.mark.parametrize("fault", ["503", "drop"])
def test_unreachable_server_ends_the_ingestion(server: tuple[int, Connect], fault: str) -> None:
    port, connect = server
    unreachable = False
    with Proxy(port, lambda *_: fault if unreachable else "") as proxy:
        store = connect(proxy.port, Retry(attempts=2, initial_delay_s=0.01, max_delay_s=0.02))
        store.create(fake_recipe())
        documents = passages(6000)

        def stream() -> Iterator[Any]:
            nonlocal unreachable
            for number, document in enumerate(documents):
                unreachable = number > 1000
                yield document

        embedder = FakeEmbedder()
        with pytest.raises(IngestError, match="goes on from there") as caught:
            ingest(stream(), embedder, store)
        unreachable = False
        assert caught.value.report.added == store.count()
        assert len(embedder.embedded) < 3000


def test_request_that_times_out_is_repeated(server: tuple[int, Connect]) -> None:
    port, connect = server
    stalls = iter(["stall"])

    def choose(method: str, path: str) -> str:
        return next(stalls, "") if is_write(method, path) else ""

    with Proxy(port, choose) as proxy:
        store = connect(proxy.port, QUICK_RETRY)
        if isinstance(store, ChromaStore):
            client: Any = store.client
            assert client._server._session.timeout == httpx.Timeout(DEFAULT_TIMEOUT_S)
            client._server._session.timeout = httpx.Timeout(1)
        else:
            store = QdrantStore(QdrantClient("127.0.0.1", port=proxy.port, timeout=1, check_compatibility=False))
        report = ingest(passages(40), FakeEmbedder(), store)
        assert (report.added, report.failed) == (40, [])
        assert store.count() == 40
        assert proxy.faults["stall"] == 1


def test_rejected_credentials_are_not_retried(server: tuple[int, Connect]) -> None:
    port, connect = server
    rejecting = False
    with Proxy(port, lambda *_: "401" if rejecting else "") as proxy:
        store = connect(proxy.port, QUICK_RETRY)
        rejecting = True
        embedder = FakeEmbedder()
        with pytest.raises(StoreError, match="credentials"):
            ingest(passages(10), embedder, store)
        assert embedder.embedded == []
        assert proxy.faults["401"] == 1


@pytest.mark.parametrize("root_path", ["/chroma", "/data bases/ü/chroma"])
def test_chroma_server_below_a_path(chroma_port: int, root_path: str) -> None:
    collection = f"below-{len(root_path)}"
    encoded = quote(root_path)
    with Proxy(chroma_port, root_path=encoded) as proxy:
        for number, end in enumerate(("", "/")):
            store = open_store(f"chroma:http://127.0.0.1:{proxy.port}{encoded}{end}", collection)
            report = ingest(passages(10), FakeEmbedder(), store)
            assert (report.added, report.unchanged, report.failed) == ((10, 0, []), (0, 10, []))[number]
        with pytest.raises(StoreError, match="cannot be opened"):
            open_store(f"chroma:http://127.0.0.1:{proxy.port}", collection)
    assert ChromaStore(chromadb.HttpClient("127.0.0.1", chroma_port), collection).count() == 10


def test_full_disk_ends_the_ingestion_with_written_points_counted(tmp_path: Path) -> None:
    store = QdrantStore(QdrantClient(path=str(tmp_path / "store")))
    store.create(fake_recipe())
    client: Any = store.client
    database = client._client.collections["qwen3vl"].storage.storage
    ingest(passages(20, "before"), FakeEmbedder(), store)
    max_pages = 60
    database.execute(f"PRAGMA max_page_count = {max_pages}")
    embedder = FakeEmbedder()
    with pytest.raises(IngestError, match="full") as caught:
        ingest(passages(2000), embedder, store)
    assert len(embedder.embedded) < 2000
    store.close()
    with closing(sqlite3.connect(tmp_path / "store" / "collection" / "qwen3vl" / "storage.sqlite")) as connection:
        (num_rows,) = connection.execute("SELECT count(*) FROM points").fetchone()
        (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
    assert num_pages <= max_pages
    # The points of the write that failed may be stored in part.
    assert 20 + caught.value.report.added <= num_rows <= 20 + len(embedder.embedded)
    reopened = QdrantStore(QdrantClient(path=str(tmp_path / "store")))
    report = ingest(passages(2000), FakeEmbedder(), reopened)
    assert report.added + report.unchanged == 2000
    assert reopened.count() == 2020
