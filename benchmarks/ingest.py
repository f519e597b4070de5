"""Speed of ingestion without the model, compared with the client's own bulk upload, and its memory.

    uv run python -m benchmarks.ingest [--points 5000] [--dimensions 2048] [--stores qdrant-folder chroma-folder …]
    uv run python -m benchmarks.ingest --memory 100000 --dimensions 256 --stores chroma-server

The vectors are computed before. Both methods write the same points, alternately, each into a new collection; the
client's bulk upload has the ids ready and looks nothing up.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import models
from qwen3vl_chroma import ChromaStore
from qwen3vl_qdrant import QdrantStore

from qwen3vl import Document, Point, Report, ingest
from tests.support import store_backends
from tests.support.fake_embedder import fake_recipe
from tests.support.store_backends import OpenStore
from tests.support.store_fixtures import BACKENDS

STORES = ("qdrant-memory", "qdrant-folder", "chroma-memory", "chroma-folder", "chroma-server")


class PrecomputedEmbedder:
    """Returns vectors that were computed before."""

    def __init__(self, vectors: np.ndarray[Any, Any]) -> None:
        self.vectors = vectors
        self.recipe = fake_recipe(dimensions=vectors.shape[1])

    def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for index, _ in enumerate(inputs):
            yield index, self.vectors[index % len(self.vectors)]


def documents(count: int) -> Iterator[Document]:
    for number in range(count):
        name = f"/library/{number // 100:04d}/{number:07d}.png"
        yield Document(
            name, "picture", f"{number:032x}", image=name, metadata={"number": number, "album": number // 100}
        )


def bulk_qdrant(store: QdrantStore, points: list[Point]) -> None:
    structs = (
        models.PointStruct(id=point.id, vector=point.vector.tolist(), payload=store.core.payload(point))
        for point in points
    )
    store.client.upload_points(store.collection, structs, wait=True)


def bulk_chroma(store: ChromaStore, points: list[Point]) -> None:
    """In requests of 500: the client's largest batch, 5,461 points of 2,048 values, is too large for the server."""
    client: Any = store.client
    collection = client.get_collection(store.collection)
    for start in range(0, len(points), 500):
        batch = points[start : start + 500]
        collection.upsert(
            ids=[point.id for point in batch],
            embeddings=[point.vector for point in batch],
            metadatas=[store.core.payload(point) for point in batch],
            documents=[point.document.text for point in batch],
            uris=[point.document.image for point in batch],
        )


def points_per_second(open_store: OpenStore, method: str, count: int, vectors: np.ndarray[Any, Any]) -> float:
    """Write into a new collection by `ingest` or by the client's bulk upload."""
    store: Any = open_store(collection=f"bench-{time.monotonic_ns()}")
    embedder = PrecomputedEmbedder(vectors)
    stream = list(documents(count))
    if method == "ingest":
        start = time.perf_counter()
        ingest(stream, embedder, store)
    else:
        store.create(embedder.recipe)
        points = [
            Point(store.point_id(document, embedder.recipe), vector, document)
            for document, vector in zip(stream, vectors, strict=True)
        ]
        start = time.perf_counter()
        (bulk_chroma if isinstance(store, ChromaStore) else bulk_qdrant)(store, points)
    seconds = time.perf_counter() - start
    if store.count() != count:
        raise SystemExit(f"{method}: {store.count()} of {count} points arrived")
    store.client.delete_collection(store.collection)
    return count / seconds


def compare(name: str, count: int, dimensions: int, rounds: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((count, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(store_backends.chroma_server(folder)) if name == "chroma-server" else 0
        open_store = stack.enter_context(store_backends.open_backend(name, folder, lambda: port))
        points_per_second(open_store, "ingest", min(count, 200), vectors)
        rates: dict[str, list[float]] = {"ingest": [], "client": []}
        for number in range(rounds):
            for method in ("ingest", "client") if number % 2 else ("client", "ingest"):
                rates[method].append(points_per_second(open_store, method, count, vectors))
    ingest_rate, client_rate = (statistics.median(rates[method]) for method in ("ingest", "client"))
    print(f"| {name} | {ingest_rate:,.0f} | {client_rate:,.0f} | {ingest_rate / client_rate:.2f} |", flush=True)


def memory(name: str, count: int, dimensions: int) -> None:
    """Print the peak memory of this process at every tenth of a long ingestion."""
    vectors = np.random.default_rng(1).standard_normal((1000, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    print("| points | peak MiB of the ingesting process |")
    print("| ---: | ---: |")
    next_line = 0

    def progress(report: Report) -> None:
        nonlocal next_line
        if report.added >= next_line:
            next_line += count // 10
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"| {report.added:,} | {peak_mib:,.0f} |", flush=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(store_backends.chroma_server(folder)) if name == "chroma-server" else 0
        store = stack.enter_context(store_backends.open_backend(name, folder, lambda: port))()
        ingest(documents(count), PrecomputedEmbedder(vectors), store, progress=progress)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=5000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", nargs="+", default=STORES, choices=BACKENDS)
    parser.add_argument("--memory", type=int, metavar="POINTS", help="measure the memory of one long ingestion instead")
    options = parser.parse_args()
    if options.memory:
        for name in options.stores:
            memory(name, options.memory, options.dimensions)
        return
    print("| store | ingest, points a second | client's bulk upload | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name in options.stores:
        compare(name, options.points, options.dimensions, options.rounds)


if __name__ == "__main__":
    main()
