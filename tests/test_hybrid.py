"""Search by words, and by words and vectors together: the same on every kind of Qdrant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qwen3vl_qdrant import AsyncQdrantStore, Bm25, Layout, QdrantEdgeStore, QdrantStore, measure

from qwen3vl import (
    Document,
    RecipeError,
    Search,
    Store,
    StoreError,
    aingest,
    copy_store,
    ingest,
)
from qwen3vl.stores.fusion import RANK_CONSTANT, fuse, num_candidates
from tests.support import qdrant_rest
from tests.support.catalogue import numbers, parts
from tests.support.fake_embedder import FakeEmbedder, fake_vector, query_vector
from tests.support.store_backends import OpenStore, open_backend

BACKENDS = ("qdrant-memory", "qdrant-folder", "qdrant-edge", "qdrant-rest", "qdrant-server")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    if request.param == "qdrant-rest":
        with qdrant_rest.serve() as port:
            client = QdrantClient(url=f"http://127.0.0.1:{port}", check_compatibility=False)
            yield lambda **options: QdrantStore(client, **options)
        return
    with open_backend(request.param, tmp_path, lambda: 0) as open_store:
        yield open_store


def filled(backend: OpenStore, documents: list[Document], **options: Any) -> Store:
    store = backend(**{"layout": Layout(hybrid=True), **options})
    assert ingest(documents, FakeEmbedder(), store).failed == []
    return store


def test_words_find_what_vectors_do_not(backend: OpenStore) -> None:
    documents = parts()
    store = filled(backend, documents)
    query = query_vector(documents[3])  # the vector means one part, the words another
    assert numbers(store.search(query, 1, text="AX-7050", mode="dense")) == [3]
    assert numbers(store.search(query, 1, text="AX-7050", mode="text")) == [50]
    hits = store.search(query, 5, text="AX-7050", mode="hybrid")
    assert {3, 50} <= {*numbers(hits)}
    assert all(0 < hit.score <= 1 for hit in hits)
    assert hits[0].document in documents
    # Without a mode, a search with a text is a hybrid one.
    assert store.search(query, 5, text="AX-7050") == hits
    assert numbers(store.search(query, 1)) == [3]
    assert store.search(query, 5, text="AX-7050", threshold=0.9)[0].score == pytest.approx(1, abs=1e-5)
    # The best by both has the score 1.
    (best,) = store.search(query, 1, text="AX-7003 valve of nylon pumps sealed")
    assert numbers([best]) == [3]
    assert best.score == pytest.approx(1)


def test_file_names_and_texts_that_are_not_embedded_are_found(backend: OpenStore) -> None:
    documents = [
        *parts(9),
        Document("/media/Harbour_Plan-7b.png", "picture", image="/media/Harbour_Plan-7b.png"),
        Document("b.pdf", "page", locator="page=3", text="the torque is 48.3 Nm", image="b.pdf#page=3", fused=False),
        Document("data:image/png;base64,AAAA", "picture", image="data:image/png;base64,AAAA"),
    ]
    store = filled(backend, documents)
    vector = fake_vector("nothing")
    for text, expected in (
        ("harbour plan", documents[9]),
        ("harbour_plan", documents[9]),
        ("48.3 torques", documents[10]),
    ):
        assert store.search(vector, 1, text=text, mode="text")[0].document == expected
    assert store.search(vector, 5, text="base64", mode="text") == []
    assert store.search(vector, 5, text="the of and", mode="text") == []
    assert len(store.search(vector, 5, text="the of and", mode="hybrid")) == 5
    assert store.search_many([Search(vector, 5, text=text, mode="text") for text in ("the", "48.3", "of")])[0::2] == [
        [],
        [],
    ]


def test_filters_tenants_groups_and_deletion(backend: OpenStore) -> None:
    documents = parts(60)
    stores = {
        name: filled(backend, documents[:30] if name == "ann" else documents, tenant=name) for name in ("ann", "bob")
    }
    vector = fake_vector("q")
    for mode in ("text", "hybrid"):
        options: dict[str, Any] = {"text": "AX-7040 sealed", "mode": mode}
        found = {name: store.search(vector, 60, **options) for name, store in stores.items()}
        assert max(numbers(found["ann"])) < 30
        assert 40 in numbers(found["bob"])[:5]
        evens = stores["bob"].search(vector, 60, where={"even": True, "number": {"lt": 50}}, **options)
        assert {number % 2 for number in numbers(evens)} == {0}
        assert numbers(evens) == [n for n in numbers(found["bob"]) if n % 2 == 0 and n < 50] or mode == "hybrid"
        best: dict[str, str] = {}
        for hit in found["bob"]:
            best.setdefault(hit.document.source, hit.id)
        groups = stores["bob"].search(vector, 6, group_by="source", **options)
        assert [hit.id for hit in groups] == list(best.values())[:6]
        page = stores["bob"].search(vector, 3, offset=3, group_by="source", **options)
        assert [hit.id for hit in page] == list(best.values())[3:6]
    stores["bob"].delete_where({"number": 40})
    assert 40 not in numbers(stores["bob"].search(vector, 60, text="AX-7040", mode="text"))


def test_groups_beyond_the_first_candidates_are_found(backend: OpenStore) -> None:
    documents = [
        Document("long.md", "text", locator=f"lines={number},{number}", text="valve", metadata={"number": number})
        for number in range(300)
    ]
    store = filled(backend, [*documents, *parts(6)])
    hits = store.search(fake_vector("q"), 3, text="valve", mode="text", group_by="source")
    assert {hit.document.source for hit in hits} == {"long.md", "catalogue/pump_0.md", "catalogue/pump_1.md"}


def test_more_equal_points_than_candidates_are_found(backend: OpenStore) -> None:
    names = [f"scan.pdf#page={number}" for number in range(1, 151)]  # without texts: their words are the file's name
    scans = [Document("scan.pdf", "page", locator=name.partition("#")[2], image=name) for name in names]
    store = filled(backend, [*parts(60), *scans])
    hits = store.search(fake_vector("q"), 10, text="scan", mode="hybrid", alpha=0)
    assert [hit.document.source for hit in hits] == ["scan.pdf"] * 10
    assert [hit.id for hit in hits] == sorted(hit.id for hit in hits)
    hits = store.search(query_vector(parts()[3]), 130, text="scan", mode="hybrid")
    assert sum(hit.document.source == "scan.pdf" for hit in hits) >= 100


def test_pages_are_parts_of_one_ranking(backend: OpenStore) -> None:
    store = filled(backend, parts())
    vector = fake_vector("q")
    for mode in ("text", "hybrid"):
        options: dict[str, Any] = {"text": "steel AX sealed", "mode": mode}
        everything = [hit.id for hit in store.search(vector, 100, **options)]
        assert len(set(everything)) == 100
        assert everything == [hit.id for hit in store.search(vector, 100, **options)]
        pages = [hit.id for start in range(0, 100, 10) for hit in store.search(vector, 10, offset=start, **options)]
        assert pages == everything


def test_alpha_is_the_share_of_the_vectors(backend: OpenStore) -> None:
    documents = parts()
    store = filled(backend, documents)
    query = query_vector(documents[3])
    dense, words = (store.search(query, 5, text="AX-7050", mode=mode) for mode in ("dense", "text"))
    for alpha, expected in ((1, dense), (0, words)):
        hits = store.search(query, 5, text="AX-7050", mode="hybrid", alpha=alpha)
        assert [hit.id for hit in hits] == [hit.id for hit in expected]
    assert numbers(store.search(query, 1, text="AX-7050", alpha=0.6)) == [3]
    assert numbers(store.search(query, 1, text="AX-7050", alpha=0.4)) == [50]


def test_many_searches_of_different_modes_equal_single_ones(backend: OpenStore) -> None:
    documents = parts(40)
    store = filled(backend, documents)
    searches = [
        Search(query_vector(documents[number]), 4, text=f"AX-{7000 + 39 - number}", mode=mode, group_by=group)
        for number in range(3)
        for mode in ("text", "dense", None, "hybrid")
        for group in (None, "source")
    ]
    many = store.search_many(searches)
    assert many == [store.search_many([search])[0] for search in searches]
    assert all(len(hits) == 4 for hits in many)


def test_settings_are_stored_and_compared(backend: OpenStore) -> None:
    settings = Bm25("german", stop_words=["für", "aus"], ascii_folding=True)
    documents = [
        Document("a.md", "text", text="Die Häuser aus Stein"),
        Document("b.md", "text", text="Ein Café für alle"),
        Document("c.md", "text", text="日本語の説明書 AX-100"),
    ]
    filled(backend, documents, layout=Layout(hybrid=settings))
    store = backend()
    for text, source in (("Haus", "a.md"), ("cafe", "b.md"), ("説明", "c.md"), ("ax 100", "c.md")):
        (hit,) = store.search(fake_vector("q"), 5, text=text, mode="text")
        assert hit.document.source == source
    assert store.search(fake_vector("q"), 5, text="für aus", mode="text") == []
    assert isinstance(store, QdrantStore)
    assert store.layout == Layout(hybrid=settings)
    backend(layout=Layout(hybrid=settings)).recipe()
    for other in (True, False, Bm25("german")):
        with pytest.raises(RecipeError, match="its layout's hybrid is Bm25"):
            backend(layout=Layout(hybrid=other)).recipe()


def test_collection_without_words_says_how_to_get_them(backend: OpenStore) -> None:
    store = filled(backend, parts(5), layout=Layout())
    assert len(store.search(fake_vector("q"), 5, text="AX-7000")) == 5
    with pytest.raises(StoreError, match=r"cannot be searched with mode='text': .*Layout\(hybrid=True\).*--hybrid"):
        store.search(fake_vector("q"), 5, text="AX-7000", mode="text")
    with pytest.raises(RecipeError, match="its layout's hybrid is False"):
        backend(layout=Layout(hybrid=True)).recipe()


def test_searches_that_make_no_sense_are_refused() -> None:
    store = QdrantStore(QdrantClient(":memory:"), layout=Layout(hybrid=True))
    ingest(parts(5), FakeEmbedder(), store)
    vector = fake_vector("q")
    wrong: Any = "words"
    with pytest.raises(ValueError, match="mode is 'words'; it may be dense, text, hybrid or None"):
        store.search(vector, mode=wrong)
    with pytest.raises(ValueError, match="a threshold is a minimum cosine"):
        store.search(vector, mode="hybrid", text="valve", threshold=0.3)
    with pytest.raises(ValueError, match=r"alpha is 1\.5"):
        store.search(vector, alpha=1.5)
    for mode in ("text", "hybrid"):
        with pytest.raises(ValueError, match="this search has no text"):
            store.search(vector, mode=mode, text=" ")
    with pytest.raises(ValueError, match="language is 'klingon'; it may be arabic, "):
        Bm25("klingon")


@pytest.mark.parametrize("layout", [Layout(hybrid=True), Layout(short=16, quantization="scalar", hybrid=True)])
def test_indexed_folder_finds_the_same_after_reopening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)
    documents = parts(1500)
    store = QdrantEdgeStore(tmp_path / "store", layout=layout)
    report = ingest(documents, FakeEmbedder(), store)
    assert report.indexing_s > 0
    store.close()
    store = QdrantEdgeStore(tmp_path / "store")
    for number in (0, 700, 1499):
        text = f"AX-{7000 + number}"
        assert numbers(store.search(fake_vector("q"), 1, text=text, mode="text")) == [number]
        assert numbers(store.search(query_vector(documents[number]), 1, text=text)) == [number]
        assert numbers(store.search(query_vector(documents[number]), 1, mode="dense")) == [number]
    assert store.layout == layout
    assert store.has_words()
    ids = [store.point_id(documents[0], FakeEmbedder().recipe)]
    assert list(store.vectors(ids)) == ids
    assert not store.client.backend.build_index(store.collection)
    assert measure(store, fake_vector("q")[None])[0].recall == 1


async def test_async_store_searches_by_words() -> None:
    store = AsyncQdrantStore(AsyncQdrantClient(":memory:"), layout=Layout(hybrid=True))
    documents = parts(30)
    await aingest(documents, FakeEmbedder(), store)
    assert numbers(await store.asearch(query_vector(documents[3]), 1, text="AX-7020", mode="text")) == [20]
    assert sorted(numbers(await store.asearch(query_vector(documents[3]), 2, text="AX-7020"))) == [3, 20]


def test_vectors_are_those_of_a_server() -> None:
    """They were computed by qdrant-edge-py 0.9: other versions must not change what is stored."""
    vector = Bm25().embed_document("running run")
    assert vector.indices == [243905464]
    assert vector.values == pytest.approx([1.907], abs=1e-3)
    assert Bm25().embed_query("The runs") == models.SparseVector(indices=[243905464], values=[1.0])
    assert Bm25(language=None).embed_query("the").indices == [1132748958]
    assert Bm25(stop_words=[]).embed_query("the").indices == [1132748958]
    assert Bm25(stemming=False).embed_query("running") != Bm25().embed_query("running")


def test_equal_scores_have_equal_ranks() -> None:
    def share(rank: float) -> float:
        return 0.5 * RANK_CONSTANT / (RANK_CONSTANT + rank)

    fused = fuse([[("a", 3.0), ("b", 2.0), ("c", 2.0), ("d", 1.0)], [("c", 9.0), ("e", 8.0)]], [0.5, 0.5], 100)
    assert fused == [
        ("c", share(1.5) + share(0)),
        ("a", share(0)),
        ("e", share(1)),
        ("b", share(1.5)),
        ("d", share(3)),
    ]
    # The last score of a ranking that is not complete may be that of others as well.
    assert fuse([[("a", 3.0), ("b", 2.0), ("c", 2.0)]], [1.0], 3) == [("a", 1.0)]
    # Unless nothing else is in it.
    assert fuse([[("c", 2.0), ("a", 2.0), ("b", 2.0)]], [0.5], 3) == [(name, share(1)) for name in "abc"]
    assert [num_candidates(count) for count in (1, 100, 101, 500)] == [100, 100, 200, 800]


def test_copy_adds_words_without_embedding_again(tmp_path: Path) -> None:
    documents = parts(20)
    plain = QdrantEdgeStore(tmp_path / "plain")
    ingest(documents, FakeEmbedder(), plain)
    words = QdrantStore(QdrantClient(":memory:"), layout=Layout(hybrid=True))
    copy_store(plain, words)
    assert numbers(words.search(fake_vector("q"), 1, text="AX-7012", mode="text")) == [12]
    folder = QdrantEdgeStore(tmp_path / "words")  # laid out as the source
    copy_store(words, folder)
    assert folder.layout == words.layout
    ids = [[hit.id for hit in store.search(query_vector(documents[3]), 5, text="AX-7012")] for store in (words, folder)]
    assert ids[0] == ids[1]
