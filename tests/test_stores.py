"""The contract of all stores: Qdrant and Chroma, embedded and as servers, search and keep points alike."""

from __future__ import annotations

import re
from collections import UserList
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qwen3vl_qdrant import Layout, QdrantStore

from qwen3vl import Document, InputError, RecipeError, Search, Store, StoreError, ingest
from qwen3vl.stores import Point
from qwen3vl.stores.core import RECIPE_KEY
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, fake_vector, passages, query_vector
from tests.support.store_backends import OpenStore


@pytest.fixture
def store(backend: OpenStore) -> Store:
    return backend()


def test_documents_are_found_as_they_were_ingested(store: Store) -> None:
    documents = [
        *passages(20),
        Document("a.png", "picture", "c1", image="/pictures/a.png"),
        Document("b.pdf", "page", "c2", locator="page=3", text="words", image="b.pdf#page=3", fused=False),
        Document("c.mp4", "clip", "c3", locator="t=0,30", video="c.mp4#t=0,30", metadata={"start": 0, "end": 30.5}),
    ]
    report = ingest(documents, FakeEmbedder(), store)
    assert (report.added, report.failed, store.count()) == (23, [], 23)
    for document in documents:
        (hit,) = store.search(query_vector(document), 1)
        assert hit.document == document
        assert hit.id == store.point_id(document, fake_recipe())
        assert hit.score == pytest.approx(1, abs=1e-5)
    hits = store.search(query_vector(documents[-2]), 23, where={"kind": "page"})
    assert [(hit.document.page, hit.document.seconds) for hit in hits] == [(3, None)]
    assert [hit.document.seconds for hit in store.search(query_vector(documents[-1]), 1)] == [(0, 30)]


def test_filters_by_value_list_and_range(store: Store) -> None:
    documents = passages(40)
    ingest(documents, FakeEmbedder(), store)

    def numbers(where: object) -> set[int]:
        hits = store.search(query_vector(documents[0]), 100, where=where)
        return {int(hit.document.metadata["number"]) for hit in hits}

    assert numbers({"source": "notes/2.md"}) == {6, 7, 8}
    assert numbers({"source": ["notes/2.md", "notes/3.md"], "even": True}) == {6, 8, 10}
    assert numbers({"number": {"gte": 3, "lt": 6}}) == {3, 4, 5}
    assert numbers({"share": {"gt": 5.0}}) == {36, 37, 38, 39}
    assert numbers({"number": 7}) == {7}
    assert numbers({"source": "nowhere"}) == set()
    assert numbers({"source": []}) == set()
    assert numbers({"share": [0.0, 1.0], "even": [True, False]}) == {0, 7}
    store.delete_where({"source": []})
    assert store.count() == 40
    with pytest.raises((ValueError, StoreError), match="filter"):
        numbers("source = 1")


def test_filters_by_keys_that_are_not_plain_names(store: Store) -> None:
    documents = [Document("a", "text", text="a", metadata={"two words": 1, 'with "quotes"': 1})]
    ingest(documents, FakeEmbedder(), store)
    assert len(store.search(query_vector(documents[0]), 1, where={"two words": 1})) == 1
    if isinstance(store, QdrantStore):
        with pytest.raises(ValueError, match="payload paths cannot express"):
            store.search(query_vector(documents[0]), 1, where={'with "quotes"': 1})
    else:
        assert len(store.search(query_vector(documents[0]), 1, where={'with "quotes"': 1})) == 1


def test_offset_threshold_and_group_by(store: Store) -> None:
    documents = passages(60)
    ingest(documents, FakeEmbedder(), store)
    query = query_vector(documents[10])
    everything = store.search(query, 60)
    assert len(everything) == 60
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    pages = [hit.id for offset in range(0, 60, 7) for hit in store.search(query, 7, offset=offset)]
    assert pages == [hit.id for hit in everything]
    threshold = (everything[4].score + everything[5].score) / 2
    assert [hit.id for hit in store.search(query, 60, threshold=threshold)] == [hit.id for hit in everything[:5]]
    best: dict[str, str] = {}
    for hit in everything:
        best.setdefault(hit.document.source, hit.id)
    assert [hit.id for hit in store.search(query, 60, exact=True)] == [hit.id for hit in everything]
    assert [hit.id for hit in store.search(query, 8, group_by="source")] == list(best.values())[:8]
    assert [hit.id for hit in store.search(query, 4, group_by="source", offset=3)] == list(best.values())[3:7]


