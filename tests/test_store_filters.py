"""Filters find the same in all stores, whatever the types of the values are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwen3vl import Document, Store, ingest
from qwen3vl.stores import Point
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, fake_vector, query_vector
from tests.support.store_backends import OpenStore, open_async_store


def test_equal_numbers_are_found_whether_they_have_a_fraction_or_not(backend: OpenStore) -> None:
    values: list[Any] = [30, 30.0, 30.5, 2**60, 2**60 + 1, "30"]
    documents = [
        Document(f"{index}", "text", text=f"{index}", metadata={"start": value}) for index, value in enumerate(values)
    ]
    store = backend()
    ingest(documents, FakeEmbedder(), store)

    def found(where: object) -> set[int]:
        return {int(hit.document.source) for hit in store.search(query_vector(documents[0]), 9, where=where)}

    assert found({"start": 30}) == found({"start": 30.0}) == found({"start": {"gte": 30, "lte": 30}}) == {0, 1}
    assert found({"start": 30.5}) == {2}
    assert found({"start": 2**60}) == {3}
    assert found({"start": [30, 30.5, "30", 2**60 + 1]}) == {0, 1, 2, 4, 5}


@pytest.mark.parametrize("bound", [2.5, -2.5, 2.0, -2, 0.5, -0.5])
def test_integers_and_fractions_are_compared_with_bounds_of_either_kind(backend: OpenStore, bound: float) -> None:
    values = [-3, -2.75, -2.5, -2, -1, -0.5, 0, 0.5, 1, 2, 2.5, 2.75, 3]
    documents = [Document(f"{value}", "text", text=f"{value}", metadata={"level": value}) for value in values]
    store = backend()
    ingest(documents, FakeEmbedder(), store)

    def found(where: object) -> list[float]:
        hits = store.search(query_vector(documents[0]), 20, where=where)
        return sorted(float(hit.document.source) for hit in hits)

    assert found({"level": {"gt": bound}}) == [value for value in values if value > bound]
    assert found({"level": {"gte": bound}}) == [value for value in values if value >= bound]
    assert found({"level": {"lt": bound}}) == [value for value in values if value < bound]
    assert found({"level": {"lte": bound}}) == [value for value in values if value <= bound]
    assert found({"level": {"gte": -1.5, "lt": bound}}) == [value for value in values if -1.5 <= value < bound]
    assert found({"level": [bound, 3, "3"]}) == [value for value in values if value in (bound, 3)]


def test_delete_by_a_number_with_a_fraction_leaves_integers(backend: OpenStore) -> None:
    documents = [Document(f"{value}", "text", text=f"{value}", metadata={"level": value}) for value in (30, 30.5)]
    store = backend()
    ingest(documents, FakeEmbedder(), store)
    store.delete_where({"level": 30.5})
    assert [point.source for point in store.scan()] == ["30"]


def same_vector(backend: OpenStore, sources: dict[str, int], **options: Any) -> Store:
    """A store of documents that all have one vector, of which an index finds only some."""
    store, recipe = backend(**options), fake_recipe()
    documents = [
        Document(source, "text", text=f"{number}", locator=f"{number}", metadata={"number": number})
        for source, count in sources.items()
        for number in range(count)
    ]
    store.create(recipe)
    vector = fake_vector("any")
    store.upsert([Point(store.point_id(document, recipe), vector, document) for document in documents])
    return store


def test_scan_finds_every_point_that_matches(backend: OpenStore) -> None:
    """On more than one page, and although no index finds all of so many equal vectors."""
    store = same_vector(backend, {"a": 1130, "b": 130})
    for where, num_points in ({"source": "a"}, 1130), ({"source": "b"}, 130), (None, 1260), ({}, 1260):
        points = list(store.scan(where))
        assert len(points) == len({point.id for point in points}) == num_points
    found = {(point.source, point.locator) for point in store.scan({"source": ["a", "b"], "number": {"gte": 129}})}
    assert found == {("b", "129"), *(("a", f"{number}") for number in range(129, 1130))}
    assert list(store.scan({"source": "c"})) == list(store.scan({"source": []})) == []
    with pytest.raises(ValueError, match="cannot be filtered"):
        list(store.scan({"source": None}))
    store.delete([point.id for point in store.scan({"source": "b"})])
    assert {point.source for point in store.scan()} == {"a"}


def test_scan_with_a_filter_finds_points_of_the_tenant_only(backend: OpenStore) -> None:
    ann, bob = (same_vector(backend, {"a": count}, tenant=name) for name, count in (("ann", 130), ("bob", 2)))
    for store, count in (ann, 130), (bob, 2):
        assert {point.id for point in store.scan({"source": "a"})} == {point.id for point in store.scan()}
        assert len(list(store.scan({"source": "a"}))) == count


@pytest.mark.parametrize("name", ["qdrant", "qdrant-edge", "chroma", "qdrant-server"])
async def test_scan_with_a_filter_and_an_async_client(name: str, tmp_path: Path, chroma_port: int) -> None:
    store, recipe = await open_async_store(name, tmp_path, lambda: chroma_port), fake_recipe()
    await store.acreate(recipe)
    documents = [Document("ab"[number % 2], "text", text=f"{number}") for number in range(260)]
    vector = fake_vector("any")
    await store.aupsert([Point(store.point_id(document, recipe), vector, document) for document in documents])
    points = [point async for point in store.ascan({"source": "b"})]
    assert {point.id for point in points} == {store.point_id(document, recipe) for document in documents[1::2]}
    await store.aclose()
