"""Filters find the same in all stores, whatever the types of the values are."""

from __future__ import annotations

from typing import Any

import pytest

from qwen3vl import Document, ingest
from tests.support.fake_embedder import FakeEmbedder, query_vector
from tests.support.store_backends import OpenStore


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
