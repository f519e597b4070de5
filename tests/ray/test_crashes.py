"""Workers that are killed, stores that go away: the run is complete at the end, and nothing is stored twice."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_ray import ingest, read
from qwen3vl_ray.pools import MAX_CALLS, map_on_models

from qwen3vl import open_store
from tests.ray.killers import KillingLoader, KillingOperator
from tests.ray.workers import model_workers, wait_for
from tests.support import qdrant_rest, store_backends

pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes to kill in /proc"),
]
NUM_TEXTS = 240
CPU: dict[str, Any] = {"model": "tiny", "num_gpus": 0, "max_workers": 1, "device": "cpu", "batch_size": 8}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A manifest of texts."""
    manifest = tmp_path / "texts.jsonl"
    lines = (f'{{"source": "{number}", "text": "a red star and {number} rings"}}\n' for number in range(NUM_TEXTS))
    manifest.write_text("".join(lines))
    return manifest


@pytest.fixture
def location() -> Iterator[str]:
    with qdrant_rest.serve() as port:
        yield f"http://127.0.0.1:{port}"


def test_a_killed_worker_is_replaced_and_nothing_is_stored_twice(location: str, texts: Path) -> None:
    store = open_store(location)
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: store.count() > 0)
        killed.append(store.count())
        for pid in model_workers():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill)
        report = ingest(texts, location, **CPU)
        killing.result()
    assert len(killed) > 1, "no worker was found"
    assert killed[0] < NUM_TEXTS, "the run was over before a worker was killed"
    # What the killed worker had written, and could not report any more, is there already for the next one.
    assert report.unchanged <= MAX_CALLS * CPU["batch_size"]
    assert (report.added + report.unchanged, report.failed) == (NUM_TEXTS, [])
    assert store.count() == NUM_TEXTS


def test_a_store_that_restarts_does_not_end_the_run(texts: Path, tmp_path: Path) -> None:
    port = store_backends.free_port()
    location = f"chroma:http://127.0.0.1:{port}"
    folder = tmp_path / "chroma"
    stopped: list[int] = []
    restart = threading.Event()
    over = threading.Event()

    def serve_again() -> None:
        restart.wait()
        with store_backends.chroma_server(folder, port):
            over.wait()

    def stop_in_the_middle() -> None:
        with store_backends.chroma_server(folder, port):
            started.set()
            store = open_store(location)
            wait_for(lambda: store.count() > 0)
            stopped.append(store.count())
        restart.set()

    started = threading.Event()
    with ThreadPoolExecutor() as pool:
        servers = [pool.submit(stop_in_the_middle), pool.submit(serve_again)]
        started.wait()
        try:
            report = ingest(texts, location, **CPU)
            count = open_store(location).count()
        finally:
            restart.set()
            over.set()
        for server in servers:
            server.result()
    assert stopped[0] < NUM_TEXTS, "the run was over before the server was stopped"
    assert (report.added, report.unchanged, report.failed) == (NUM_TEXTS, 0, [])
    assert count == NUM_TEXTS


def test_rows_that_kill_their_workers_are_errors_and_the_others_are_done(local_ray: Any) -> None:
    """Two of them are in one batch; the other batch is in the same process when they kill it."""
    rows = [{"number": number, "text": "die" if number in (2, 3) else "a text"} for number in range(8)]
    done = map_on_models(
        local_ray.data.from_items(rows),
        KillingOperator,
        {},
        num_gpus=0,
        min_workers=1,
        max_workers=1,
        batch_size=4,
    ).take_all()
    assert sorted(row["number"] for row in done) == list(range(8))
    assert sorted(row["number"] for row in done if row["error"] is None) == [0, 1, 4, 5, 6, 7]
    assert all("ended the process of its worker 3 times" in row["error"] for row in done if row["text"] == "die")


def test_files_that_kill_their_loaders_are_errors_and_the_others_are_loaded(tmp_path: Path) -> None:
    for name in ("a", "die", "z"):
        (tmp_path / f"{name}.txt").write_text("a text")
    rows = {Path(row["source"]).stem: row for row in read(tmp_path, loader=KillingLoader()).take_all()}
    assert {name: row["error"] is None for name, row in rows.items()} == {"a": True, "die": False, "z": True}
    assert "ended the process of its worker 3 times" in rows["die"]["error"]