def test_group_by_metadata_leaves_out_hits_without_the_key(store: Store) -> None:
    documents = [
        Document(f"{number}", "text", text=f"{number}", metadata={"name": "x"} if number % 2 else {"other": 1})
        for number in range(8)
    ]
    ingest(documents, FakeEmbedder(), store)
    assert len(store.search(fake_vector("q"), 8, group_by="name")) == 1
    grouped_and_plain = store.search_many([Search(fake_vector("q"), 8, group_by="name"), Search(fake_vector("q"), 8)])
    assert [len(hits) for hits in grouped_and_plain] == [1, 8]


def test_search_many_returns_hits_in_order_of_searches(store: Store) -> None:
    documents = passages(50)
    ingest(documents, FakeEmbedder(), store)
    results = store.search_many([Search(query_vector(document), 3) for document in documents[:20]])
    assert [hits[0].document for hits in results] == documents[:20]
    assert store.search_many([]) == []


def test_search_by_words_says_what_it_needs(store: Store) -> None:
    documents = passages(6)
    ingest(documents, FakeEmbedder(), store)
    query = query_vector(documents[2])
    assert store.search(query, 3, text="passage 5") == store.search(query, 3)
    for mode in ("text", "hybrid"):
        with pytest.raises(StoreError, match=rf"cannot be searched with mode='{mode}'.*Layout\(hybrid=True\)"):
            store.search(query, 3, text="passage 5", mode=mode)
    if not isinstance(store, QdrantStore):
        hits = store.search(query, 6, where={"$contains": "passage 5", "number": {"gt": 2}})
        assert [hit.document for hit in hits] == [documents[5]]


def test_tenants_are_isolated(backend: OpenStore) -> None:
    documents = passages(12)
    stores = {name: backend(tenant=name) for name in ("ann", "bob")}
    for name, store in stores.items():
        ingest(documents if name == "ann" else documents[:6], FakeEmbedder(), store)
    assert [store.count() for store in stores.values()] == [12, 6]
    assert backend().count() == 18
    bob = stores["bob"]
    assert len(bob.search(query_vector(documents[11]), 20)) == 6
    assert all(hit.document in documents for hit in bob.search(query_vector(documents[0]), 20))
    ann_ids = [point.id for point in stores["ann"].scan()]
    assert bob.existing(ann_ids) == set()
    assert bob.vectors(ann_ids) == bob.documents(ann_ids) == bob.documents([]) == {}
    assert stores["ann"].documents(ann_ids[:1] * 2).keys() == {ann_ids[0]}
    for empty_filter in empty_filters(bob):
        with pytest.raises((ValueError, StoreError), match="needs a filter"):
            bob.delete_where(empty_filter)
    bob.delete(ann_ids)
    bob.delete_where({"source": "notes/0.md"})
    assert [store.count() for store in stores.values()] == [12, 3]
    report = ingest(documents[:3], FakeEmbedder(), bob, sync=True)
    assert (report.added, report.deleted) == (3, 3)
    assert stores["ann"].count() == 12


def test_metadata_do_not_put_a_document_into_a_tenant(backend: OpenStore) -> None:
    everything, ann, bob = backend(), backend(tenant="ann"), backend(tenant="bob")
    keys = ("_tenant", "tenant", "document_id", "doc_id", "_node_content", "_node_type", "page_content")
    document = Document("a", "text", text="a", metadata=dict.fromkeys(keys, "ann"))
    for store in (everything, bob):
        ingest([document], FakeEmbedder(), store)
    assert (everything.count(), bob.count(), ann.count()) == (2, 1, 0)
    assert ann.search(query_vector(document), 5) == []
    assert [hit.document for hit in bob.search(query_vector(document), 5)] == [document]


def test_delete_where_deletes_matching_points_only(store: Store) -> None:
    documents = passages(9)
    ingest(documents, FakeEmbedder(), store)
    store.delete_where({"source": "notes/1.md"})
    assert {point.source for point in store.scan()} == {"notes/0.md", "notes/2.md"}
    with pytest.raises((ValueError, StoreError), match="needs a filter"):
        store.delete_where(None)
    store.delete(["00000000-0000-0000-0000-000000000000"])
    assert store.count() == 6


