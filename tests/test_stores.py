"""The same promises, kept by every store: Qdrant and Chroma, embedded and as servers."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qdrant_client import QdrantClient
from qwen3vl_qdrant import QdrantStore

from qwen3vl import Document, Point, RecipeError, Report, Search, Store, StoreError, aingest, ingest
from qwen3vl.ingestion.buffer import BATCH
from qwen3vl.ingestion.pipeline import LOOKUP_BATCH
from tests.support import store_backends as places
from tests.support.fake_embedder import Precomputed, passages, recipe, vector
from tests.support.store_backends import Open


@pytest.fixture(params=places.NAMES)
def place(request: pytest.FixtureRequest, tmp_path: Path, chroma_port: int) -> Iterator[Open]:
    with places.opened(request.param, tmp_path, lambda: chroma_port) as open_one:
        yield open_one


@pytest.fixture
def store(place: Open) -> Store:
    return place()


def asked(document: Document) -> np.ndarray:
    return vector(document.input)


def test_what_goes_in_comes_out(store: Store) -> None:
    documents = [
        *passages(20),
        Document("a.png", "picture", "c1", image="/pictures/a.png"),
        Document("b.pdf", "page", "c2", locator="page=3", text="words", image="b.pdf#page=3", fused=False),
        Document("c.mp4", "clip", "c3", locator="t=0,30", video="c.mp4#t=0,30", metadata={"start": 0, "end": 30.5}),
    ]
    report = ingest(documents, Precomputed(), store)
    assert (report.added, report.failed, store.count()) == (23, [], 23)
    for document in documents:
        (hit,) = store.search(asked(document), 1)
        assert hit.document == document
        assert hit.id == store.point_id(document, recipe())
        assert hit.score == pytest.approx(1, abs=1e-5)
    hits = store.search(asked(documents[-2]), 23, where={"kind": "page"})
    assert [(hit.document.page, hit.document.seconds) for hit in hits] == [(3, None)]
    assert [hit.document.seconds for hit in store.search(asked(documents[-1]), 1)] == [(0, 30)]


def test_a_second_run_embeds_nothing(store: Store) -> None:
    embedder = Precomputed()
    documents = passages(300)
    ingest(documents, embedder, store)
    report = ingest(documents, embedder, store, sync=True)
    assert (report.added, report.unchanged, report.deleted, len(embedder.embedded)) == (0, 300, 0, 300)


def test_equal_content_is_embedded_once(store: Store) -> None:
    embedder = Precomputed()
    documents = passages(100)
    copies = [replace(document, source=f"copies/{document.source}") for document in documents]
    report = ingest([*documents, *documents, *copies], embedder, store)
    assert (report.added, report.unchanged, len(embedder.embedded)) == (200, 100, 100)
    assert {hit.document.source for hit in store.search(asked(documents[4]), 2)} == {"notes/1.md", "copies/notes/1.md"}


def test_sync_replaces_and_deletes(store: Store) -> None:
    documents = passages(30)
    embedder = Precomputed()
    ingest(documents, embedder, store)
    changed = replace(documents[0], text="another text")
    report = ingest([changed, *documents[1:20]], embedder, store, sync="sources")
    # The seventh source, of which two passages came, lost its third; the last three sources did not come at all.
    assert (report.added, report.unchanged, report.replaced, report.deleted) == (1, 19, 1, 1)
    assert store.count() == 29
    report = ingest([changed, *documents[1:20]], embedder, store, sync=True)
    assert (report.unchanged, report.replaced, report.deleted) == (20, 0, 9)
    assert {stored.id for stored in store.scan()} == {
        store.point_id(each, recipe()) for each in [changed, *documents[1:20]]
    }


def test_content_of_an_earlier_run_is_not_embedded_again(store: Store) -> None:
    embedder = Precomputed()
    documents = passages(70)
    ingest(documents, embedder, store)
    copies = [replace(document, source=f"copies/{document.source}") for document in documents]
    report = ingest([*documents, *copies], embedder, store)
    assert (report.added, report.unchanged, len(embedder.embedded)) == (70, 70, 70)


def test_few_contents_in_many_documents(store: Store) -> None:
    """An embedder that looks far ahead, as real ones do, and a stream that repeats itself."""

    class Windowed(Precomputed):
        def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
            held: list[Any] = []
            for each in super().stream(inputs):
                held.append(each)
                if len(held) == 256:
                    yield from held
                    held = []
            yield from held

    documents = (Document(f"{number}", "text", text=f"text {number % 3}") for number in range(6000))
    drawn = 0

    def counted() -> Iterator[Document]:
        nonlocal drawn
        for document in documents:
            drawn += 1
            yield document

    ahead = 0

    def progress(report: Report) -> None:
        nonlocal ahead
        ahead = max(ahead, drawn - report.seen)

    report = ingest(counted(), Windowed(), store, progress=progress)
    assert report.added == 6000
    # Two lookups that wait, two under way, a window, and what is not written yet.
    assert ahead <= 4 * LOOKUP_BATCH + 256 + BATCH


def test_a_mistyped_sync_removes_nothing(store: Store) -> None:
    ingest(passages(6), Precomputed(), store)
    with pytest.raises(ValueError, match="sync is 'source'"):
        ingest(passages(1), Precomputed(), store, sync="source")  # type: ignore[arg-type]
    assert store.count() == 6


def test_equal_settings_are_one_recipe(store: Store) -> None:
    ingest(passages(5), Precomputed(fps=1.0), store)
    report = ingest(passages(5), Precomputed(fps=1, exif=0), store)
    assert (report.added, report.unchanged) == (0, 5)


def test_a_refused_point_costs_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store does not take, though it is JSON, is found out and named."""
    inner = store._upsert

    async def choosy(points: Sequence[Point]) -> None:
        if any(point.document.metadata["number"] == 33 for point in points):
            raise StoreError("it is not taken", invalid_request=True)
        await inner(points)

    monkeypatch.setattr(store, "_upsert", choosy)
    report = ingest(passages(60), Precomputed(), store)
    assert report.added == store.count() == 59
    ((name, reason),) = report.failed
    assert name == "notes/11.md#lines=33,33"
    assert "not taken" in reason


