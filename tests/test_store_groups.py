"""Searches with `group_by` find the same in all stores, also where documents have lists of values."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from qwen3vl_qdrant import Layout

from qwen3vl import Document, Point, ingest
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, fake_vector
from tests.support.store_backends import OpenStore, open_backend


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


@pytest.mark.parametrize(
    ("database", "options", "maximum"),
    [
        ("chroma-memory", {}, "qwen3vl_chroma.core.MAX_GROUP_CANDIDATES"),
        ("qdrant-memory", {"mode": "text"}, "qwen3vl_qdrant.word_search.MAX_GROUP_CANDIDATES"),
        ("qdrant-memory", {"mode": "hybrid"}, "qwen3vl_qdrant.word_search.MAX_GROUP_CANDIDATES"),
    ],
)
def test_groups_are_searched_for_among_a_bounded_number_of_points(
    database: str, options: dict[str, Any], maximum: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, other = fake_vector("q"), fake_vector("other")
    documents = [Document("long.md", "text", f"{number}", text="valve valve") for number in range(500)]
    documents.append(Document("short.md", "text", text="a valve among many other things"))
    with open_backend(database, tmp_path, lambda: 0) as open_store:
        store = open_store(**({"layout": Layout(hybrid=True)} if options else {}))
        store.create(fake_recipe())
        # Different vectors: equal ones leave parts of Chroma's graph that no search reaches.
        vectors = query + 0.05 * np.random.default_rng(0).standard_normal((501, len(query))).astype(np.float32)
        vectors[-1] = query + other
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        points = zip(documents, vectors, strict=True)
        store.upsert([Point(store.point_id(document, fake_recipe()), vector, document) for document, vector in points])

        def sources() -> list[str]:
            hits = store.search(query, 3, text="valve" if options else "", group_by="source", **options)
            return [hit.document.source for hit in hits]

        assert sources() == ["long.md", "short.md"]
        monkeypatch.setattr(maximum, 300)
        assert sources() == ["long.md"]
        monkeypatch.setattr(maximum, 600)
        assert sources() == ["long.md", "short.md"]
