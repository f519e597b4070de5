"""The folder that stores and clients of a process share: it is unlocked whatever happens to its users."""

from __future__ import annotations

import gc
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from qwen3vl_qdrant import Layout, QdrantEdgeStore
from qwen3vl_qdrant.edge.collection import EdgeCollection, read_quantized_vectors
from qwen3vl_qdrant.edge.folder import EdgeFolder

from qwen3vl import StoreError
from tests.support.fake_embedder import fake_recipe
from tests.test_edge_stores import DIMENSIONS, filled_store


def test_garbage_collector_may_release_a_folder_while_another_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = EdgeFolder.__init__

    def collect_and_create(folder: EdgeFolder, *paths: Path) -> None:
        gc.collect()
        create(folder, *paths)

    lost: Any = filled_store(tmp_path / "lost", 10)
    lost.itself = lost  # nothing but the garbage collector frees it
    monkeypatch.setattr(EdgeFolder, "__init__", collect_and_create)
    gc.disable()
    try:
        del lost
        opening = Thread(target=QdrantEdgeStore, args=(tmp_path / "store",), daemon=True)
        opening.start()
        opening.join(30)
        assert not opening.is_alive()
    finally:
        gc.enable()
    assert QdrantEdgeStore(tmp_path / "lost").core.client.folder.num_users == 1


def test_folder_is_unlocked_although_a_collection_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[EdgeCollection] = []
    close = EdgeCollection.close

    def fail_first(self: EdgeCollection) -> None:
        closed.append(self)
        if len(closed) == 1:
            raise OSError("No space left on device")
        close(self)

    store = filled_store(tmp_path / "store", 10)
    other = QdrantEdgeStore(tmp_path / "store", collection="other")
    other.create(fake_recipe())
    with monkeypatch.context() as patch:
        patch.setattr(EdgeCollection, "close", fail_first)
        store.close()
        with pytest.raises(StoreError, match="No space left"):
            other.close()
    assert len(closed) == 2
    del store, other
    assert QdrantEdgeStore(tmp_path / "store").count() == 10


@pytest.mark.parametrize("layout", [Layout(), Layout(quantization="scalar"), Layout(short=16, quantization="binary")])
def test_quantized_vectors_are_read_before_the_engine_loads_them(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)
    store = filled_store(tmp_path / "store", 2000, layout=layout)
    store.build_index()
    store.close()
    num_bytes: list[int] = []
    monkeypatch.setattr(
        "qwen3vl_qdrant.edge.collection.read_quantized_vectors",
        lambda shard: num_bytes.append(read_quantized_vectors(shard)),
    )
    assert QdrantEdgeStore(tmp_path / "store").count() == 2000
    values = {None: 0, "scalar": DIMENSIONS, "binary": 16 // 8}[layout.quantization]
    assert sum(num_bytes) >= 2000 * values
    assert bool(sum(num_bytes)) == (layout.quantization is not None)