def test_filters(store: Store) -> None:
    documents = passages(40)
    ingest(documents, Precomputed(), store)

    def found(where: object) -> set[int]:
        return {int(hit.document.metadata["number"]) for hit in store.search(asked(documents[0]), 100, where=where)}

    assert found({"source": "notes/2.md"}) == {6, 7, 8}
    assert found({"source": ["notes/2.md", "notes/3.md"], "even": True}) == {6, 8, 10}
    assert found({"number": {"gte": 3, "lt": 6}}) == {3, 4, 5}
    assert found({"share": {"gt": 5.0}}) == {36, 37, 38, 39}
    assert found({"number": 7}) == {7}
    assert found({"source": "nowhere"}) == set()
    assert found({"source": []}) == set()
    assert found({"share": [0.0, 1.0], "even": [True, False]}) == {0, 7}
    store.delete_where({"source": []})
    assert store.count() == 40
    with pytest.raises((ValueError, StoreError), match="filter"):
        found("source = 1")


def test_pages_thresholds_and_groups(store: Store) -> None:
    documents = passages(60)
    ingest(documents, Precomputed(), store)
    query = asked(documents[10])
    everything = store.search(query, 60)
    assert len(everything) == 60
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    pages = [hit.id for offset in range(0, 60, 7) for hit in store.search(query, 7, offset=offset)]
    assert pages == [hit.id for hit in everything]
    edge = (everything[4].score + everything[5].score) / 2
    assert [hit.id for hit in store.search(query, 60, threshold=edge)] == [hit.id for hit in everything[:5]]
    best: dict[str, str] = {}
    for hit in everything:
        best.setdefault(hit.document.source, hit.id)
    assert [hit.id for hit in store.search(query, 8, one_per="source")] == list(best.values())[:8]
    assert [hit.id for hit in store.search(query, 4, one_per="source", offset=3)] == list(best.values())[3:7]


def test_groups_by_metadata(store: Store) -> None:
    documents = [
        Document(f"{number}", "text", text=f"{number}", metadata={"name": "x"} if number % 2 else {"other": 1})
        for number in range(8)
    ]
    ingest(documents, Precomputed(), store)
    assert len(store.search(vector("q"), 8, one_per="name")) == 1
    with_and_without = store.search_many([Search(vector("q"), 8, one_per="name"), Search(vector("q"), 8)])
    assert [len(hits) for hits in with_and_without] == [1, 8]


def test_many_searches_at_once(store: Store) -> None:
    documents = passages(50)
    ingest(documents, Precomputed(), store)
    found = store.search_many([Search(asked(document), 3) for document in documents[:20]])
    assert [hits[0].document for hits in found] == documents[:20]
    assert store.search_many([]) == []


