"""Kill ingestions with SIGKILL at random moments, run them again, and check what is stored.

    uv run python -m benchmarks.kill [--kills 30] [--documents 2000] [--stores qdrant-edge …]

Each ingestion runs in a process of its own, with vectors that take a millisecond each instead of a model, and logs
what it embeds and how many points it counts as added. Of the kills of Qdrant Edge, every second one comes while the
index is built at the end, and kills the process that builds it too; small indexes are also built during the writes.
After a kill, the store must open as it is and have what was counted as added. After the second run the ids must be
those of an ingestion that was not killed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, TextIO

from qwen3vl_qdrant.edge import configs, points_backend

from qwen3vl import Document, Report, Store, StoreError, ingest
from qwen3vl.ingestion import MAX_UNWRITTEN_POINTS
from tests.support import store_backends
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, passages
from tests.support.store_fixtures import BACKENDS

STORES = ("qdrant-edge", "qdrant-folder", "chroma-folder", "chroma-server")
SECONDS_PER_VECTOR = 0.001
DIMENSIONS = 256
SECONDS_OF_INDEXING = 0.5
"""A kill while the index is built comes within so many seconds."""
COLLECTION = "killed"


class LoggingEmbedder(FakeEmbedder):
    """Writes each input to a log, as a line of JSON, before it returns the vector."""

    def __init__(self, log: TextIO) -> None:
        super().__init__(dimensions=DIMENSIONS)
        self.log = log

    def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for index, vector in super().stream(inputs):
            time.sleep(SECONDS_PER_VECTOR)
            self.log.write(json.dumps(self.embedded[-1]) + "\n")
            self.log.flush()
            yield index, vector


def open_store(name: str, folder: Path, port: int, stack: ExitStack) -> Store:
    return stack.enter_context(store_backends.open_backend(name, folder, lambda: port))(collection=COLLECTION)


def open_when_free(name: str, folder: Path, port: int, stack: ExitStack) -> Store:
    """Open the store as soon as the killed processes have ended, which takes the system a moment."""
    for _ in range(100):
        try:
            return open_store(name, folder, port, stack)
        except StoreError as error:
            if "open in another process" not in str(error):
                raise
            time.sleep(0.1)
    return open_store(name, folder, port, stack)


def work(name: str, folder: Path, port: int, count: int) -> None:
    """The process that is killed."""
    configs.INDEXING_THRESHOLD_KB = 300
    points_backend.MIN_INDEXED_POINTS = 500

    def progress(report: Report) -> None:
        (folder / "added.new").write_text(str(report.added))
        (folder / "added.new").replace(folder / "added")
        if report.indexing_s:
            (folder / "indexing").touch()

    with ExitStack() as stack, (folder / "log").open("a") as log:
        ingest(passages(count), LoggingEmbedder(log), open_store(name, folder, port, stack), progress=progress)


def start(name: str, folder: Path, port: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.kill", "--work", name, str(folder), str(port), str(count)]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent, start_new_session=True)


def num_embedded(folder: Path) -> int:
    log = folder / "log"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def kill_and_resume(
    name: str, folder: Path, port: int, documents: list[Document], random: Random, *, indexing: bool
) -> dict[str, Any]:
    """Kill an ingestion after a random number of inputs or during indexing, run it again, and compare the ids."""
    process = start(name, folder, port, len(documents))
    kill_after = random.randrange(len(documents))
    while process.poll() is None and not (
        (folder / "indexing").exists() if indexing else num_embedded(folder) >= kill_after
    ):
        time.sleep(0.002)
    time.sleep(random.uniform(0, SECONDS_OF_INDEXING if indexing else 0.1))
    was_running = process.poll() is None
    if was_running:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    embedded = num_embedded(folder)
    added = int((folder / "added").read_text()) if (folder / "added").exists() else 0
    with ExitStack() as stack:
        lost = max(0, added - open_when_free(name, folder, port, stack).count())
    if start(name, folder, port, len(documents)).wait() != 0:
        raise SystemExit(f"{name}: the run after the kill failed")
    embedded_in_both = (folder / "log").read_text().splitlines()
    with ExitStack() as stack:
        store = open_store(name, folder, port, stack)
        ids = [point.id for point in store.scan()]
        expected = {store.point_id(document, fake_recipe(dimensions=DIMENSIONS)) for document in documents}
        same = set(ids) == expected and len(ids) == len(expected) == store.count()
    return {
        "was_killed": was_running,
        "killed_after": embedded,
        "while_indexing": indexing,
        "lost": lost,
        "same": same,
        "embedded_twice": len(embedded_in_both) - len(set(embedded_in_both)),
    }


def table(name: str, runs: list[dict[str, Any]]) -> str:
    killed_after = sorted(run["killed_after"] for run in runs)
    return (
        f"| {name} | {len(runs)} | {sum(run['while_indexing'] for run in runs)} | {killed_after[0]} to "
        f"{killed_after[-1]} | {sum(run['lost'] for run in runs)} | {sum(run['same'] for run in runs)} | "
        f"{max(run['embedded_twice'] for run in runs)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--stores", nargs="+", default=STORES, choices=BACKENDS)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, folder, port, count = options.work
        work(name, Path(folder), int(port), int(count))
        return
    random = Random(options.seed)
    documents = passages(options.documents)
    print(
        "| store | kills | while indexing | embedded before | added points lost | all ids | embedded twice, at most |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    failed = False
    for name in options.stores:
        runs: list[dict[str, Any]] = []
        while len(runs) < options.kills:
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                port = stack.enter_context(store_backends.chroma_server(folder)) if name == "chroma-server" else 0
                indexing = name == "qdrant-edge" and len(runs) % 2 == 1
                run = kill_and_resume(name, folder, port, documents, random, indexing=indexing)
                print(name, run, file=sys.stderr)
                if run["was_killed"]:  # it had not ended just before
                    runs.append(run)
        print(table(name, runs), flush=True)
        failed = failed or not all(
            run["same"] and not run["lost"] and run["embedded_twice"] <= MAX_UNWRITTEN_POINTS for run in runs
        )
    if failed:
        raise SystemExit("an ingestion lost or repeated points, or embedded more than MAX_UNWRITTEN_POINTS twice")


if __name__ == "__main__":
    main()
