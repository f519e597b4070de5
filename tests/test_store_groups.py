"""Searches with `group_by` find the same in all stores, also where documents have lists of values."""

from __future__ import annotations

from random import Random

from qwen3vl import Document, ingest
from tests.support.fake_embedder import FakeEmbedder, fake_vector
from tests.support.store_backends import OpenStore


def test_document_that_is_the_best_of_several_groups_is_found_once(backend: OpenStore) -> None:
    generator = Random(0)
    tags = [f"tag {number}" for number in range(40)]
    documents = [
        Document(f"{number}", "text", text=f"text {number}", metadata={"tags": generator.sample(tags, 1 + number % 6)})
        for number in range(60)
    ]
    store = backend()
    ingest(documents, FakeEmbedder(), store)
    query = fake_vector("q")
    best: dict[str, str] = {}
    for hit in store.search(query, 60):
        for tag in hit.document.metadata["tags"]:
            best.setdefault(tag, hit.id)
    expected = list(dict.fromkeys(best.values()))
    assert 10 < len(expected) < len(best) == 40
    for limit, offset in ((1, 0), (3, 0), (3, 2), (10, 0), (60, 0), (60, 5)):
        hits = store.search(query, limit, offset=offset, group_by="tags")
        assert [hit.id for hit in hits] == expected[offset : offset + limit]