def test_tenants_do_not_see_each_other(place: Open) -> None:
    documents = passages(12)
    stores = {name: place(tenant=name) for name in ("ann", "bob")}
    for name, store in stores.items():
        ingest(documents if name == "ann" else documents[:6], Precomputed(), store)
    assert [store.count() for store in stores.values()] == [12, 6]
    assert place().count() == 18
    bob = stores["bob"]
    assert len(bob.search(asked(documents[11]), 20)) == 6
    assert all(hit.document in documents for hit in bob.search(asked(documents[0]), 20))
    hers = [stored.id for stored in stores["ann"].scan()]
    assert bob.existing(hers) == set()
    assert bob.vectors(hers) == {}
    nothing: Any
    for nothing in (None, {}):
        with pytest.raises((ValueError, StoreError), match="needs a filter"):
            bob.delete_where(nothing)
    bob.delete(hers)
    bob.delete_where({"source": "notes/0.md"})
    assert [store.count() for store in stores.values()] == [12, 3]
    report = ingest(documents[:3], Precomputed(), bob, sync=True)
    assert (report.added, report.deleted) == (3, 3)
    assert stores["ann"].count() == 12


def test_delete_by_source(store: Store) -> None:
    documents = passages(9)
    ingest(documents, Precomputed(), store)
    store.delete_where({"source": "notes/1.md"})
    assert {stored.source for stored in store.scan()} == {"notes/0.md", "notes/2.md"}
    with pytest.raises((ValueError, StoreError), match="needs a filter"):
        store.delete_where(None)
    store.delete(["00000000-0000-0000-0000-000000000000"])
    assert store.count() == 6


@pytest.mark.parametrize(
    ("field", "value"),
    [("dimensions", 16), ("instruction", "Another."), ("max_pixels", 5000), ("weights", "1" * 32), ("fps", 2.0)],
)
def test_another_recipe_is_refused_by_name(store: Store, field: str, value: object) -> None:
    ingest(passages(2), Precomputed(), store)
    other = Precomputed(**{field: value})
    with pytest.raises(RecipeError, match=field):
        ingest(passages(2), other, store)
    assert other.embedded == []
    assert store.count() == 2


