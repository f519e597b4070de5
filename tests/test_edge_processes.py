"""Folders in Qdrant's engine and several processes: killed, forked, refused, and taking turns."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from qwen3vl_qdrant import QdrantEdgeStore, QdrantStore

from qwen3vl import StoreError, open_store
from tests.support.fake_embedder import fake_vector
from tests.test_edge_stores import DIMENSIONS, filled_store
from tests.test_embedded_stores import make_store

WRITE = """
import sys
from qwen3vl_qdrant.edge import configs
configs.INDEXING_THRESHOLD_KB = 100
from tests.test_edge_stores import *

store = QdrantEdgeStore(sys.argv[1])
store.create(fake_recipe(dimensions=DIMENSIONS))
print("ready", flush=True)
for seed in range(int(sys.argv[2]), 10**6):
    points = random_points(store, 200, seed)
    store.upsert(points)
    print(*(point.id for point in points), flush=True)
    store.delete([points[0].id])
    print("-" + points[0].id, flush=True)
    store.build_index()
"""


@pytest.mark.slow
def test_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    generator = random.Random(7)
    written: set[str] = set()
    for attempt in range(3):  # in one folder: the next process opens what was left by the one that was killed
        command = [sys.executable, "-c", WRITE, str(tmp_path / "store"), str(attempt * 1000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(generator.uniform(0.2, 2.5))
            process.kill()
            lines = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        for line in lines:
            if line.startswith("-"):
                written.discard(line[1:].strip())
            else:
                written |= set(line.split())
        _wait_until_free(tmp_path / "store")
        store = QdrantEdgeStore(tmp_path / "store")
        stored = {point.id for point in store.scan()}
        assert len(written - stored) <= 1  # the first of the last points, whose deletion was not acknowledged
        written &= stored
        assert store.count() == len(stored)
        assert len(store.search(fake_vector("q", DIMENSIONS), len(stored) + 10)) == len(stored)
        store.close()
    assert written


def _wait_until_free(folder: Path) -> None:
    """Wait for the process that builds the index for one that was killed."""
    for _ in range(100):
        try:
            return QdrantEdgeStore(folder).close()
        except StoreError:
            time.sleep(0.1)
    raise AssertionError("the folder stays locked")


@pytest.mark.slow
def test_second_process_is_told_which_one_has_the_folder_open(tmp_path: Path) -> None:
    store = filled_store(tmp_path / "store", 10)
    code = (
        "import sys\nfrom qwen3vl import StoreError, open_store\n"
        "try: open_store(sys.argv[1])\n"
        "except StoreError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    message = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (
        f"is open in another process (its id is {os.getpid()}): close that one first, or use a Qdrant server" in message
    )
    assert store.count() == 10
    store.close()
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


FORK = """
import os, sys, time
from tests.test_edge_stores import *

store = filled_store(Path(sys.argv[1]), 500)
child = os.fork()
if child == 0:
    for use in (store.count, lambda: QdrantEdgeStore(sys.argv[1])):
        try:
            use()
        except StoreError as error:
            print(error, flush=True)
    store.close()
    time.sleep(1.5)  # meanwhile the parent closes the shard and opens it again
    sys.exit(0)
time.sleep(0.5)
store.upsert(random_points(store, 500, 1))
store.build_index()
print(store.count(), num_indexed(store), flush=True)
assert os.waitpid(child, 0)[1] == 0
store.close()
print(QdrantEdgeStore(sys.argv[1]).count())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_forked_process_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    code = WRITE.partition("store =")[0].replace("import sys", "import sys", 1) + FORK
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert output.returncode == 0, output.stderr
    lines = output.stdout.splitlines()
    assert "from which this one was forked" in lines[0]
    assert "is open in another process" in lines[1]
    assert lines[2:] == ["1000 1000", "1000"]


CREATE_COLLECTIONS = """
import sys
import time
from qwen3vl import StoreError, open_store
from tests.support.fake_embedder import fake_recipe

for number in range(12):
    while True:
        try:
            store = open_store(sys.argv[1], f"{sys.argv[2]}-{number}")
            break
        except StoreError as error:
            assert "open in another process" in str(error), error
            time.sleep(0.001)  # leaves the processor to the one that has it open
    store.create(fake_recipe())
    store.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("database", ["qdrant", "local"])
def test_processes_that_take_turns_in_a_qdrant_folder_lose_no_collection(database: str, tmp_path: Path) -> None:
    folder = str(make_store(database, tmp_path / "store"))
    processes = [subprocess.Popen([sys.executable, "-c", CREATE_COLLECTIONS, folder, name]) for name in "abc"]
    try:
        assert [process.wait(300) for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.kill()
    store = open_store(folder)
    assert isinstance(store, QdrantStore)
    names = {collection.name for collection in store.client.get_collections().collections}
    assert names == {f"{process}-{number}" for process in "abc" for number in range(12)} | {"qwen3vl"}
