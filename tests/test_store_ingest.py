"""The contract of `ingest` over all stores: each content is embedded once, and every failure is reported."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qdrant_client import models

from qwen3vl import Document, Point, Report, Store, StoreError, aingest, ingest, open_store
from qwen3vl.documents import LoadFailure
from qwen3vl.errors import ItemError
from qwen3vl.ingestion import MAX_UNWRITTEN_POINTS
from qwen3vl.ingestion.buffer import LOOKUP_BATCH
from qwen3vl.loaders import Loader
from tests.support.fake_embedder import FakeEmbedder, ReadingAhead, fake_recipe, fake_vector, passages, query_vector
from tests.support.store_backends import OpenStore


@pytest.fixture
def store(backend: OpenStore) -> Store:
    return backend()


def test_second_run_embeds_nothing(store: Store) -> None:
    embedder = FakeEmbedder()
    documents = passages(300)
    ingest(documents, embedder, store)
    report = ingest(documents, embedder, store, sync=True)
    assert (report.added, report.unchanged, report.deleted, len(embedder.embedded)) == (0, 300, 0, 300)


def test_equal_content_is_embedded_once(store: Store) -> None:
    embedder = FakeEmbedder()
    documents = passages(100)
    copies = [replace(document, source=f"copies/{document.source}") for document in documents]
    report = ingest([*documents, *documents, *copies], embedder, store)
    assert (report.added, report.unchanged, len(embedder.embedded)) == (200, 100, 100)
    assert {hit.document.source for hit in store.search(query_vector(documents[4]), 2)} == {
        "notes/1.md",
        "copies/notes/1.md",
    }


def test_content_of_an_earlier_run_is_not_embedded_again(store: Store) -> None:
    embedder = FakeEmbedder()
    documents = passages(70)
    ingest(documents, embedder, store)
    copies = [replace(document, source=f"copies/{document.source}") for document in documents]
    report = ingest([*documents, *copies], embedder, store)
    assert (report.added, report.unchanged, len(embedder.embedded)) == (70, 70, 70)


def test_sync_deletes_replaced_and_missing_points(store: Store) -> None:
    documents = passages(30)
    embedder = FakeEmbedder()
    ingest(documents, embedder, store)
    changed = replace(documents[0], text="another text")
    report = ingest([changed, *documents[1:20]], embedder, store, sync="sources")
    # The stream has two of the three passages of the seventh source, and nothing of the last three sources.
    assert (report.added, report.unchanged, report.replaced, report.deleted) == (1, 19, 1, 1)
    assert store.count() == 29
    report = ingest([changed, *documents[1:20]], embedder, store, sync=True)
    assert (report.unchanged, report.replaced, report.deleted) == (20, 0, 9)
    assert {point.id for point in store.scan()} == {
        store.point_id(document, fake_recipe()) for document in [changed, *documents[1:20]]
    }


def test_sync_keeps_points_of_others_whose_ids_are_no_uuids(
    backend: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = backend()
    documents = passages(6)
    ingest(documents, FakeEmbedder(), store)
    vector = fake_vector("x")
    if store.core.database == "Chroma":
        store.client.get_collection(store.collection).add(ids=["doc-1", "2"], embeddings=[vector, vector])
    else:
        points = [models.PointStruct(id=number, vector=vector.tolist(), payload={}) for number in (1, 2)]
        store.client.upsert(store.collection, points)
    report = ingest(documents[:3], FakeEmbedder(), store, sync=True)
    assert (report.unchanged, report.deleted, store.count()) == (3, 3, 5)
    assert caplog.text.count("sync keeps 2 points of") == 1


def test_invalid_sync_is_rejected_before_anything_is_deleted(store: Store) -> None:
    ingest(passages(6), FakeEmbedder(), store)
    with pytest.raises(ValueError, match="sync is 'source'"):
        ingest(passages(1), FakeEmbedder(), store, sync="source")  # type: ignore[arg-type]
    assert store.count() == 6


def test_repetitive_stream_is_read_in_bounded_memory(store: Store) -> None:
    documents = (Document(f"{number}", "text", text=f"text {number % 3}") for number in range(6000))
    num_read = 0

    def counted() -> Iterator[Document]:
        nonlocal num_read
        for document in documents:
            num_read += 1
            yield document

    max_in_progress = 0

    def progress(report: Report) -> None:
        nonlocal max_in_progress
        max_in_progress = max(max_in_progress, num_read - report.seen)

    embedder = ReadingAhead()
    report = ingest(counted(), embedder, store, progress=progress)
    assert (report.added, len(embedder.embedded)) == (6000, 3)
    # Two claims in the queue, one in each thread beside it, the embedder's window, and what is not written yet.
    assert max_in_progress <= 4 * LOOKUP_BATCH + 256 + MAX_UNWRITTEN_POINTS


def test_content_of_many_documents_is_embedded_once(store: Store) -> None:
    """More of them than wait for one content."""
    embedder = ReadingAhead()
    copies = [Document(f"{number}", "text", text="a blank page") for number in range(2000)]
    report = ingest([*copies[:900], *passages(5), *copies], embedder, store)
    assert (report.added, report.unchanged, report.failed) == (2005, 900, [])
    assert (len(embedder.embedded), store.count()) == (6, 2005)


def test_content_that_fails_is_reported_for_each_document(store: Store) -> None:
    class FailingEmbedder(ReadingAhead):
        def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
            start = len(self.embedded)
            for index, vector in super().stream(inputs):
                failed = self.embedded[start + index] == broken.input
                yield index, ItemError(index, "broken", "it is broken") if failed else vector

    broken = Document("broken", "text", text="broken")
    copies = [replace(broken, source=f"{number}") for number in range(600)]
    report = ingest([*copies, *passages(5)], FailingEmbedder(), store)
    assert report.added == store.count() == 5
    assert sorted(report.failed) == sorted((copy.source, "it is broken") for copy in copies)


def test_document_without_a_vector_or_an_error_is_a_failure(store: Store) -> None:
    class ForgetfulEmbedder(FakeEmbedder):
        def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
            return (result for result in super().stream(inputs) if result[0] != 2)

    report = ingest(passages(5), ForgetfulEmbedder(), store)
    assert (report.added, len(report.failed)) == (4, 1)
    assert report.failed[0] == ("notes/0.md#lines=2,2", "the embedder returned neither a vector nor an error for it")


@pytest.mark.parametrize("num_taken", [0, 2])
def test_embedder_that_takes_not_all_inputs_ends_the_run(num_taken: int, store: Store) -> None:
    class HastyEmbedder(FakeEmbedder):
        def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
            return super().stream(islice(inputs, num_taken))

    with pytest.raises(RuntimeError, match=r"HastyEmbedder\.stream ended before it had taken all inputs"):
        ingest(passages(5), HastyEmbedder(), store)
    assert store.count() == num_taken
    assert ingest(passages(5), FakeEmbedder(), store).added == 5 - num_taken


def test_documents_are_written_while_the_stream_pauses(store: Store) -> None:
    written = threading.Event()

    def stream() -> Iterator[Document]:
        yield from passages(3)
        assert written.wait(30), "nothing is written before the next document comes"
        yield from passages(2, "later")

    def progress(report: Report) -> None:
        if report.added == 3:
            written.set()

    embedder = ReadingAhead()
    report = ingest(stream(), embedder, store, progress=progress, sync=True)
    assert (report.added, report.failed, len(embedder.embedded), store.count()) == (5, [], 5, 5)


def test_documents_are_written_while_an_asynchronous_stream_pauses(store: Store) -> None:
    async def work() -> Report:
        written = asyncio.Event()

        async def stream() -> AsyncIterator[Document]:
            for document in passages(3):
                yield document
            await asyncio.wait_for(written.wait(), 30)

        def progress(report: Report) -> None:
            if report.added == 3:
                written.set()

        return await aingest(stream(), ReadingAhead(), store, progress=progress)

    assert asyncio.run(work()).added == store.count() == 3


def test_document_is_written_while_only_stored_ones_follow(store: Store) -> None:
    ingest(passages(1), FakeEmbedder(), store)
    written = threading.Event()

    def stream() -> Iterator[Document]:
        yield from passages(1, "new")
        for _ in range(300):
            yield from passages(1)
            if written.wait(0.1):
                return
        raise AssertionError("the embedder keeps the document")

    def progress(report: Report) -> None:
        if report.added:
            written.set()

    assert ingest(stream(), ReadingAhead(), store, progress=progress).added == 1


def test_only_the_rejected_point_is_not_written(store: Store) -> None:
    """A store that rejects a request because of one point: that one is found by bisection."""

    class RejectingStore(Store):
        def upsert(self, points: Sequence[Point]) -> None:
            if any(point.document.metadata["number"] == 33 for point in points):
                raise StoreError("it is rejected", invalid_request=True)
            super().upsert(points)

    report = ingest(passages(60), FakeEmbedder(), RejectingStore(store.core))
    assert report.added == store.count() == 59
    ((name, reason),) = report.failed
    assert name == "notes/11.md#lines=33,33"
    assert "it is rejected" in reason


def test_point_that_was_written_before_an_outage_is_no_failure(store: Store) -> None:
    """The store rejects one point, so that the others are written in parts, and is down for one of the parts."""

    class FailingStore(Store):
        def upsert(self, points: Sequence[Point]) -> None:
            numbers = {point.document.metadata["number"] for point in points}
            if 33 in numbers:
                raise StoreError("it is rejected", invalid_request=True)
            if 50 in numbers:
                raise StoreError("it is down", transient=True)
            super().upsert(points)

    report = ingest(passages(60), FakeEmbedder(), FailingStore(store.core))
    failed = dict(report.failed)
    stored = {f"{point.source}#{point.locator}" for point in store.scan()}
    assert len(failed) == len(report.failed) == 60 - report.added
    assert report.added == len(stored) > 0
    assert failed.keys().isdisjoint(stored)
    assert "it is rejected" in failed["notes/11.md#lines=33,33"]


def test_documents_that_cannot_be_stored_are_reported(store: Store) -> None:
    unstorable = [
        Document("bytes", "text", text="a", metadata={"raw": b"x"}),
        Document("nan", "text", text="b", metadata={"score": float("nan")}),
        Document("half", "text", text="half a pair: \ud83d"),
        Document("own", "text", text="c", metadata={"image": "/etc/passwd"}),
        Document("key", "text", text="d", metadata={"": 1}),
    ]
    embedder = FakeEmbedder()
    report = ingest([*unstorable, *passages(5)], embedder, store)
    assert (report.added, len(embedder.embedded)) == (5, 5)
    assert [name for name, _ in report.failed] == ["bytes", "nan", "half", "own", "key"]
    assert all(reason.startswith(("its metadata", "its text")) for _, reason in report.failed)


def test_thumbnails_are_stored_within_their_limit(store: Store, tmp_path: Path, media: dict[str, Path]) -> None:
    random = np.random.default_rng(1)
    Image.fromarray(random.integers(0, 256, (400, 600, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    documents = [
        Document("noise", "picture", image=str(tmp_path / "noise.png")),
        Document("clip", "clip", video=str(media["clip"])),
        Document("gone", "picture", image=str(tmp_path / "gone.png")),
        *passages(1),
    ]
    ingest(documents, FakeEmbedder(), store, thumbnails=3000)
    thumbnails = {
        hit.document.source: hit.document.metadata.get("thumbnail") for hit in store.search(fake_vector("x"), 9)
    }
    assert {source for source, uri in thumbnails.items() if uri} == {"noise", "clip"}
    for source in ("noise", "clip"):
        uri = str(thumbnails[source])
        assert len(uri) <= 3000
        assert min(Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).size) > 8


@pytest.mark.parametrize("error", [RuntimeError, ValueError, KeyboardInterrupt])
def test_error_of_the_stream_is_raised_after_writing_what_came_before(store: Store, error: type[BaseException]) -> None:
    documents = passages(200)

    def failing() -> Iterator[Document]:
        yield from documents
        raise error("the source is gone")

    async def failing_async() -> AsyncIterator[Document]:
        for document in failing():
            yield document

    with pytest.raises(error, match="the source is gone"):
        ingest(failing(), FakeEmbedder(), store)
    assert store.count() == 200
    if error is not KeyboardInterrupt:
        with pytest.raises(error, match="the source is gone"):
            asyncio.run(aingest(failing_async(), FakeEmbedder(), store))
    assert ingest(documents, FakeEmbedder(), store).unchanged == 200


def test_a_bucket_that_cannot_be_listed_keeps_its_points(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "library"))
    documents = passages(4, "s3://bucket/scans")
    ingest([*documents, *passages(2, "s3://bucket/other")], FakeEmbedder(), store)
    failures = [LoadFailure("s3://bucket/scans/", "no credentials")]
    report = ingest([*failures, *passages(1)], FakeEmbedder(), store, sync=True)
    assert (report.added, report.deleted) == (1, 2)
    assert {point.source for point in store.scan()} == {*(each.source for each in documents), "notes/0.md"}


def test_pattern_that_matches_nothing_keeps_the_points_of_files_that_would_match(tmp_path: Path) -> None:
    """Its disk may not be mounted."""
    disk, other = tmp_path / "disk", tmp_path / "other"
    for path in (disk / "a.txt", disk / "deep" / "b.txt", disk / "c.md", other / "d.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    store = open_store(":memory:")
    ingest(Loader().load([disk, other]), FakeEmbedder(), store)
    assert store.count() == 4
    disk.rename(tmp_path / "unmounted")
    report = ingest(Loader().load([f"{disk}/**/*.txt", other]), FakeEmbedder(), store, sync=True)
    assert [name for name, _ in report.failed] == [f"{disk}/**/*.txt"]
    assert {Path(point.source).name for point in store.scan()} == {"a.txt", "b.txt", "d.txt"}
    assert report.deleted == 1
    store.close()
