"""Stores in event loops: asynchronous clients, and blocking ones in threads."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import chromadb
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qwen3vl_chroma import AsyncChromaStore, ChromaStore
from qwen3vl_qdrant import AsyncQdrantStore, QdrantStore
from qwen3vl_qdrant.core import QdrantCore

from qwen3vl import Document, IngestError, Point, Store, StoreError, aingest, ingest, open_store
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.stores import blocking
from tests.support.fake_embedder import FakeEmbedder, passages, query_vector
from tests.support.store_backends import OpenStore, open_async_store


@pytest.fixture
def store(backend: OpenStore) -> Store:
    return backend()


@pytest.mark.parametrize("name", ["qdrant", "qdrant-edge", "chroma", "qdrant-server"])
def test_ingest_and_search_with_an_async_client(name: str, tmp_path: Path, chroma_port: int) -> None:
    """The event loop is not blocked meanwhile."""
    documents = passages(1600)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.005)

    async def stream() -> AsyncIterator[Document]:
        for document in documents:
            yield document

    async def work() -> None:
        store = await open_async_store(name, tmp_path, lambda: chroma_port)
        ticker = asyncio.create_task(tick())
        embedder = FakeEmbedder()
        report = await aingest(stream(), embedder, store)
        assert (report.added, await store.acount()) == (1600, 1600)
        report = await aingest(documents[:100], embedder, store, sync=True)
        assert (report.unchanged, report.deleted, len(embedder.embedded)) == (100, 1500, 1600)
        (hit, *_) = await store.asearch(query_vector(documents[7]), 3)
        assert hit.document == documents[7]
        assert len([point async for point in store.ascan()]) == 100
        assert await store.arecipe() == embedder.recipe
        ticker.cancel()

    asyncio.run(work())
    assert len(ticks) > 20


def test_more_ingestions_than_loop_threads_finish(tmp_path: Path, chroma_port: int) -> None:
    """All into one store with an asynchronous client, whose stream and requests use the loop's threads too."""

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        store = await open_async_store("chroma", tmp_path, lambda: chroma_port)

        async def stream(name: str) -> AsyncIterator[Document]:
            for document in passages(40, name):
                await asyncio.to_thread(time.sleep, 0.001)
                yield document

        requests = (aingest(stream(f"s{number}"), FakeEmbedder(), store) for number in range(4))
        reports = await asyncio.wait_for(asyncio.gather(*requests), 60)
        assert [report.added for report in reports] == [40] * 4
        assert await store.acount() == 160

    asyncio.run(work())


def test_event_loop_that_ends_writes_what_is_embedded(store: Store) -> None:
    embedder = FakeEmbedder()

    async def slow_stream() -> AsyncIterator[Document]:
        for number, document in enumerate(passages(1000)):
            if number > 200:
                await asyncio.sleep(0.02)
            yield document

    async def work() -> None:
        task = asyncio.create_task(aingest(slow_stream(), embedder, store))
        while len(embedder.embedded) < 150:
            await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(work())
    assert store.count() == len(embedder.embedded) >= 150


def test_cancelling_writes_what_is_embedded(store: Store) -> None:
    documents = passages(2000)
    embedder = FakeEmbedder()

    async def slow_stream() -> AsyncIterator[Document]:
        for number, document in enumerate(documents):
            if number > 150:
                await asyncio.sleep(0.05)
            yield document

    async def work() -> None:
        task = asyncio.create_task(aingest(slow_stream(), embedder, store))
        while len(embedder.embedded) < 100:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert store.count() == len(embedder.embedded) >= 100
    report = ingest(documents, embedder, store)
    assert report.added + report.unchanged == 2000
    assert len(embedder.embedded) == 2000


