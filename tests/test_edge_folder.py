"""The folder that stores and clients of a process share: it is unlocked whatever happens to its users."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import portalocker
import pytest
from qdrant_client import QdrantClient
from qwen3vl_qdrant import Layout, QdrantEdgeStore, edge_client
from qwen3vl_qdrant.edge import collection
from qwen3vl_qdrant.edge.collection import EdgeCollection
from qwen3vl_qdrant.edge.folder import EdgeFolder
from qwen3vl_qdrant.edge.page_cache import ReadAhead, available_memory, read_quantized_vectors

from qwen3vl import StoreError, open_store
from qwen3vl.stores.folders import lock_folder
from tests.support.decoder_scripts import wait_until
from tests.support.edge_points import PLAIN
from tests.support.fake_embedder import fake_recipe
from tests.test_edge_stores import DIMENSIONS, filled_store, num_indexed


def test_empty_name_is_not_that_of_all_collections(tmp_path: Path) -> None:
    filled_store(tmp_path / "store", 10).close()
    with edge_client(tmp_path / "store") as client:
        backend = client.backend  # the client itself refuses the name only in some of its methods
        calls: list[Callable[[], Any]] = [
            lambda: backend.collection_exists(""),
            lambda: backend.get_collection(""),
            lambda: backend.delete_collection(""),
            lambda: backend.recreate_collection("", PLAIN),
            lambda: backend.create_collection("", PLAIN),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="the collection's name is empty: pass a name"):
                call()
        assert client.count("qwen3vl").count == 10


@pytest.mark.parametrize("name", ["Photos", "photos. "])
def test_collection_that_the_disk_takes_for_another_is_not_opened_or_deleted(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "store"
    filled_store(folder, 10, collection="photos").close()
    if not (other := folder / "collections" / name).exists():  # this disk tells them apart
        other.symlink_to("photos", target_is_directory=True)
    with edge_client(folder) as client:
        calls: list[Callable[[], Any]] = [
            lambda: QdrantEdgeStore(folder, name),
            lambda: client.get_collection(name),
            lambda: client.delete_collection(name),
            lambda: client.create_collection(name, PLAIN),
        ]
        for call in calls:
            with pytest.raises(StoreError, match=f"has the collection 'photos', which this disk .* from '{name}'"):
                call()
        assert client.count("photos").count == 10


def test_collection_whose_folder_was_copied_by_hand_is_opened_by_the_new_name(tmp_path: Path) -> None:
    filled_store(tmp_path / "store", 10).close()
    collections = tmp_path / "store" / "collections"
    shutil.copytree(collections / "qwen3vl", collections / "copy")
    assert QdrantEdgeStore(tmp_path / "store", "copy").count() == 10


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


@pytest.fixture
def reads_ahead(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Iterator[Callable[[int], list[int]]]:
    """Waits for so many threads that read ahead in the test's folder; returns how many bytes each of them has read."""

    def wait_for_reads(count: int) -> list[int]:
        def num_bytes() -> list[int]:
            found = [record.args for record in caplog.records if str(tmp_path) in record.getMessage()]
            return [int(str(args[1])) for args in found if isinstance(args, tuple)]

        wait_until(lambda: len(num_bytes()) >= count)
        return num_bytes()

    with caplog.at_level("DEBUG", "qwen3vl_qdrant.edge.page_cache"):
        yield wait_for_reads


def search(store: QdrantEdgeStore) -> None:
    assert store.search(np.ones(DIMENSIONS, np.float32), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is available")
def test_searches_read_payloads_and_vectors_ahead_once_and_again_after_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_ahead: Callable[[int], list[int]]
) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)
    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache.available_memory", lambda: 2**40)
    num_vector_bytes = 2000 * 4 * DIMENSIONS
    store = filled_store(tmp_path / "store", 2000)
    for _ in range(3):
        search(store)
    (without_index,) = reads_ahead(1)
    store.build_index()
    for _ in range(3):
        search(store)
    _, with_index = reads_ahead(2)
    store.close()
    segments = next((tmp_path / "store").glob("collections/*/shard/segments"))
    assert num_vector_bytes <= sum(file.stat().st_size for file in segments.glob("*/vector_storage/matrix.dat"))
    assert min(without_index, with_index) > num_vector_bytes
    assert max(without_index, with_index) < num_vector_bytes + 16 * 2**20, "holes were read"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is available")
