"""The folder that stores and clients of a process share: it is unlocked whatever happens to its users."""

from __future__ import annotations

import gc
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from qwen3vl_qdrant import QdrantEdgeStore
from qwen3vl_qdrant.edge.collection import EdgeCollection
from qwen3vl_qdrant.edge.folder import EdgeFolder

from qwen3vl import StoreError
from tests.test_edge_stores import filled_store


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
    def fail(_: EdgeCollection) -> None:
        raise OSError("No space left on device")

    store = filled_store(tmp_path / "store", 10)
    with monkeypatch.context() as patch:
        patch.setattr(EdgeCollection, "close", fail)
        with pytest.raises(StoreError, match="No space left"):
            store.close()
    del store
    assert QdrantEdgeStore(tmp_path / "store").count() == 10
