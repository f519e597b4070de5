"""The index of a folder in Qdrant's own engine: what happens if it cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest
from qwen3vl_qdrant.edge import indexing

from qwen3vl import StoreError
from tests.test_edge_stores import filled_store, num_indexed, random_points


@pytest.fixture(autouse=True)
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edge builds an index of 100 kilobytes of vectors (401 points) already."""
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)


@pytest.mark.parametrize(("name", "value"), [("_BUILD", "raise SystemExit('no memory')"), ("sys.executable", "/none")])
def test_writes_go_on_although_the_index_cannot_be_built(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.points_backend.MIN_INDEXED_POINTS", 1000)
    store = filled_store(tmp_path / "store", 900)
    with monkeypatch.context() as patch:
        patch.setattr(f"qwen3vl_qdrant.edge.indexing.{name}", value)
        for count, num_attempts in ((500, 1), (500, 1), (900, 2)):
            store.upsert(random_points(store, count, store.count()))
            assert caplog.text.count("are stored: the ") == num_attempts
        with pytest.raises(StoreError, match=r"the index cannot be built: no memory|cannot be started"):
            store.build_index()
    assert (store.count(), num_indexed(store)) == (2800, 0)
    store.build_index()
    assert (store.count(), num_indexed(store)) == (2800, 2800)


def test_collection_is_opened_again_if_that_failed_after_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_POLL_INTERVAL_S", 0.01)
    store = filled_store(tmp_path / "store", 900)
    shard = tmp_path / "store" / "collections" / "qwen3vl" / "shard"

    def interrupt(seconds: float) -> None:
        shard.rename(tmp_path / "shard")
        raise KeyboardInterrupt

    with pytest.raises(StoreError, match="is missing"):
        store.build_index(interrupt)
    with pytest.raises(StoreError, match="is missing"):
        store.count()
    (tmp_path / "shard").rename(shard)
    assert store.count() == 900


def test_no_module_of_the_current_folder_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "signal"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    store = filled_store(tmp_path / "store", 900)
    store.build_index()
    assert num_indexed(store) == 900
    assert not (tmp_path / "executed").exists()