def test_no_more_than_a_quarter_of_the_memory_is_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_ahead: Callable[[int], list[int]]
) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache.available_memory", lambda: 4 * 5000)
    store = filled_store(tmp_path / "store", 100)
    search(store)
    assert reads_ahead(1) == [5000]
    store.close()


@pytest.mark.parametrize("num_kb", [None, 8192])
def test_nothing_is_read_ahead_where_the_available_memory_is_unknown(
    num_kb: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if num_kb is not None:
        (tmp_path / "meminfo").write_text(f"MemAvailable:    {num_kb} kB\n")
    started: list[Thread] = []
    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache._MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(Thread, "start", lambda thread: started.append(thread))
    ReadAhead(tmp_path).start()
    assert len(started) == (0 if num_kb is None else 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is available")
def test_reading_ahead_ends_when_a_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_ahead: Callable[[int], list[int]]
) -> None:
    """A file without end stands for a large one."""
    num_ranges = 0

    def endless(_: int) -> Iterator[tuple[int, int]]:
        nonlocal num_ranges
        while True:
            num_ranges += 1
            yield 0, 1

    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache.available_memory", lambda: 2**62)
    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache.data_ranges", endless)
    store = filled_store(tmp_path / "store", 10)
    search(store)
    wait_until(lambda: num_ranges > 10)
    store.close()
    assert len(reads_ahead(1)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much memory is available")
def test_garbage_collector_may_release_a_folder_in_the_thread_that_reads_it_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_ahead: Callable[[int], list[int]]
) -> None:
    """Then nobody may wait for that thread: neither it itself, nor who closes another folder."""
    may_collect = Event()

    def collect(_: int) -> list[tuple[int, int]]:
        assert may_collect.wait(60)
        gc.collect()
        return []

    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache.available_memory", lambda: 2**40)
    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache.data_ranges", collect)
    gc.disable()
    try:
        store, other = (filled_store(tmp_path / name, 10) for name in ("store", "other"))
        search(store)
        cycle: list[Any] = [store]
        cycle.append(cycle)
        del store, cycle
        search(other)
        may_collect.set()
        closing = Thread(target=other.close, daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
        assert len(reads_ahead(2)) == 2
    finally:
        gc.enable()
    again = QdrantEdgeStore(tmp_path / "store")
    assert again.count() == 10
    again.close()


@pytest.mark.parametrize(("limit", "expected"), [("max", 8 * 2**20), (str(5 * 2**20), 5 * 2**20), (None, 8 * 2**20)])
def test_a_container_limits_the_memory_that_is_available(
    limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       16384 kB\nMemAvailable:    8192 kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache._MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr("qwen3vl_qdrant.edge.page_cache._CONTAINER_LIMIT", tmp_path / "memory.max")
    assert available_memory() == expected


class WindowsPopen(subprocess.Popen[bytes]):
    """`subprocess.Popen` with the assertion that it makes on Windows."""

    def __init__(self, command: list[str], **options: Any) -> None:
        assert not options.get("pass_fds"), "pass_fds not supported on Windows."
        super().__init__(command, **options)


def test_index_is_built_where_no_descriptors_are_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)
    monkeypatch.setattr("qwen3vl_qdrant.edge.indexing._INHERITS_DESCRIPTORS", False)
    monkeypatch.setattr(subprocess, "Popen", WindowsPopen)
    store = filled_store(tmp_path / "store", 2000)
    store.build_index()
    assert num_indexed(store) == 2000


LOAD_SHARD = """
import sys
import qdrant_edge

shard = qdrant_edge.EdgeShard.load(sys.argv[1])
print("loaded", flush=True)
sys.stdin.read()
"""


def test_collection_that_another_process_indexes_is_locked_without_the_lock_on_the_folder(tmp_path: Path) -> None:
    """That is what is left on Windows of a process that was killed while it built an index."""
    filled_store(tmp_path / "store", 10).close()
    (shard,) = (tmp_path / "store").glob("collections/*/shard")
    command = [sys.executable, "-c", LOAD_SHARD, str(shard)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loaded\n"
        with pytest.raises(StoreError, match="perhaps one that builds its index"):
            QdrantEdgeStore(tmp_path / "store").count()
        process.communicate()
    assert QdrantEdgeStore(tmp_path / "store").count() == 10


def test_folder_whose_lock_file_cannot_be_read_is_open_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(stream: Any, flags: portalocker.LockFlags) -> None:
        unreadable = os.open(stream.name, os.O_WRONLY)  # as a file that another process has locked is on Windows
        os.dup2(unreadable, stream.fileno())
        os.close(unreadable)
        raise portalocker.exceptions.AlreadyLocked

    filled_store(tmp_path / "store", 10).close()
    monkeypatch.setattr(portalocker, "lock", refuse)
    with pytest.raises(StoreError, match="is open in another process: close that one first"):
        QdrantEdgeStore(tmp_path / "store").count()


@pytest.mark.parametrize("local_mode", [False, True])
def test_folder_on_a_disk_without_locks(local_mode: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def have_no_locks(*_: Any) -> None:
        error = OSError(errno.ENOLCK, "No locks available")
        raise portalocker.exceptions.LockException(error) from error

    folder = tmp_path / "store"
    if local_mode:
        QdrantClient(path=str(folder)).close()
    monkeypatch.setattr(portalocker, "lock", have_no_locks)
    with pytest.raises(StoreError, match=r"store cannot be locked \(.*No locks available\): use a folder on a local"):
        open_store(str(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files, in place of a full disk")
def test_folder_is_locked_on_a_full_disk(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        lock = lock_folder(tmp_path / ".lock", tmp_path, str)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with lock, pytest.raises(StoreError, match="None"):  # nobody knows by which process
        lock_folder(tmp_path / ".lock", tmp_path, str)
    lock_folder(tmp_path / ".lock", tmp_path, str).close()


def test_deletion_and_creation_that_were_killed_leave_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(path: Path, *_: Any, **__: Any) -> None:
        if path.exists():
            raise KeyboardInterrupt

    def names() -> list[str]:
        return sorted(path.name for path in (tmp_path / "store" / "collections").iterdir())

    store = filled_store(tmp_path / "store", 10)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            store.client.delete_collection("qwen3vl")
    with monkeypatch.context() as patch:
        patch.setattr(collection, "rename", kill)
        with pytest.raises(KeyboardInterrupt):
            store.client.create_collection("other", PLAIN)
    store.close()
    assert names() == [".deleted-qwen3vl", ".new-other"]
    filled_store(tmp_path / "store", 5, collection="third").close()
    assert names() == ["third"]


LEAVE_A_CHILD_WITH_THE_LOCK = """
import os, subprocess, sys
from qwen3vl_qdrant import edge_client

client = edge_client(sys.argv[1])
lock = client.backend.folder._lock_files()
subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=lock, stdout=subprocess.DEVNULL)
os._exit(0)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no locks that are inherited")
def test_lock_of_a_killed_process_that_was_building_an_index_is_explained(tmp_path: Path) -> None:
    filled_store(tmp_path / "store", 10).close()
    command = [sys.executable, "-c", LEAVE_A_CHILD_WITH_THE_LOCK, str(tmp_path / "store")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(60) == 0
        with pytest.raises(StoreError, match=rf"that opened it, {process.pid}, has ended.*builds its index still runs"):
            QdrantEdgeStore(tmp_path / "store")