def test_more_points_than_one_request_takes(place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("qwen3vl_qdrant.store", "qwen3vl_chroma.store"):
        monkeypatch.setattr(f"{module}.REQUEST_BYTES", 20_000)
    store = place()
    documents = passages(120)
    assert ingest(documents, Precomputed(), store).added == 120
    assert {stored.id for stored in store.scan()} == {store.point_id(each, recipe()) for each in documents}


def test_what_cannot_be_stored_costs_nobody_else(store: Store) -> None:
    bad = [
        Document("bytes", "text", text="a", metadata={"raw": b"x"}),
        Document("nan", "text", text="b", metadata={"score": float("nan")}),
        Document("half", "text", text="half a pair: \ud83d"),
        Document("own", "text", text="c", metadata={"image": "/etc/passwd"}),
        Document("key", "text", text="d", metadata={"": 1}),
    ]
    embedder = Precomputed()
    report = ingest([*bad, *passages(5)], embedder, store)
    assert (report.added, len(embedder.embedded)) == (5, 5)
    assert [name for name, _ in report.failed] == ["bytes", "nan", "half", "own", "key"]
    assert all("cannot be stored" in reason or "its metadata" in reason for _, reason in report.failed)


def test_a_collection_of_somebody_else(place: Open) -> None:
    store = place()
    client = store.client  # type: ignore[attr-defined]
    collection = store.collection
    if hasattr(client, "heartbeat"):
        client.create_collection(collection)
    else:
        from qdrant_client import models

        client.create_collection(collection, models.VectorParams(size=4, distance=models.Distance.DOT))
    with pytest.raises(StoreError, match="was not made by qwen3vl"):
        ingest(passages(1), Precomputed(), store)


def test_thumbnails_on_request(store: Store, tmp_path: Path, media: dict[str, Path]) -> None:
    random = np.random.default_rng(1)
    Image.fromarray(random.integers(0, 256, (400, 600, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    documents = [
        Document("noise", "picture", image=str(tmp_path / "noise.png")),
        Document("clip", "clip", video=str(media["clip"])),
        Document("gone", "picture", image=str(tmp_path / "gone.png")),
        *passages(1),
    ]
    ingest(documents, Precomputed(), store, thumbnails=3000)
    shown = {hit.document.source: hit.document.metadata.get("thumbnail") for hit in store.search(vector("x"), 9)}
    assert {source for source, uri in shown.items() if uri} == {"noise", "clip"}
    for source in ("noise", "clip"):
        uri = str(shown[source])
        assert len(uri) <= 3000
        assert min(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).size) > 8


@pytest.mark.parametrize("name", ["qdrant", "chroma", "qdrant-server"])
def test_awaited_clients(name: str, chroma_port: int) -> None:
    """Ingestion and search with a client that is awaited; the event loop goes on meanwhile."""
    documents = passages(1600)
    turns: list[float] = []

    async def ticking() -> None:
        while True:
            turns.append(time.monotonic())
            await asyncio.sleep(0.005)

    async def stream() -> AsyncIterator[Document]:
        for document in documents:
            yield document

    async def work() -> None:
        store = await places.opened_async(name, lambda: chroma_port)
        ticker = asyncio.create_task(ticking())
        embedder = Precomputed()
        report = await aingest(stream(), embedder, store)
        assert (report.added, await store.acount()) == (1600, 1600)
        report = await aingest(documents[:100], embedder, store, sync=True)
        assert (report.unchanged, report.deleted, len(embedder.embedded)) == (100, 1500, 1600)
        (hit, *_) = await store.asearch(asked(documents[7]), 3)
        assert hit.document == documents[7]
        assert len([stored async for stored in store.ascan()]) == 100
        assert await store.arecipe() == embedder.recipe
        with pytest.raises(StoreError, match="has to be awaited"):
            store.count()
        ticker.cancel()

    asyncio.run(work())
    assert len(turns) > 20


def test_many_ingestions_at_once(chroma_port: int) -> None:
    """More than the loop's own threads would serve, into one awaited store."""

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        store = await places.opened_async("chroma", lambda: chroma_port)

        async def stream(name: str) -> AsyncIterator[Document]:
            for document in passages(40, name):
                await asyncio.to_thread(time.sleep, 0.001)
                yield document

        requests = (aingest(stream(f"s{number}"), Precomputed(), store) for number in range(4))
        reports = await asyncio.wait_for(asyncio.gather(*requests), 60)
        assert [report.added for report in reports] == [40] * 4
        assert await store.acount() == 160

    asyncio.run(work())


def test_stores_of_one_embedded_client_take_turns() -> None:
    client = QdrantClient(":memory:")
    stores = [QdrantStore(client, tenant=name) for name in ("ann", "bob", "cat")]
    stores[0].create(recipe())
    with ThreadPoolExecutor(3) as pool:
        requests = [pool.submit(ingest, passages(700), Precomputed(), store) for store in stores]
        for _ in range(50):
            stores[0].search(vector("x"), 5)
        assert [request.result().added for request in requests] == [700] * 3
    assert [store.count() for store in stores] == [700] * 3


def test_a_loop_that_ends_waits_for_what_is_embedded(store: Store) -> None:
    embedder = Precomputed()

    async def slowly() -> AsyncIterator[Document]:
        for number, document in enumerate(passages(1000)):
            if number > 200:
                await asyncio.sleep(0.02)
            yield document

    async def work() -> None:
        task = asyncio.create_task(aingest(slowly(), embedder, store))
        while len(embedder.embedded) < 150:
            await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(work())
    assert store.count() == len(embedder.embedded) >= 150


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyboardInterrupt])
def test_a_stream_that_fails_is_told(store: Store, error: type[BaseException]) -> None:
    """And what came before is written."""
    documents = passages(200)

    def broken() -> Iterator[Document]:
        yield from documents
        raise error("the source is gone")

    async def broken_too() -> AsyncIterator[Document]:
        for document in broken():
            yield document

    with pytest.raises(error, match="the source is gone"):
        ingest(broken(), Precomputed(), store)
    assert store.count() == 200
    if error is not KeyboardInterrupt:
        with pytest.raises(error, match="the source is gone"):
            asyncio.run(aingest(broken_too(), Precomputed(), store))
    assert ingest(documents, Precomputed(), store).unchanged == 200


def test_cancelling_keeps_what_is_embedded(store: Store) -> None:
    documents = passages(2000)
    embedder = Precomputed()

    async def slowly() -> AsyncIterator[Document]:
        for number, document in enumerate(documents):
            if number > 150:
                await asyncio.sleep(0.05)
            yield document

    async def work() -> None:
        task = asyncio.create_task(aingest(slowly(), embedder, store))
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
