"""Collections written before `place` and `content` were renamed to `locator` and `content_hash` stay usable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from qwen3vl import Document, Store, ingest
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, query_vector
from tests.support.store_backends import OpenStore, open_backend

FORMER_KEYS = {"locator": "place", "content_hash": "content"}
DOCUMENTS = [
    Document("a.png", "picture", "c1", image="/pictures/a.png"),
    *(
        Document("b.pdf", "page", "c2", locator=f"page={page}", text="words", image=f"b.pdf#page={page}")
        for page in (1, 2, 3)
    ),
    Document("c.mp4", "clip", "c3", locator="t=0,30", video="c.mp4#t=0,30", metadata={"start": 0}),
    Document("d.md", "text", locator="lines=1,9", text="a passage"),
]


def with_former_keys(metadata: dict[str, Any]) -> dict[str, Any]:
    return {FORMER_KEYS.get(key, key): value for key, value in metadata.items()}


def with_former_node(payload: dict[str, Any]) -> dict[str, Any]:
    node = json.loads(payload["_node_content"])
    node["metadata"] = with_former_keys(node["metadata"])
    return {**payload, "_node_content": json.dumps(node)}


def rewrite_qdrant(client: Any, collection: str) -> None:
    points, _ = client.scroll(collection, limit=100, with_payload=True, with_vectors=True)
    client.delete(collection, models.PointIdsList(points=[point.id for point in points]))
    for point in points:
        payload = with_former_node({**point.payload, "metadata": with_former_keys(point.payload["metadata"])})
        client.upsert(collection, [models.PointStruct(id=point.id, vector=point.vector, payload=payload)])


def rewrite_chroma(client: Any, collection: str) -> None:
    stored = client.get_collection(collection, embedding_function=None)
    points = stored.get(include=["embeddings", "metadatas", "documents", "uris"])
    stored.delete(ids=points["ids"])
    stored.add(
        ids=points["ids"],
        embeddings=np.asarray(points["embeddings"]),
        metadatas=[with_former_node(with_former_keys(metadata)) for metadata in points["metadatas"]],
        documents=points["documents"],
        uris=points["uris"],
    )


@pytest.fixture(params=["qdrant-folder", "qdrant-edge", "chroma-folder"])
def former_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with open_backend(request.param, tmp_path, lambda: 0) as open_store:
        store = open_store()
        ingest(DOCUMENTS, FakeEmbedder(), store)
        rewrite = rewrite_qdrant if request.param.startswith("qdrant") else rewrite_chroma
        rewrite(store.client, store.collection)
        yield store


def test_former_keys_are_read(former_store: Store) -> None:
    for document in DOCUMENTS:
        (hit,) = former_store.search(query_vector(document), 1)
        assert hit.document == document
    scanned = {(point.id, point.source, point.locator) for point in former_store.scan()}
    assert scanned == {
        (former_store.point_id(document, fake_recipe()), document.source, document.locator) for document in DOCUMENTS
    }


def test_sync_recognizes_points_with_former_keys(former_store: Store) -> None:
    embedder = FakeEmbedder()
    report = ingest(DOCUMENTS, embedder, former_store, sync=True)
    assert (report.added, report.unchanged, report.replaced, report.deleted) == (0, len(DOCUMENTS), 0, 0)
    assert embedder.embedded == []
    # The second page has other content now, and the third is gone.
    second_page = replace(DOCUMENTS[2], content_hash="c9")
    current = [*DOCUMENTS[:2], second_page, *DOCUMENTS[4:]]
    report = ingest(current, embedder, former_store, sync=True)
    assert (report.added, report.unchanged, report.replaced, report.deleted) == (1, len(current) - 1, 1, 1)
    assert {point.id for point in former_store.scan()} == {
        former_store.point_id(document, fake_recipe()) for document in current
    }


def test_content_with_former_keys_is_not_embedded_again(former_store: Store) -> None:
    embedder = FakeEmbedder()
    copies = [
        replace(document, source=f"copies/{document.source}", image=document.image and f"copies/{document.image}")
        for document in DOCUMENTS[:4]
    ]
    report = ingest([*DOCUMENTS, *copies], embedder, former_store)
    assert (report.added, report.unchanged, embedder.embedded) == (len(copies), len(DOCUMENTS), [])
    vectors = former_store.vectors([former_store.point_id(document, fake_recipe()) for document in DOCUMENTS[:4]])
    copied = former_store.vectors([former_store.point_id(document, fake_recipe()) for document in copies])
    np.testing.assert_allclose(
        [copied[former_store.point_id(document, fake_recipe())] for document in copies],
        [vectors[former_store.point_id(document, fake_recipe())] for document in DOCUMENTS[:4]],
        atol=1e-6,
    )


def test_place_in_the_metadata_is_no_locator(backend: OpenStore) -> None:
    store = backend()
    documents = [Document(f"{number}", "text", text="a", metadata={"place": "Rome"}) for number in range(2)]
    ingest(documents, FakeEmbedder(), store)
    assert [point.locator for point in store.scan()] == ["", ""]
    changed = [replace(document, text="b") for document in documents]
    report = ingest(changed, FakeEmbedder(), store, sync=True)
    assert (report.added, report.replaced, report.deleted) == (2, 2, 0)