def empty_filters(store: Store) -> list[Any]:
    """Filters without a condition, in the package's form and in the database's own."""
    if not isinstance(store, QdrantStore):
        return [None, {}]
    empty = models.Filter()
    return [
        *(None, {}, empty, models.Filter(must=[], should=[], must_not=[])),
        *(models.Filter(must=empty), models.Filter(must=[models.Filter(should=[empty])])),
        models.Filter(should=[empty, models.HasIdCondition(has_id=[1])]),
    ]


def test_delete_where_refuses_filters_without_a_condition(store: Store) -> None:
    documents = passages(9)
    ingest(documents, FakeEmbedder(), store)
    for empty_filter in empty_filters(store):
        with pytest.raises(ValueError, match="needs a filter"):
            store.delete_where(empty_filter)
        assert len(store.search(query_vector(documents[0]), 9, where=empty_filter)) == 9
    assert store.count() == 9


def test_upsert_replaces_the_metadata_of_a_point(store: Store) -> None:
    documents = passages(3)
    ingest(documents, FakeEmbedder(), store)
    changed = replace(documents[1], metadata={"number": 50, "new": True})
    query = query_vector(changed)
    store.upsert([Point(store.point_id(changed, fake_recipe()), query, changed)])
    assert [hit.document for hit in store.search(query, 3, where={"number": 50, "new": True})] == [changed]
    assert [hit.document for hit in store.search(query, 3, where={"even": False})] == []
    assert store.count() == 3


def test_collection_that_others_have_deleted_does_not_exist(store: Store) -> None:
    ingest(passages(3), FakeEmbedder(), store)
    assert store.count() == 3
    store.client.delete_collection(store.collection)
    assert store.recipe() is None
    assert store.count() == 0
    ingest(passages(2), FakeEmbedder(), store)
    assert store.count() == 2


@pytest.mark.parametrize("name", ["collection", "tenant"])
def test_lone_surrogate_in_a_name_is_an_error(backend: OpenStore, name: str) -> None:
    with pytest.raises(InputError, match=rf"the {name}'s name has a lone surrogate at character 5, U\+DCE9"):
        backend(**{name: "photo\udce9"})


def test_empty_lists_of_values_match_nothing(store: Store) -> None:
    documents = passages(9)
    ingest(documents, FakeEmbedder(), store)
    empty_lists: list[Any] = [[], (), range(0), UserList[str]()]
    for empty_list in empty_lists:
        store.delete_where({"source": empty_list})
        assert store.search(query_vector(documents[0]), 9, where={"source": empty_list}) == []


def test_filters_with_unsupported_values_are_errors_and_delete_nothing(store: Store) -> None:
    documents = passages(9)
    ingest(documents, FakeEmbedder(), store)
    nan, inf = float("nan"), float("inf")  # a server gets null, which is no bound
    incomparable: list[Any] = [b"\1", [[]], [0, []], {}, {"gte": None}, None, {1}]
    infinite: list[Any] = [nan, [nan], {"gte": nan}, {"gt": inf}, -inf]
    unsupported: list[tuple[Any, str]] = [
        *((value, "'number' cannot be filtered by") for value in incomparable),
        *((value, "not finite") for value in infinite),
        ({"gte": "0"}, "bounds of a range are numbers"),
        ("\udce9", r"value of 'number' has a lone surrogate at character 0, U\+DCE9"),
        (["a", "\ud800"], "lone surrogate"),
    ]
    filters: list[tuple[Any, str]] = [({"number": value}, reason) for value, reason in unsupported]
    filters += [({"source": [], "number": value}, reason) for value, reason in unsupported]
    filters += [({5: "a"}, "5 is of type int"), ({"\udce9": 1}, "key .* has a lone surrogate")]
    for where, reason in filters:
        with pytest.raises(ValueError, match=reason):
            store.delete_where(where)
        with pytest.raises(ValueError, match=reason):
            store.search(query_vector(documents[0]), where=where)
    assert store.count() == 9


