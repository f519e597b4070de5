"""Kills ingestions with SIGKILL at random moments, runs them again, and looks at what is stored.

    uv run python -m benchmarks.kill [--kills 20] [--documents 2000] [--stores qdrant-folder …]

Each ingestion runs in a process of its own, over vectors that take a millisecond each instead of a model, and
notes what it embeds.  After the second run the ids must be those of an undisturbed one.
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

from qwen3vl import Document, Store, ingest
from qwen3vl.ingestion import BATCH
from tests.support import store_backends as places
from tests.support.fake_embedder import Precomputed, passages, recipe

STORES = ("qdrant-folder", "chroma-folder", "chroma-server")
SECONDS_EACH = 0.001
COLLECTION = "killed"


class Noting(Precomputed):
    """Writes down what it embeds, a line each, as soon as it is handed on."""

    def __init__(self, notes: TextIO) -> None:
        super().__init__()
        self.notes = notes

    def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for index, made in super().stream(inputs):
            time.sleep(SECONDS_EACH)
            self.notes.write(json.dumps(self.embedded[-1]) + "\n")
            self.notes.flush()
            yield index, made


def open_store(name: str, folder: Path, port: int, stack: ExitStack) -> Store:
    return stack.enter_context(places.opened(name, folder, lambda: port))(collection=COLLECTION)


def work(name: str, folder: Path, port: int, count: int) -> None:
    """The process that is killed."""
    with ExitStack() as stack, (folder / "notes").open("a") as notes:
        ingest(passages(count), Noting(notes), open_store(name, folder, port, stack))


def start(name: str, folder: Path, port: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.kill", "--work", name, str(folder), str(port), str(count)]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent)


def one(name: str, folder: Path, port: int, documents: list[Document], random: Random) -> dict[str, Any]:
    """One ingestion that is killed, and the run after it."""
    process = start(name, folder, port, len(documents))
    notes = folder / "notes"
    wanted = random.randrange(len(documents))
    while process.poll() is None and (not notes.exists() or len(notes.read_bytes().splitlines()) < wanted):
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    embedded = notes.read_text().splitlines()
    if start(name, folder, port, len(documents)).wait() != 0:
        raise SystemExit(f"{name}: the run after the kill failed")
    after = notes.read_text().splitlines()
    with ExitStack() as stack:
        store = open_store(name, folder, port, stack)
        ids = [stored.id for stored in store.scan()]
        right = {store.point_id(document, recipe()) for document in documents}
        same = set(ids) == right and len(ids) == len(right) == store.count()
    return {"at": len(embedded), "same": same, "twice": len(after) - len(set(after))}


def table(name: str, runs: list[dict[str, Any]]) -> str:
    moments = sorted(run["at"] for run in runs)
    return (
        f"| {name} | {len(runs)} | {moments[0]} to {moments[-1]} | {sum(run['same'] for run in runs)} | "
        f"{max(run['twice'] for run in runs)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--stores", nargs="+", default=STORES, choices=places.NAMES)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        name, folder, port, count = options.work
        work(name, Path(folder), int(port), int(count))
        return
    random = Random(options.seed)
    documents = passages(options.documents)
    print("| store | kills | after so many were embedded | ids as undisturbed | embedded twice, at most |")
    print("| --- | --- | --- | --- | --- |")
    failed = False
    for name in options.stores:
        runs = []
        for _ in range(options.kills):
            with ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                port = stack.enter_context(places.chroma_server(folder)) if name == "chroma-server" else 0
                runs.append(one(name, folder, port, documents, random))
        print(table(name, runs), flush=True)
        failed = failed or not all(run["same"] and run["twice"] <= BATCH for run in runs)
    if failed:
        raise SystemExit("an ingestion lost or doubled something, or embedded more than a batch twice")


if __name__ == "__main__":
    main()
