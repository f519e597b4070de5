"""How fast ingestion is apart from the model, beside the client's own bulk upload, and what memory it takes.

    uv run python -m benchmarks.ingest [--points 5000] [--dimensions 2048] [--stores qdrant-folder chroma-folder …]
    uv run python -m benchmarks.ingest --memory 100000 --dimensions 256 --stores chroma-server

Vectors are made beforehand.  Both ways write the same points, in turns, each into a new collection; the client's
way has the ids ready and looks nothing up.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import models
from qwen3vl_chroma import ChromaStore
from qwen3vl_qdrant import QdrantStore

from qwen3vl import Document, Point, Report, Store, ingest
from tests.support import store_backends as places
from tests.support.fake_embedder import recipe

STORES = ("qdrant-memory", "qdrant-folder", "chroma-memory", "chroma-folder", "chroma-server")


class Ready:
    """Hands out vectors that were made before."""

    def __init__(self, vectors: np.ndarray[Any, Any]) -> None:
        self.vectors = vectors
        self.recipe = recipe(dimensions=vectors.shape[1])

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
    made = (
        models.PointStruct(id=point.id, vector=point.vector.tolist(), payload=payload)
        for point, payload in zip(points, [store.payload(point) for point in points], strict=True)
    )
    store.client.upload_points(store.collection, made, wait=True)


def bulk_chroma(store: ChromaStore, points: list[Point]) -> None:
    """In requests of 500: the client's largest batch, 5,461, is more than its server takes at 2,048 values each."""
    collection = store.client.get_collection(store.collection)
    for start in range(0, len(points), 500):
        part = points[start : start + 500]
        collection.upsert(
            ids=[point.id for point in part],
            embeddings=[point.vector for point in part],
            metadatas=[store.metadata(point) for point in part],
            documents=[point.document.text for point in part],
            uris=[point.document.image for point in part],
        )


def once(open_one: Callable[..., Store], way: str, count: int, vectors: np.ndarray[Any, Any]) -> float:
    """Points a second of one way into a new collection."""
    store: Any = open_one(collection=f"bench-{time.monotonic_ns()}")
    embedder = Ready(vectors)
    stream = list(documents(count))
    if way == "ingest":
        began = time.perf_counter()
        ingest(stream, embedder, store)
    else:
        store.create(embedder.recipe)
        points = [
            Point(store.point_id(document, embedder.recipe), row, document)
            for document, row in zip(stream, vectors, strict=True)
        ]
        began = time.perf_counter()
        (bulk_chroma if isinstance(store, ChromaStore) else bulk_qdrant)(store, points)
    seconds = time.perf_counter() - began
    if store.count() != count:
        raise SystemExit(f"{way}: {store.count()} of {count} points arrived")
    store.client.delete_collection(store.collection)
    return count / seconds


def compare(name: str, count: int, dimensions: int, turns: int) -> None:
    drawn = np.random.default_rng(1).standard_normal((count, dimensions)).astype(np.float32)
    vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(places.chroma_server(folder)) if name == "chroma-server" else 0
        open_one = stack.enter_context(places.opened(name, folder, lambda: port))
        once(open_one, "ingest", min(count, 200), vectors)
        rates: dict[str, list[float]] = {"ingest": [], "client": []}
        for turn in range(turns):
            for way in ("ingest", "client") if turn % 2 else ("client", "ingest"):
                rates[way].append(once(open_one, way, count, vectors[:count]))
    ours, theirs = (statistics.median(rates[way]) for way in ("ingest", "client"))
    print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} |", flush=True)


def memory(name: str, count: int, dimensions: int) -> None:
    """Peak memory of this process at every tenth of a long ingestion."""
    vectors = np.random.default_rng(1).standard_normal((1000, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    print("| points | peak MiB of the ingesting process |")
    print("| ---: | ---: |")
    told = 0

    def progress(report: Report) -> None:
        nonlocal told
        if report.added >= told:
            told += count // 10
            print(
                f"| {report.added:,} | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} |", flush=True
            )

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(places.chroma_server(folder)) if name == "chroma-server" else 0
        store = stack.enter_context(places.opened(name, folder, lambda: port))()
        ingest(documents(count), Ready(vectors), store, progress=progress)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=5000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--stores", nargs="+", default=STORES, choices=places.NAMES)
    parser.add_argument("--memory", type=int, metavar="POINTS", help="tell the memory of one long ingestion instead")
    options = parser.parse_args()
    if options.memory:
        for name in options.stores:
            memory(name, options.memory, options.dimensions)
        return
    print("| store | ingest, points a second | client's bulk upload | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name in options.stores:
        compare(name, options.points, options.dimensions, options.turns)


if __name__ == "__main__":
    main()
