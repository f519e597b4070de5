"""Search by words, and by words and vectors together: the same on every kind of Qdrant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qwen3vl_qdrant import AsyncQdrantStore, Bm25, Layout, QdrantEdgeStore, QdrantStore, measure

from qwen3vl import (
    BatchError,
    Document,
    Embedder,
    InputError,
    RecipeError,
    Reranker,
    Retriever,
    Search,
    Store,
    StoreError,
    aingest,
    ingest,
    open_store,
)
from qwen3vl.cli import main
from qwen3vl.stores import Mode
from qwen3vl.stores.fusion import RANK_CONSTANT, fuse, num_candidates
from tests.support import qdrant_rest
from tests.support.fake_embedder import FakeEmbedder, fake_vector, query_vector
from tests.support.store_backends import OpenStore, open_backend

BACKENDS = ("qdrant-memory", "qdrant-folder", "qdrant-edge", "qdrant-rest", "qdrant-server")
MATERIALS = ("steel", "brass", "copper", "nylon", "rubber", "glass")


def parts(count: int = 120) -> list[Document]:
    """Parts of a catalogue, each with its number; three per file."""
    return [
        Document(
            f"catalogue/pump_{number // 3}.md",
            "text",
            locator=f"lines={number},{number}",
            text=f"Valve AX-{7000 + number} of {MATERIALS[number % 6]} for pumps" + ", sealed" * (number % 5),
            metadata={"number": number, "even": number % 2 == 0},
        )
        for number in range(count)
    ]


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


def numbers(hits: list[Any]) -> list[int]:
    return [int(hit.document.metadata["number"]) for hit in hits]


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
    assert [num_candidates(count) for count in (1, 100, 101, 500)] == [100, 100, 200, 800]


@pytest.fixture(scope="module")
def catalogue(tiny_embedder: Embedder) -> Iterator[Store]:
    store = open_store(":memory:", hybrid=True)
    ingest(parts(60), tiny_embedder, store)
    yield store
    store.close()


def test_retriever_searches_by_the_text_of_the_query(
    catalogue: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    picture = {"image": Image.new("RGB", (64, 64), "red")}
    (best,) = retriever.search("AX-7031", 1, mode="text")
    assert numbers([best]) == [31]
    assert 31 in numbers(retriever.search("valve AX-7031", 2))
    assert 31 in numbers(retriever.search({**picture, "text": "AX-7031"}, 2))
    assert retriever.search("AX-7031", 3) == retriever.search("AX-7031", 3, mode="hybrid")
    assert retriever.search("AX-7031", 3, threshold=-1) == retriever.search("AX-7031", 3, mode="dense")
    assert retriever.search(picture, 3) == retriever.search(picture, 3, mode="dense")
    reranked = Retriever(tiny_embedder, catalogue, tiny_reranker, candidates=5).search("AX-7031", 3, mode="text")
    assert len(reranked) == 3
    assert all(hit.rerank_score is not None for hit in reranked)


async def test_async_retriever_equals_the_blocking_one(catalogue: Store, tiny_embedder: Embedder) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    for mode in ("dense", "text", "hybrid", None):
        queries = ["AX-7031 sealed", "nylon valve"]
        hits = await retriever.asearch_many(queries, 4, mode=mode)
        assert hits == retriever.search_many(queries, 4, mode=mode)


def test_text_mode_runs_no_model(catalogue: Store, tiny_embedder: Embedder) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    before = tiny_embedder.engine.stats.calls
    retriever.search("AX-7031", mode="text")
    assert tiny_embedder.engine.stats.calls == before


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_queries_without_a_text_are_errors_beside_the_others(
    catalogue: Store, tiny_embedder: Embedder, mode: Mode
) -> None:
    retriever = Retriever(tiny_embedder, catalogue)
    picture = {"image": Image.new("RGB", (64, 64), "red")}
    with pytest.raises(InputError, match=r"it has no text, and mode='.*' searches by words: add a text, or leave"):
        retriever.search(picture, mode=mode)
    with pytest.raises(BatchError) as caught:
        retriever.search_many([picture, "AX-7031", {}, "AX-7012"], 1, mode=mode)
    assert [error.index for error in caught.value.errors] == [0, 2]
    assert "it is empty" in str(caught.value.errors[1])
    assert [len(hits) for hits in caught.value.results] == [0, 1, 0, 1]
    if mode == "text":
        assert numbers(caught.value.results[1]) == [31]


def test_command_line_indexes_and_searches_by_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        (tmp_path / f"part_{number}.md").write_text(f"Ventile AX-{7000 + number}")
    store = str(tmp_path / "store")
    index = ["index", str(tmp_path / "*.md"), "--model", "tiny", "--store"]
    assert main([*index, store, "--language", "german"]) == 0
    capsys.readouterr()
    for arguments, source in (
        (["Ventil AX-7005", "--mode", "text"], "part_5.md"),
        (["part 3", "--mode", "text"], "part_3.md"),
        (["AX-7002"], "part_2.md"),
    ):
        assert main(["search", *arguments, "--store", store, "--limit", "2", "--json"]) == 0
        assert source in [Path(hit["source"]).name for hit in json.loads(capsys.readouterr().out)]
    assert main([*index, store]) == 0
    for arguments, reason in (
        ([*index, store, "--hybrid"], "its layout's hybrid is"),
        ([*index, f"{store}2", "--language", "klingon"], "language is 'klingon'"),
        ([*index, f"chroma:{store}3", "--hybrid"], "cannot have hybrid search"),
    ):
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 2
        assert reason in json.loads(capsys.readouterr().out)["error"]
