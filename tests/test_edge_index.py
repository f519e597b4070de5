"""The index of a folder in Qdrant's own engine: what happens if it cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest
from qwen3vl_qdrant import QdrantEdgeStore
from qwen3vl_qdrant.edge import indexing

from qwen3vl import Report, StoreError, copy_store, ingest
from tests.support.fake_embedder import FakeEmbedder, passages
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


def test_interruption_ends_the_index_that_a_write_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.points_backend.MIN_INDEXED_POINTS", 1000)
    monkeypatch.setattr(indexing, "_BUILD", "import time; time.sleep(10)")
    store = QdrantEdgeStore(tmp_path / "store")
    documents = passages(4000)
    added: list[int] = []

    def interrupt(report: Report) -> None:
        if report.indexing_s > 0:
            added.append(report.added)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(documents, FakeEmbedder(), store, progress=interrupt)
    num_written = store.count()
    assert len(added) == 1
    assert added[0] < num_written < 4000
    monkeypatch.undo()
    report = ingest(documents, FakeEmbedder(), store)
    assert (report.added, report.unchanged, store.count()) == (4000 - num_written, num_written, 4000)


def test_copy_shows_the_index_that_a_write_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.points_backend.MIN_INDEXED_POINTS", 1000)
    monkeypatch.setattr(indexing, "_BUILD", "import time; time.sleep(0.5)")
    source, destination = filled_store(tmp_path / "source", 900), QdrantEdgeStore(tmp_path / "copy")
    source.upsert(random_points(source, 900, 1))
    seen: list[tuple[int, bool]] = []
    copy_store(source, destination, progress=lambda report: seen.append((report.copied, report.indexing_s > 0)))
    assert any(is_indexing for copied, is_indexing in seen if copied < 1800)
    assert (destination.count(), num_indexed(destination)) == (1800, 0)


def test_space_of_points_that_several_runs_have_deleted_is_freed(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store", 3000)
    ids = [point.id for point in store.scan()]
    assert store.client.build_index("qwen3vl")
    for start, is_built in ((0, False), (600, True), (1200, False), (1800, True)):
        store.delete(ids[start : start + 600])
        store.close()
        store = QdrantEdgeStore(tmp_path / "store")
        assert store.client.build_index("qwen3vl") == is_built
    assert store.count() == 600


def test_no_module_of_the_current_folder_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("json", "signal"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    monkeypatch.chdir(tmp_path)
    store = filled_store(tmp_path / "store", 900)
    store.build_index()
    assert num_indexed(store) == 900
    assert not (tmp_path / "executed").exists()
