"""Folders in Qdrant's own engine: durable, shared by threads, closed to other processes, and indexed."""

from __future__ import annotations

import json
import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qwen3vl_qdrant import Layout, QdrantEdgeStore, QdrantStore
from qwen3vl_qdrant.edge import indexing

from qwen3vl import Document, RecipeError, Report, StoreError, ingest, open_store
from qwen3vl.stores import Point, Search
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, fake_vector, passages, query_vector

DIMENSIONS = 64


@pytest.fixture(autouse=True)
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edge builds an index of 100 kilobytes of vectors (401 points) already."""
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)


def random_points(store: QdrantEdgeStore, count: int, seed: int = 0) -> list[Point]:
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    recipe = fake_recipe(dimensions=DIMENSIONS)
    documents = [Document(f"{seed}/{number // 3}", "text", f"{seed}-{number}", text="x") for number in range(count)]
    return [
        Point(store.point_id(document, recipe), vector, document)
        for document, vector in zip(documents, vectors, strict=True)
    ]


def filled_store(folder: Path, count: int, **options: object) -> QdrantEdgeStore:
    store = QdrantEdgeStore(folder, **options)  # type: ignore[arg-type]
    store.create(fake_recipe(dimensions=DIMENSIONS))
    store.upsert(random_points(store, count))
    return store


def num_indexed(store: QdrantStore) -> int:
    return int(store.client.get_collection(store.collection).indexed_vectors_count or 0)


def test_stores_of_one_folder_share_it(tmp_path: Path) -> None:
    first, second = open_store(str(tmp_path / "store")), QdrantEdgeStore(tmp_path / "x" / ".." / "store")
    assert isinstance(first, QdrantEdgeStore)
    ingest(passages(10), FakeEmbedder(), first)
    first.close()
    assert second.count() == 10
    with pytest.raises(StoreError, match="is closed"):
        first.count()
    other = QdrantEdgeStore(tmp_path / "store", "über/../.other name")
    ingest(passages(5), FakeEmbedder(), other)
    second.close()
    other.close()
    reopened = QdrantEdgeStore(tmp_path / "store", "über/../.other name")
    assert reopened.count() == 5
    assert {entry.name for entry in reopened.client.get_collections().collections} == {"qwen3vl", other.collection}
    assert reopened.client.delete_collection("qwen3vl")
    assert (reopened.count(), QdrantEdgeStore(tmp_path / "store").count()) == (5, 0)


def test_store_that_nothing_refers_to_frees_its_folder(tmp_path: Path) -> None:
    filled_store(tmp_path / "store", 10)
    assert QdrantEdgeStore(tmp_path / "store").core.client.folder.num_users == 1


def test_threads_write_search_and_index_at_once(tmp_path: Path) -> None:
    stores = [QdrantEdgeStore(tmp_path / "store", tenant=name) for name in ("ann", "bob", "cat")]
    with ThreadPoolExecutor(8) as pool:
        ingestions = [pool.submit(ingest, passages(700, "s"), FakeEmbedder(), store) for store in stores]
        searches = [pool.submit(stores[number % 3].search, fake_vector(number), 5) for number in range(30)]
        builds = [pool.submit(stores[number].build_index) for number in range(3)]
        assert [ingestion.result().added for ingestion in ingestions] == [700] * 3
        errors = [*(search.exception() for search in searches), *(build.exception() for build in builds)]
        assert all(error is None or "not found" in str(error) for error in errors)  # before the first creation
    assert [store.count() for store in stores] == [700] * 3
    assert QdrantEdgeStore(tmp_path / "store").count() == 2100


def test_ingestion_ends_with_an_index_and_shows_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_POLL_INTERVAL_S", 0.01)  # the index may take a tenth of a second only
    documents = passages(1500)
    store = QdrantEdgeStore(tmp_path / "store")
    seconds: list[float] = []

    def progress(report: Report) -> None:
        seconds.append(report.indexing_s)

    report = ingest(documents, FakeEmbedder(), store, progress=progress)
    assert num_indexed(store) == 1500
    assert seconds[-1] == report.indexing_s > 0
    assert len({*seconds}) > 2
    for document in documents[::100]:
        assert store.search(query_vector(document), 1)[0].document.name == document.name
    # A few new points are searched exactly; there is nothing to build.
    report = ingest([*documents, *passages(100, "more")], FakeEmbedder(), store)
    assert (report.added, report.indexing_s, num_indexed(store)) == (100, 0, 1500)
    assert store.search(query_vector(passages(100, "more")[50]), 1)[0].score == pytest.approx(1, abs=1e-5)


def test_index_is_built_when_enough_points_have_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.points_backend.MIN_INDEXED_POINTS", 1000)
    store = filled_store(tmp_path / "store", 900)
    assert num_indexed(store) == 0
    store.upsert(random_points(store, 200, 1))
    assert num_indexed(store) == 1100
    store.upsert(random_points(store, 900, 2))
    assert num_indexed(store) == 1100


@pytest.mark.slow
def test_places_of_deleted_points_are_used_again(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store", 3000)
    store.build_index()
    store.delete_where({"source": [f"0/{number}" for number in range(500)]})
    store.build_index()
    info = store.client.get_collection("qwen3vl")
    assert (info.points_count, info.indexed_vectors_count) == (1500, 1500)


@pytest.mark.slow
def test_interrupted_building_leaves_all_points(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store", 4000)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build_index(interrupt)
    assert (store.count(), num_indexed(store)) == (4000, 0)
    store.build_index()
    assert (store.count(), num_indexed(store)) == (4000, 4000)


@pytest.mark.slow
def test_searches_wait_for_the_index_without_stopping_other_threads(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store", 4000)
    steps: list[float] = []
    builder = Thread(target=store.build_index, args=(steps.append,))
    builder.start()
    while not steps:
        time.sleep(0.001)  # this thread runs meanwhile
    assert len(store.search(fake_vector("q", DIMENSIONS), 10)) == 10
    builder.join()
    assert num_indexed(store) == 4000


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(short=16),
        Layout(quantization="scalar"),
        Layout(quantization="turbo"),
        Layout(quantization="binary"),
        Layout(short=16, quantization="scalar"),
        Layout(tenants=True),
    ],
)
def test_layouts_are_kept_indexed_and_grouped(tmp_path: Path, layout: Layout) -> None:
    tenant = "ann" if layout.tenants else None
    store = filled_store(tmp_path / "store", 1500, layout=layout, tenant=tenant)
    store.build_index()
    assert num_indexed(store) == (3000 if layout.short else 1500)
    store.close()
    store = QdrantEdgeStore(tmp_path / "store", tenant=tenant)
    points = random_points(store, 1500)
    for point in points[::300]:
        hit = store.search(point.vector, 1)[0]
        assert hit.id == point.id
        assert hit.score == pytest.approx(1, abs=1e-4)
        # Three points have each source.
        sources = [hit.document.source for hit in store.search(point.vector, 40, group_by="source")]
        assert len(set(sources)) == len(sources) == 40
        assert sources[0] == point.document.source
        two_hits = store.search(point.vector, 9, where={"source": ["0/7", "0/8"]}, group_by="source")
        assert {hit.document.source for hit in two_hits} == {"0/7", "0/8"}
    assert store.layout == layout
    other = Layout(layout.short, None if layout.quantization else "turbo", layout.tenants)
    with pytest.raises(RecipeError, match="its layout's quantization is"):
        QdrantEdgeStore(tmp_path / "store", layout=other).recipe()


@pytest.mark.parametrize("layout", [Layout(short=4), Layout(quantization="binary")])
def test_exact_search_compares_all_full_vectors(tmp_path: Path, layout: Layout) -> None:
    store = filled_store(tmp_path / "store", 1500, layout=layout)
    store.build_index()
    query = fake_vector("q", DIMENSIONS)
    points = random_points(store, 1500)
    points.sort(key=lambda point: -float(point.vector @ query))
    assert [hit.id for hit in store.search(query, 50, exact=True)] == [point.id for point in points[:50]]
    assert [hit.id for hit in store.search(query, 50)] != [point.id for point in points[:50]]
    local = QdrantStore(QdrantClient(":memory:"), layout=layout)
    local.create(fake_recipe(dimensions=DIMENSIONS))
    local.upsert(points)
    assert [hit.id for hit in local.search(query, 50, exact=True)] == [point.id for point in points[:50]]
    sources = list(dict.fromkeys(point.document.source for point in points))
    for grouped in (store, local):
        hits = grouped.search(query, 9, exact=True, group_by="source")
        assert [hit.document.source for hit in hits] == sources[:9]


def test_a_large_group_does_not_hide_the_others(tmp_path: Path) -> None:
    store = QdrantEdgeStore(tmp_path / "store")
    documents = [Document("film.mp4", "text", f"f{number}", text=f"{number}") for number in range(300)]
    documents += [Document(f"{number}.md", "text", f"n{number}", text="other") for number in range(5)]
    recipe = fake_recipe()
    store.create(recipe)
    query = fake_vector("q")
    noise = np.random.default_rng(0).standard_normal((305, 32)).astype(np.float32)
    vectors = query + noise * np.where(np.arange(305) < 300, 0.01, 1)[:, None].astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    store.upsert([Point(store.point_id(d, recipe), v, d) for d, v in zip(documents, vectors, strict=True)])
    hits = store.search(query, 6, group_by="source")
    assert hits[0].document.source == "film.mp4"
    assert {hit.document.source for hit in hits[1:]} == {f"{number}.md" for number in range(5)}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    groups = store.client.query_points_groups(
        "qwen3vl", "metadata.source", query.tolist(), limit=2, group_size=4
    ).groups
    assert [len(group.hits) for group in groups] == [4, 1]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("collection.json", b"", "collection.json is damaged"),
        ("collection.json", b'{"format": 1, "name": "qw', "collection.json is damaged"),
        ("collection.json", b"[]", "collection.json is damaged"),
        ("collection.json", b'{"format": 2, "name": "qwen3vl"}', "written by a newer version"),
        ("collection.json", None, "collection.json is missing"),
        ("shard/edge_config.json", b"{", "shard cannot be opened"),
        ("shard", None, "shard is missing"),
    ],
)
def test_damaged_file_is_an_error_that_names_it(tmp_path: Path, file: str, content: bytes | None, reason: str) -> None:
    folder = tmp_path / "store"
    filled_store(folder, 10).close()
    path = folder / "collections" / "qwen3vl" / file
    saved = tmp_path / "saved"
    path.rename(saved)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=reason) as error:
        open_store(str(folder))
    assert "written by a newer" in reason or "restore it from a backup, or move" in str(error.value)
    assert str(folder) in str(error.value)
    path.unlink(missing_ok=True)
    saved.rename(path)
    assert open_store(str(folder)).count() == 10


def test_creation_that_was_killed_leaves_no_collection(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    filled_store(folder, 10).close()
    collections = folder / "collections"
    (collections / "qwen3vl").rename(collections / ".new-qwen3vl")
    store = QdrantEdgeStore(folder)
    assert (store.recipe(), store.count()) == (None, 0)
    ingest(passages(3), FakeEmbedder(), store)
    assert store.count() == 3
    assert [path.name for path in collections.iterdir()] == ["qwen3vl"]


def test_folder_of_local_mode_opens_as_before_with_a_hint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "store"
    local = QdrantStore(QdrantClient(path=str(folder)))
    ingest(passages(30), FakeEmbedder(), local)
    local.close()
    caplog.set_level(logging.INFO, "qwen3vl_qdrant")
    store = open_store(str(folder))
    assert not isinstance(store, QdrantEdgeStore)
    assert f"qwen3vl copy {folder} NEW" in caplog.text
    assert store.search(query_vector(passages(30)[4]), 1)[0].document == passages(30)[4]
    assert ingest(passages(40), FakeEmbedder(), store).added == 10
    store.close()
    assert not (folder / "collections").exists()


def test_search_finds_booleans_numbers_and_filters_of_the_client(tmp_path: Path) -> None:
    store = QdrantEdgeStore(tmp_path / "store")
    documents = passages(30)
    ingest(documents, FakeEmbedder(), store)

    def numbers(where: models.Filter) -> set[int]:
        return {
            int(hit.document.metadata["number"]) for hit in store.search(query_vector(documents[0]), 30, where=where)
        }

    even = models.FieldCondition(key="metadata.even", match=models.MatchValue(value=True))
    low = models.FieldCondition(key="metadata.number", range=models.Range(lt=5))
    assert numbers(models.Filter(must=[even, low])) == {0, 2, 4}
    assert numbers(models.Filter(must=low, must_not=even)) == {1, 3}
    assert numbers(models.Filter(min_should=models.MinShould(conditions=[even, low], min_count=2))) == {0, 2, 4}
    any_number = models.FieldCondition(key="metadata.number", match=models.MatchAny(any=[3, 8]))
    assert numbers(models.Filter(must=[any_number])) == {3, 8}
    except_number = models.FieldCondition(key="metadata.number", match=models.MatchExcept(**{"except": [3, 8]}))
    assert numbers(models.Filter(must=[except_number])) == {*range(30)} - {3, 8}
    has_id = models.HasIdCondition(has_id=[store.point_id(documents[9], fake_recipe())])
    assert numbers(models.Filter(must=[has_id])) == {9}
    assert numbers(models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="metadata.no"))])) == {
        *range(30)
    }
    nowhere = models.FieldCondition(key="metadata.no", is_empty=True)
    assert numbers(models.Filter(must=[nowhere, low])) == {*range(5)}


def test_search_many_pages_like_one_search(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store", 1000)
    store.build_index()
    query = fake_vector("q", DIMENSIONS)
    everything = [hit.id for hit in store.search(query, 100)]
    pages = store.search_many([Search(query, 20, offset=start) for start in range(0, 100, 20)])
    assert [hit.id for page in pages for hit in page] == everything


@pytest.mark.parametrize("layout", [Layout(), Layout(short=16), Layout(quantization="scalar")])
def test_pages_have_no_hit_twice_although_many_scores_are_equal(tmp_path: Path, layout: Layout) -> None:
    store = QdrantEdgeStore(tmp_path / "store", layout=layout)
    copies = [
        Document(f"{folder}/{number}", "text", text=f"photo {number}")
        for folder in ("photos", "backup")
        for number in range(30)
    ]
    others = [Document(f"others/{number}", "text", text=f"other {number}") for number in range(300)]
    ingest(copies + others, FakeEmbedder(), store)
    for number in range(4):
        query = fake_vector({"text": f"photo {number}"}) + fake_vector(number)
        pages = store.search_many([Search(query, 10, offset=offset, exact=True) for offset in range(0, 370, 10)])
        assert len({hit.id for page in pages for hit in page}) == 360
        assert [len(page) for page in pages] == [10] * 36 + [0]
        assert [hit.id for page in pages for hit in page] == [hit.id for hit in store.search(query, 360, exact=True)]
        assert all(hit.document.text for page in pages for hit in page)
        if layout.short is None:  # more hits have more candidates of short vectors, which may be better ones
            approximate = [hit.id for offset in range(0, 60, 6) for hit in store.search(query, 6, offset=offset)]
            assert len(set(approximate)) == 60


def test_description_of_a_collection_is_readable(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store", 10, layout=Layout(short=16, quantization="scalar"))
    description = json.loads((tmp_path / "store" / "collections" / "qwen3vl" / "collection.json").read_text())
    assert description["name"] == "qwen3vl"
    assert description["metadata"]["qwen3vl_recipe"] == fake_recipe(dimensions=DIMENSIONS).to_dict()
    copy = shutil.copytree(tmp_path / "store", tmp_path / "copy")
    assert QdrantEdgeStore(copy).count() == store.count() == 10
