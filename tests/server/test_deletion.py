"""Deletion of sources: all of their documents, and the files that nothing shows any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from qwen3vl_server import SERVER_POLICY, create_app

from qwen3vl import Document, open_store
from qwen3vl.stores import Point
from tests.support.library_server import LibraryServer, open_embedder
from tests.support.model_server import ModelServer


def test_source_whose_points_an_index_does_not_find(tmp_path: Path) -> None:
    """Of many equal vectors, Chroma's filtered search returns only some."""
    media, store = tmp_path / "media", open_store(f"chroma:{tmp_path / 'chroma'}")
    with open_embedder(replace(SERVER_POLICY, folders=(media,))) as embedder:
        app = create_app(embedder=embedder, store=store, media=media)
        with ModelServer(app) as server:
            library = LibraryServer(server, store, tmp_path, media)
            vector = np.eye(1, embedder.dimension, dtype=np.float32)[0]
            others = [Document("other.txt", "text", text=f"page {number}") for number in range(1000)]
            pages = [Document("a.txt", "text", text=f"page {number}") for number in range(130)]
            points = [Point(store.point_id(page, embedder.recipe), vector, page) for page in (*others, *pages)]
            store.upsert(points)
            job = library.upload(("a.txt", b"a new version"))
            assert (job["added"], job["replaced"]) == (1, 130)
            store.upsert(points)
            assert server.client.delete("/v1/documents", params={"source": "a.txt"}).json() == {"deleted": 131}
            assert server.client.get("/v1/documents", params={"contains": "a.txt"}).json()["total"] == 0
            assert store.count() == 1000
    store.close()
