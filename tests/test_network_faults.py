"""What a bad network and a bad server do to an ingestion: it arrives, or the report names what did not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromadb
import httpx
import pytest
from qdrant_client import QdrantClient
from qwen3vl_chroma import ChromaStore
from qwen3vl_chroma.store import TIMEOUT
from qwen3vl_qdrant import QdrantStore

from qwen3vl import IngestError, Store, StoreError, ingest
from qwen3vl.stores.retry import Retry
from tests.support import qdrant_rest
from tests.support.fake_embedder import Precomputed, passages, recipe
from tests.support.proxy import FAULTS, Proxy, sometimes

QUICK = Retry(attempts=8, first=0.01, longest=0.05)
Through = Callable[[int, Retry], Store]


@pytest.fixture(params=["qdrant", "chroma"])
def wire(request: pytest.FixtureRequest, chroma_port: int) -> Iterator[tuple[int, Through]]:
    """A server's port, and how to open a store through another port."""
    if request.param == "chroma":
        collection = f"faults-{request.node.name.replace('[', '-').replace(']', '')}"

        def through(port: int, retry: Retry) -> Store:
            return ChromaStore(chromadb.HttpClient("127.0.0.1", port), collection, retry=retry)

        yield chroma_port, through
    else:
        with qdrant_rest.serving() as port:
            yield (
                port,
                lambda port, retry: QdrantStore(
                    QdrantClient("127.0.0.1", port=port, timeout=5, check_compatibility=False), retry=retry
                ),
            )


def test_everything_arrives(wire: tuple[int, Through]) -> None:
    port, through = wire
    documents = passages(600)
    wanted = None
    with Proxy(port, lambda *_: wanted(*_) if wanted else "") as proxy:
        store = through(proxy.port, QUICK)
        wanted = sometimes(0.5, 7, "collections")
        report = ingest(documents, Precomputed(), store)
        wanted = None
        assert (report.added, report.failed) == (600, [])
        assert set(FAULTS) <= set(proxy.faults)
        assert {stored.id for stored in store.scan()} == {store.point_id(each, recipe()) for each in documents}


def test_what_does_not_arrive_is_named(wire: tuple[int, Through]) -> None:
    """A server that refuses two writes for good, longer than the store's patience."""
    port, through = wire
    writes = 0

    def choose(method: str, path: str) -> str:
        nonlocal writes
        writing = path.split("?")[0].endswith(("/upsert", "/points")) and (method == "PUT" or "upsert" in path)
        writes += writing
        return "503" if writing and 3 <= writes < 9 else ""

    # More than four writes, of 512 points at most: the first run meets both.
    documents = passages(2400)
    with Proxy(port, choose) as proxy:
        store = through(proxy.port, Retry(attempts=3, first=0.01, longest=0.02))
        report = ingest(documents, Precomputed(), store)
        assert report.added + len(report.failed) == 2400
        assert 0 < len(report.failed) < 2400
        assert all("it was not written" in reason and "503" in reason for _, reason in report.failed)
        missing = {name for name, _ in report.failed}
        stored = {f"{stored.source}#{stored.locator}" for stored in store.scan()}
        assert stored == {each.name for each in documents} - missing
        again = ingest(documents, Precomputed(), store)
        assert (again.added, again.unchanged, again.failed) == (len(missing), 2400 - len(missing), [])


@pytest.mark.parametrize("status", ["503", "drop"])
def test_a_server_that_is_gone_ends_it(wire: tuple[int, Through], status: str) -> None:
    port, through = wire
    gone = False
    with Proxy(port, lambda *_: status if gone else "") as proxy:
        store = through(proxy.port, Retry(attempts=2, first=0.01, longest=0.02))
        store.create(recipe())
        documents = passages(6000)

        def stream() -> Iterator[Any]:
            nonlocal gone
            for number, document in enumerate(documents):
                gone = number > 1000
                yield document

        embedder = Precomputed()
        with pytest.raises(IngestError, match="goes on from there") as caught:
            ingest(stream(), embedder, store)
        gone = False
        assert caught.value.report.added == store.count()
        assert len(embedder.embedded) < 3000


def test_a_server_that_stalls(wire: tuple[int, Through]) -> None:
    """An answer that does not come in time is asked for again."""
    port, through = wire
    stalls = iter(["stall"])

    def choose(method: str, path: str) -> str:
        writing = path.split("?")[0].endswith(("/upsert", "/points")) and (method == "PUT" or "upsert" in path)
        return next(stalls, "") if writing else ""

    with Proxy(port, choose) as proxy:
        store = through(proxy.port, QUICK)
        if isinstance(store, ChromaStore):
            assert store.client._server._session.timeout == httpx.Timeout(TIMEOUT)
            store.client._server._session.timeout = httpx.Timeout(1)
        else:
            store = QdrantStore(QdrantClient("127.0.0.1", port=proxy.port, timeout=1, check_compatibility=False))
        report = ingest(passages(40), Precomputed(), store)
        assert (report.added, report.failed) == (40, [])
        assert store.count() == 40
        assert proxy.faults["stall"] == 1


def test_wrong_credentials_are_told_once(wire: tuple[int, Through]) -> None:
    port, through = wire
    refused = False
    with Proxy(port, lambda *_: "401" if refused else "") as proxy:
        store = through(proxy.port, QUICK)
        refused = True
        embedder = Precomputed()
        with pytest.raises(StoreError, match="credentials"):
            ingest(passages(10), embedder, store)
        assert embedder.embedded == []
        assert proxy.faults["401"] == 1


def test_a_full_disk(tmp_path: Path) -> None:
    """A disk that fills up: one clear error, and only what was written counts."""
    store = QdrantStore(QdrantClient(path=str(tmp_path / "store")))
    store.create(recipe())
    database = store.client._client.collections["qwen3vl"].storage.storage
    ingest(passages(20, "before"), Precomputed(), store)
    database.execute("PRAGMA max_page_count = 60")
    embedder = Precomputed()
    with pytest.raises(IngestError, match="full") as caught:
        ingest(passages(2000), embedder, store)
    assert len(embedder.embedded) < 2000
    store.close()
    kept = sqlite3.connect(tmp_path / "store" / "collection" / "qwen3vl" / "storage.sqlite")
    (rows,) = kept.execute("SELECT count(*) FROM points").fetchone()
    assert 20 + caught.value.report.added <= rows <= 60 * 4096
    again = QdrantStore(QdrantClient(path=str(tmp_path / "store")))
    report = ingest(passages(2000), Precomputed(), again)
    assert report.added + report.unchanged == 2000
    assert again.count() == 2020