@pytest.mark.parametrize(
    ("field", "value"),
    [("dimensions", 16), ("instruction", "Another."), ("max_pixels", 5000), ("weights", "1" * 32), ("fps", 2.0)],
)
def test_other_recipe_is_an_error_that_names_the_field(store: Store, field: str, value: object) -> None:
    ingest(passages(2), FakeEmbedder(), store)
    embedder = FakeEmbedder(**{field: value})
    with pytest.raises(RecipeError, match=field):
        ingest(passages(2), embedder, store)
    assert embedder.embedded == []
    assert store.count() == 2


def test_equal_settings_of_other_types_are_the_same_recipe(store: Store) -> None:
    ingest(passages(5), FakeEmbedder(fps=1.0), store)
    report = ingest(passages(5), FakeEmbedder(fps=1, exif=0), store)
    assert (report.added, report.unchanged) == (0, 5)


def test_writes_are_split_into_requests_of_limited_size(backend: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl.stores.core.MAX_REQUEST_BYTES", 20_000)
    store = backend()
    documents = passages(120)
    assert ingest(documents, FakeEmbedder(), store).added == 120
    assert {point.id for point in store.scan()} == {store.point_id(document, fake_recipe()) for document in documents}


def test_foreign_collection_is_an_error(backend: OpenStore) -> None:
    store = backend()
    client = store.client
    collection = store.collection
    if hasattr(client, "heartbeat"):
        client.create_collection(collection)
    else:
        client.create_collection(collection, models.VectorParams(size=4, distance=models.Distance.DOT))
    with pytest.raises(StoreError, match="was not made by qwen3vl"):
        ingest(passages(1), FakeEmbedder(), store)


@pytest.mark.parametrize("layout", [None, Layout()])
@pytest.mark.parametrize("metadata", [None, {RECIPE_KEY: FakeEmbedder().recipe.to_dict()}])
@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ({"sparse_vectors_config": {"bm25": models.SparseVectorParams()}}, "'bm25' (sparse)"),
        (
            {"vectors_config": {"other": models.VectorParams(size=32, distance=models.Distance.COSINE)}},
            "'other' (dense)",
        ),
        (
            {
                "vectors_config": models.VectorParams(
                    size=32,
                    distance=models.Distance.COSINE,
                    multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
                )
            },
            "'' (multivector)",
        ),
        ({}, "none"),
    ],
)
def test_qdrant_collection_without_our_vector_is_refused_before_anything_is_written(
    vectors: dict[str, Any], expected: str, metadata: dict[str, Any] | None, layout: Layout | None
) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("foreign", metadata=metadata, **vectors)
    store = QdrantStore(client, "foreign", layout=layout)
    document = passages(1)[0]
    point = Point(store.point_id(document, FakeEmbedder().recipe), query_vector(document), document)
    for call in (lambda: ingest([document], FakeEmbedder(), store), lambda: store.upsert([point])):
        message = rf"'foreign' was not made by qwen3vl.*{re.escape(expected)}\. Use another collection name"
        with pytest.raises(StoreError, match=message):
            call()
    assert client.count("foreign").count == 0


def test_stores_of_one_embedded_client_are_thread_safe() -> None:
    client = QdrantClient(":memory:")
    stores = [QdrantStore(client, tenant=name) for name in ("ann", "bob", "cat")]
    stores[0].create(fake_recipe())
    with ThreadPoolExecutor(3) as pool:
        requests = [pool.submit(ingest, passages(700), FakeEmbedder(), store) for store in stores]
        for _ in range(50):
            stores[0].search(fake_vector("x"), 5)
        assert [request.result().added for request in requests] == [700] * 3
    assert [store.count() for store in stores] == [700] * 3


def test_one_per_is_a_deprecated_name_of_group_by(store: Store) -> None:
    documents = passages(9)
    ingest(documents, FakeEmbedder(), store)
    query = query_vector(documents[0])
    options: dict[str, Any] = {"one_per": "source"}
    with pytest.deprecated_call(match="use 'group_by'"):
        hits = store.search(query, 9, **options)
    assert [hit.id for hit in hits] == [hit.id for hit in store.search(query, 9, group_by="source")]
    with pytest.deprecated_call(match="use 'group_by'"):
        search = Search(query, **options)
    assert search.group_by == "source"