@pytest.mark.parametrize("end", ["cancelled", "store fails"])
def test_nothing_waits_for_the_stream_when_an_ingestion_has_ended(end: str) -> None:
    async def work() -> None:
        events: list[str] = []
        is_waiting = asyncio.Event()

        class FailingCore(QdrantCore):
            async def write(self, points: Sequence[Point], payloads: Sequence[dict[str, Any]]) -> None:
                await is_waiting.wait()
                raise StoreError("the disk is full")

        async def stream() -> AsyncIterator[Document]:
            for document in passages(300):
                yield document
            is_waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
                events.append("cancelled")
                yield Document("last", "text", text="a text")  # nobody takes it
            events.append("went on")

        store = AsyncQdrantStore(AsyncQdrantClient(":memory:"))
        if end == "store fails":
            store.core = FailingCore(store.client, store.collection, None, None, None)
        documents = stream()
        task = asyncio.create_task(aingest(documents, FakeEmbedder(), store))
        if end == "store fails":
            with pytest.raises(IngestError, match="the disk is full"):
                await task
        else:
            await is_waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert events == ["cancelled"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(StopAsyncIteration):
            await anext(documents)
        assert events == ["cancelled", "went on"]

    asyncio.run(work())


def test_client_of_the_other_kind_is_an_error_that_names_the_class() -> None:
    blocking: Any = QdrantClient(":memory:")
    asynchronous: Any = AsyncQdrantClient(":memory:")
    with pytest.raises(TypeError, match=r"AsyncQdrantClient is asynchronous: use AsyncQdrantStore"):
        QdrantStore(asynchronous)
    with pytest.raises(TypeError, match=r"QdrantClient is blocking: use QdrantStore"):
        AsyncQdrantStore(blocking)


def test_chroma_client_of_the_other_kind_is_an_error_that_names_the_class(tmp_path: Path, chroma_port: int) -> None:
    blocking: Any = chromadb.EphemeralClient()
    asynchronous: Any = asyncio.run(open_async_store("chroma", tmp_path, lambda: chroma_port)).client
    with pytest.raises(TypeError, match=r"is asynchronous: use AsyncChromaStore"):
        ChromaStore(asynchronous)
    with pytest.raises(TypeError, match=r"is blocking: use ChromaStore"):
        AsyncChromaStore(blocking)


def test_async_store_has_no_blocking_methods() -> None:
    store = AsyncQdrantStore(AsyncQdrantClient(":memory:"))
    blocking = {name for name in vars(Store) if not name.startswith("_")}
    assert blocking >= {"recipe", "create", "existing", "vectors", "upsert", "delete", "scan", "search", "count"}
    assert not [name for name in blocking if hasattr(store, name)]


def test_ingest_rejects_an_async_store() -> None:
    store: Any = AsyncQdrantStore(AsyncQdrantClient(":memory:"))
    with pytest.raises(TypeError, match="use aingest"):
        ingest(passages(1), FakeEmbedder(), store)


async def test_blocking_store_has_async_methods_too(store: Store) -> None:
    documents = passages(5)
    await store.acreate(FakeEmbedder().recipe)
    report = await aingest(documents, FakeEmbedder(), store)
    assert report.added == await store.acount() == 5
    assert (await store.asearch(query_vector(documents[3]), 1))[0].document == documents[3]
    ids = [point.id async for point in store.ascan()]
    assert await store.aexisting(ids) == set(ids)
    assert set(await store.avectors(ids)) == set(ids)
    assert sorted((await store.adocuments(ids)).values(), key=documents.index) == documents
    assert not await store.ahas_words()
    await store.adelete(ids[:2])
    await store.adelete_where({"source": "nowhere"})
    assert await store.acount() == 3


def test_waiting_for_a_store_needs_no_thread_of_the_loop() -> None:
    """Servers need those, and a store may take minutes to answer."""
    store, executor, resume = open_store(":memory:"), ThreadPoolExecutor(1), threading.Event()

    async def count() -> None:
        asyncio.get_running_loop().set_default_executor(executor)
        occupied = executor.submit(resume.wait, 30)
        await store.acreate(FakeEmbedder().recipe)
        assert await store.acount() == 0
        assert not occupied.done()
        resume.set()

    asyncio.run(count())
    store.close()


def test_cancelled_call_that_has_not_begun_leaves_no_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    store, pool, resume = open_store(":memory:"), ForkSafeThreadPool(1, "test"), threading.Event()
    monkeypatch.setattr(blocking, "_pool", pool)

    async def cancel() -> None:
        pool.submit(resume.wait, 60)
        task = asyncio.create_task(store.acount())
        await asyncio.sleep(0)  # it waits for the thread
        task.cancel()
        await asyncio.wait([task])
        resume.set()
        assert task.cancelled()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(cancel())
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is RuntimeWarning] == []
    store.close()
    pool.close()
