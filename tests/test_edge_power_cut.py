"""What a power cut leaves of a folder: the log, and of the segments whatever the system had written by then."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qwen3vl_qdrant import QdrantEdgeStore
from qwen3vl_qdrant.edge import wal
from qwen3vl_qdrant.edge.collection import EdgeCollection
from qwen3vl_qdrant.edge.wal import FSYNC_WRITES_MAPS, WriteAheadLog

from qwen3vl import Document, Point, StoreError
from tests.support.fake_embedder import fake_recipe

pytestmark = pytest.mark.skipif(not FSYNC_WRITES_MAPS, reason="each write flushes the segments on this system")
DIMENSIONS = 32
PAGE = 4096
SHARD = Path("collections/qwen3vl/shard")


def points(store: QdrantEdgeStore, start: int, count: int, seed: int, dimensions: int = DIMENSIONS) -> list[Point]:
    recipe = fake_recipe(dimensions=dimensions)
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions), dtype=np.float32)
    documents = [
        Document(f"{start + number}.md", "text", text="a text", metadata={"seed": seed}) for number in range(count)
    ]
    return [
        Point(store.point_id(document, recipe), vector / np.linalg.norm(vector), document)
        for document, vector in zip(documents, vectors, strict=True)
    ]


def contents(store: QdrantEdgeStore) -> dict[str, tuple[Any, NDArray[np.float32]]]:
    ids = [point.id for point in store.scan()]
    documents, vectors = store.documents(ids), store.vectors(ids)
    return {point_id: (documents[point_id].metadata["seed"], vectors[point_id]) for point_id in ids}


def cut_power(old: Path, new: Path, share_of_old: float, random: Random) -> None:
    """Replace pages of the segments in one copy of a folder by those of an earlier copy."""
    segments = new / SHARD / "segments"
    for file in segments.rglob("*"):
        earlier = old / SHARD / "segments" / file.relative_to(segments)
        if file.is_file() and not earlier.exists():
            if share_of_old == 1:
                file.unlink()
        elif file.is_file():
            after, before = file.read_bytes(), earlier.read_bytes()
            before = before[: len(after)].ljust(len(after), b"\0")
            pages = range(0, len(after), PAGE)
            file.write_bytes(
                b"".join((before if random.random() < share_of_old else after)[at : at + PAGE] for at in pages)
            )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QdrantEdgeStore]:
    with closing(QdrantEdgeStore(tmp_path / "store")) as edge_store:
        yield edge_store


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each flush of the segments."""
    calls: list[str] = []
    call = EdgeCollection.call

    def recorded(collection: EdgeCollection, method: str, *args: Any) -> Any:
        if method == "flush":
            calls.append(method)
        return call(collection, method, *args)

    monkeypatch.setattr(EdgeCollection, "call", recorded)
    return calls


@pytest.mark.parametrize("share_of_old", [1.0, 0.5, 0.1])
def test_points_are_there_whatever_was_written_of_the_segments(
    store: QdrantEdgeStore, tmp_path: Path, share_of_old: float
) -> None:
    store.create(fake_recipe(dimensions=DIMENSIONS))
    store.upsert(points(store, 0, 300, seed=1))
    store.delete([point.id for point in points(store, 290, 10, seed=1)])  # this flushes the segments
    shutil.copytree(tmp_path / "store", tmp_path / "before")
    store.upsert(points(store, 300, 300, seed=2))
    store.upsert(points(store, 100, 100, seed=3))  # other vectors and metadata of points that the segments have
    shutil.copytree(tmp_path / "store", tmp_path / "after")
    cut_power(tmp_path / "before", tmp_path / "after", share_of_old, Random(0))
    expected = contents(store)
    assert len(expected) == 590
    with closing(QdrantEdgeStore(tmp_path / "after")) as left:
        actual = contents(left)
    assert actual.keys() == expected.keys()
    for point_id, (seed, vector) in expected.items():
        assert actual[point_id][0] == seed
        np.testing.assert_allclose(actual[point_id][1], vector, atol=1e-6)


def test_writing_points_syncs_the_log(store: QdrantEdgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create(fake_recipe(dimensions=DIMENSIONS))
    store.upsert(points(store, 0, 10, seed=1))  # the first call of an open store flushes the segments
    synced: set[int] = set()
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", recorded)
    store.upsert(points(store, 10, 10, seed=2))
    log = tmp_path / "store" / SHARD / "wal"
    assert {file.stat().st_ino for file in (log, *log.iterdir())} <= synced


def test_files_that_are_renamed_meanwhile_are_synced_under_their_new_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "wal"
    log.mkdir()
    (log / "open-1").write_bytes(b"a change")
    inode = (log / "open-1").stat().st_ino
    synced: list[int] = []
    open_file: Any = os.open

    def renamed(path: Path, flags: int) -> int:
        if (log / "open-1").exists():
            (log / "open-1").rename(log / "closed-1")
        return int(open_file(path, flags))

    monkeypatch.setattr(os, "open", renamed)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    WriteAheadLog(tmp_path).sync()
    assert inode in synced


def test_log_stays_short(
    store: QdrantEdgeStore, flushes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call writes more than a file of the log has room for."""
    monkeypatch.setattr(wal, "MAX_FULL_FILES", 1)
    store.create(fake_recipe(dimensions=4096))
    flushes.clear()
    for start in range(0, 7_500, 2_500):
        store.upsert(points(store, start, 2_500, seed=start, dimensions=4096))
    assert len(flushes) >= 2
    assert len(list((tmp_path / "store" / SHARD / "wal").glob("closed-*"))) <= 2


def test_segments_are_flushed_after_the_log_could_not_be_written(
    store: QdrantEdgeStore, flushes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(fake_recipe(dimensions=DIMENSIONS))
    store.upsert(points(store, 0, 10, seed=1))
    flushes.clear()
    store.upsert(points(store, 10, 10, seed=1))
    assert not flushes

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreError, match="Input/output error"):
            store.upsert(points(store, 20, 10, seed=1))
    store.upsert(points(store, 30, 10, seed=1))
    assert len(flushes) == 1


def test_segments_are_flushed_after_the_index_was_built(store: QdrantEdgeStore, flushes: list[str]) -> None:
    """The shard is opened again then."""
    store.create(fake_recipe(dimensions=1024))
    store.upsert(points(store, 0, 3_000, seed=1, dimensions=1024))
    store.build_index()
    assert store.client.get_collection(store.collection).indexed_vectors_count
    flushes.clear()
    for start in (3_000, 3_010):
        store.upsert(points(store, start, 10, seed=2, dimensions=1024))
    assert len(flushes) == 1
