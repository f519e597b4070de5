"""Copies of collections between all kinds of stores: complete, resumed, refused and checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qwen3vl_chroma import ChromaStore
from qwen3vl_qdrant import Layout, QdrantEdgeStore, QdrantStore, edge_client
from qwen3vl_qdrant.reading import engine_ids

from qwen3vl import CopyReport, Document, Point, RecipeError, Store, StoreError, copy_store, ingest
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, fake_vector, passages, query_vector
from tests.support.store_backends import OpenStore, open_backend

FOLDERS = ("qdrant-folder", "qdrant-edge", "chroma-folder", "qdrant-memory")
PAIRS = [
    *((source, destination) for source in FOLDERS for destination in FOLDERS),
    *(("qdrant-edge", "chroma-server"), ("chroma-server", "qdrant-edge"), ("chroma-memory", "qdrant-edge")),
    *(("qdrant-edge", "qdrant-server"), ("qdrant-server", "qdrant-edge")),
]
DOCUMENTS = [
    *passages(40),
    Document("a.png", "picture", "c1", image="/pictures/a.png", metadata={"thumbnail": "data:image/jpeg;base64,AA=="}),
    Document("b.pdf", "page", "c2", locator="page=3", text="words", image="b.pdf#page=3", fused=False),
    Document("c.mp4", "clip", "c3", locator="t=0,30", video="c.mp4#t=0,30", metadata={"start": 0, "end": 30.5}),
    Document("twice.txt", "text", text="passage 0 of notes: naïve café 数字"),  # the vector of another document
]
Opener = Any
"""Opens stores of one backend: `open_of("qdrant-edge", "name")(**options)`."""


@pytest.fixture
def open_of(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opener]:
    with ExitStack() as stack:

        def open_of_backend(name: str, folder: str) -> OpenStore:
            (tmp_path / folder).mkdir()
            port = lambda: request.getfixturevalue("chroma_port")  # noqa: E731
            return stack.enter_context(open_backend(name, tmp_path / folder, port))

        yield open_of_backend


def fill(store: Store, documents: list[Document] = DOCUMENTS) -> Store:
    assert ingest(documents, FakeEmbedder(), store).failed == []
    return store


def memory_store(**options: Any) -> QdrantStore:
    return QdrantStore(QdrantClient(":memory:"), **options)


@pytest.mark.parametrize(("source_kind", "destination_kind"), PAIRS)
def test_copy_has_all_that_the_source_has(source_kind: str, destination_kind: str, open_of: Opener) -> None:
    open_source, open_destination = open_of(source_kind, "source"), open_of(destination_kind, "destination")
    source, destination = open_source(), open_destination()
    fill(source)
    fill(open_source(tenant="ann"), DOCUMENTS[:10])
    reports: list[CopyReport] = []
    report = copy_store(source, destination, progress=lambda report: reports.append(replace(report)))
    assert report == CopyReport(total=54, copied=54, present=0, indexing_s=0.0, checked=54)
    assert [(shown.copied, shown.checked) for shown in reports] == [(0, 0), (54, 0), (54, 54)]
    assert destination.recipe() == source.recipe() == fake_recipe()
    assert {(point.id, point.source, point.locator) for point in destination.scan()} == {
        (point.id, point.source, point.locator) for point in source.scan()
    }
    ids = [point.id for point in source.scan()]
    copied = destination.vectors(ids)
    for point_id, vector in source.vectors(ids).items():
        np.testing.assert_allclose(copied[point_id], vector, atol=1e-6)
    ann = open_destination(tenant="ann")
    assert (ann.count(), destination.count()) == (10, 54)
    for document in DOCUMENTS[1:-1]:
        (hit, *_) = destination.search(query_vector(document), 1)
        assert hit.document == document
    hits = ann.search(query_vector(DOCUMENTS[2]), 20, where={"even": True, "number": {"gte": 2}})
    assert hits[0].document == DOCUMENTS[2]
    assert {hit.document.metadata["number"] for hit in hits} == {2, 4, 6, 8}
    # What an ingestion finds there is as if it had written it; a second copy has nothing to do.
    assert ingest(DOCUMENTS, FakeEmbedder(), destination).unchanged == len(DOCUMENTS)
    again = copy_store(source, destination)
    assert (again.copied, again.present, again.checked) == (0, 54, 54)


@pytest.mark.parametrize("kind", ["qdrant-edge", "chroma-folder"])
def test_payload_of_others_is_kept_within_a_database(kind: str, open_of: Opener) -> None:
    source, destination = open_of(kind, "source")(), open_of(kind, "destination")()
    fill(source, DOCUMENTS[:3])
    point_id = source.point_id(DOCUMENTS[1], fake_recipe())
    payload: dict[str, Any] = {"_node_content": '{"metadata": {"by": "LlamaIndex"}}', "file": "a", "level": 3}

    def stored(store: Store) -> Any:
        if isinstance(store, QdrantStore):
            return store.client.retrieve(store.collection, [point_id])[0].payload
        assert isinstance(store, ChromaStore)
        return (store.client.get_collection(store.collection).get([point_id])["metadatas"] or [])[0]

    if isinstance(source, QdrantStore):
        vector = query_vector(DOCUMENTS[1]).tolist()
        source.client.upsert(source.collection, [models.PointStruct(id=point_id, vector=vector, payload=payload)])
    else:
        source.client.get_collection(source.collection).update([point_id], metadatas=[payload])
    copy_store(source, destination)
    assert stored(destination) == stored(source)
    assert stored(destination)["file"] == "a"


def test_copy_of_a_tenant_and_refusal_of_another_one() -> None:
    client = QdrantClient(":memory:")
    for name in ("ann", "bob"):
        fill(QdrantStore(client, tenant=name), DOCUMENTS[:10])
    ann = QdrantStore(client, tenant="ann")
    destination = memory_store()
    assert copy_store(ann, destination).copied == 10
    assert destination.count() == QdrantStore(destination.client, tenant="ann").count() == 10
    assert copy_store(ann, memory_store(tenant="ann")).copied == 10
    for source in (ann, QdrantStore(client)):
        refused = memory_store(tenant="bob")
        with pytest.raises(StoreError, match="points keep their tenant"):
            copy_store(source, refused)
        assert refused.recipe() is None


def test_same_collection_is_refused(tmp_path: Path) -> None:
    source = fill(QdrantEdgeStore(tmp_path / "store"))
    with pytest.raises(StoreError, match="copied into itself: name another location"):
        copy_store(source, QdrantEdgeStore(tmp_path / "x" / ".." / "store"))
    with edge_client(tmp_path / "store") as client:
        for pair in ((source, QdrantStore(client)), (QdrantStore(client), source)):
            with pytest.raises(StoreError, match="copied into itself"):
                copy_store(*pair)
        assert copy_store(QdrantStore(client), QdrantStore(client, "third")).copied == len(DOCUMENTS)
    other = QdrantEdgeStore(tmp_path / "store", "other")
    assert copy_store(source, other).copied == len(DOCUMENTS)
    memory = memory_store()
    with pytest.raises(StoreError, match="copied into itself"):
        copy_store(memory, QdrantStore(memory.client))


def test_other_recipe_is_refused_and_other_points_are_kept() -> None:
    source = fill(memory_store(), DOCUMENTS[:20])
    other = memory_store()
    ingest(passages(3), FakeEmbedder(instruction="Another."), other)
    with pytest.raises(RecipeError, match=r"instruction is 'Another.' there and .* here"):
        copy_store(source, other)
    assert other.count() == 3
    foreign = memory_store()
    foreign.client.create_collection("qwen3vl", models.VectorParams(size=32, distance=models.Distance.COSINE))
    with pytest.raises(StoreError, match="was not made by qwen3vl"):
        copy_store(source, foreign)
    merged = fill(memory_store(), DOCUMENTS[10:30])
    report = copy_store(source, merged)
    assert (report.copied, report.present, merged.count()) == (10, 10, 30)
    assert copy_store(merged, source).copied == 10


def test_source_that_does_not_exist_makes_no_destination(tmp_path: Path) -> None:
    destination = QdrantEdgeStore(tmp_path / "destination")
    with pytest.raises(StoreError, match="'qwen3vl' does not exist: nothing was ingested"):
        copy_store(memory_store(), destination)
    assert destination.recipe() is None


@pytest.mark.parametrize(
    "layout", [Layout(short=8), Layout(short=8, quantization="scalar"), Layout(quantization="turbo")]
)
def test_copy_into_another_layout_and_back(layout: Layout, tmp_path: Path) -> None:
    plain = fill(memory_store())
    compact = QdrantEdgeStore(tmp_path / "compact", layout=layout)
    assert copy_store(plain, compact).copied == len(DOCUMENTS)
    (vectors,) = (point.vector for point in compact.client.scroll("qwen3vl", limit=1, with_vectors=True)[0])
    assert isinstance(vectors, dict) == (layout.short is not None)
    # Without a layout of its own, a new destination has the source's; with one, it has that.
    kept = QdrantEdgeStore(tmp_path / "kept")
    copy_store(compact, kept)
    assert kept.layout == layout
    full = QdrantEdgeStore(tmp_path / "full", layout=Layout())
    copy_store(compact, full)
    assert full.layout == Layout()
    with pytest.raises(RecipeError, match=r"its layout's (short|quantization) is"):
        copy_store(plain, QdrantEdgeStore(tmp_path / "full", layout=layout))
    assert copy_store(plain, QdrantEdgeStore(tmp_path / "full")).present == len(DOCUMENTS)


def test_large_copy_is_indexed_and_read_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)
    source = fill(memory_store(), passages(2500))
    num_read: list[int] = []
    fetch_points = source.core.fetch_points

    async def counted(ids: Any) -> Any:
        num_read.append(len(ids))
        return await fetch_points(ids)

    monkeypatch.setattr(source.core, "fetch_points", counted)
    destination = QdrantEdgeStore(tmp_path / "destination")
    report = copy_store(source, destination)
    assert (report.copied, report.checked, max(num_read)) == (2500, 2500, 512)
    assert report.indexing_s > 0
    assert destination.client.get_collection("qwen3vl").indexed_vectors_count == 2500


SPOILED = 30


def spoil(store: QdrantStore, kind: str) -> None:
    """Write wrong things beside the right ones, so that the copy skips them."""
    for document in DOCUMENTS[:SPOILED]:
        point_id = store.point_id(document, fake_recipe())
        vector, payload = query_vector(document), store.core.payload(Point(point_id, query_vector(document), document))
        if kind == "vector":
            vector = fake_vector("another")
        if kind == "document":
            payload["page_content"] = "another"
        vectors: Any = {"": vector.tolist(), "short": vector[:8].tolist() if kind != "short" else [1.0] + [0.0] * 7}
        store.client.upsert("qwen3vl", [models.PointStruct(id=point_id, vector=vectors, payload=payload)])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("vector", r"30 of 44 compared points have another vector \(\S+, \S+, \S+, …\)"),
        ("document", r"\d+ of \d+ hits have another document"),
        ("short", r"\d of 10 points are not the nearest to their own vector"),
    ],
)
def test_check_names_what_differs(kind: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(memory_store())
    destination = memory_store(layout=Layout(short=8))
    destination.create(fake_recipe())
    spoil(destination, kind)
    monkeypatch.setattr("qwen3vl_qdrant.layout.MIN_SHORT_CANDIDATES", 1)
    monkeypatch.setattr("qwen3vl_qdrant.layout.SHORT_OVERSAMPLING", 2)
    with pytest.raises(StoreError, match=rf"'qwen3vl' differs from .*: {words}.* have to be deleted from the copy"):
        copy_store(source, destination)
    destination.delete([destination.point_id(document, fake_recipe()) for document in DOCUMENTS[:SPOILED]])
    assert copy_store(source, destination).copied == SPOILED


def test_lost_points_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = fill(memory_store()), memory_store()
    build_index = destination.core.build_index

    async def lose(progress: Any) -> None:
        await destination.core.delete([destination.point_id(document, fake_recipe()) for document in DOCUMENTS[:2]])
        await build_index(progress)

    monkeypatch.setattr(destination.core, "build_index", lose)
    with pytest.raises(StoreError, match=r"2 of 44 points are missing \(\S+, \S+\). Missing points are copied by the"):
        copy_store(source, destination)


def test_points_of_others_without_a_source_are_copied_and_found_by_words() -> None:
    source = fill(memory_store(), DOCUMENTS[:3])
    payload = {"page_content": "written by LangChain", "metadata": {"source": None, "locator": 5}}
    vector = fake_vector("others").tolist()
    source.client.upsert("qwen3vl", [models.PointStruct(id=str(UUID(int=9)), vector=vector, payload=payload)])
    destination = memory_store(layout=Layout(hybrid=True))
    assert copy_store(source, destination).copied == 4
    (hit,) = destination.search(fake_vector("others"), 1, mode="text", text="LangChain")
    assert (hit.document.source, hit.document.locator, hit.document.text) == ("", "5", "written by LangChain")


@pytest.mark.parametrize("kind", ["qdrant-memory", "qdrant-edge", "qdrant-server"])
def test_points_of_others_with_numbers_as_ids_are_copied_read_and_deleted(kind: str, open_of: Opener) -> None:
    source, same, chroma = open_of(kind, "a")(), open_of(kind, "b")(), open_of("chroma-memory", "c")()
    fill(source, DOCUMENTS[:3])
    for number in (7, 2**64 - 1):
        payload = {"page_content": f"number {number}", "metadata": {"source": "others"}}
        point = models.PointStruct(id=number, vector=fake_vector(number).tolist(), payload=payload)
        source.client.upsert(source.collection, [point])
    ids = ["7", str(2**64 - 1)]
    for store in (same, chroma, open_of(kind, "d")()):
        origin = source if store in (same, chroma) else chroma
        assert copy_store(origin, store).copied == 5
        assert store.existing([*ids, "8"]) == {*ids}
        np.testing.assert_allclose(store.vectors(ids)["7"], fake_vector(7), atol=1e-5)
        assert store.documents(ids)["7"].text == "number 7"
        assert [hit.id for hit in store.search(fake_vector(7), 1)] == ["7"]
        store.delete(ids)
        assert store.count() == 3
        copy_store(source, store)
    assert [len(source.search(fake_vector(7), 1, offset=offset)) for offset in range(6)] == [1] * 5 + [0]


def test_only_ids_that_are_numbers_of_64_bits_become_numbers() -> None:
    others = ["007", "-7", str(2**64), "\u0667", "c0de5404-919f-4422-8777-db0000000000"]
    assert engine_ids(["7", "0", str(2**64 - 1), *others]) == [7, 0, 2**64 - 1, *others]
