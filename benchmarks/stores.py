"""Stores in folders, side by side: writes, index, opening, searches, recall and memory.

    uv run python -m benchmarks.stores [--parts local chroma million graph] [--turns 3] [--points 2000]

Points lie around 1,000 centres, near 64 of all directions, and so do 200 queries, which are no points. They are written
as `ingest` writes them, 512 in a call. Each side writes in a process of its own and searches in another one, which
first opens the store and waits for one hit; the sides take turns. Recall is compared with all vectors in numpy. The
time of a search is that of 200 just after opening, when a folder is mostly on the disk (20 of them were searched once
before), and that of 200 others five seconds later.

| part | points | sides |
| --- | --- | --- |
| local | 20,000 of 2,048 values | Qdrant Edge, and qdrant-client's local mode |
| chroma | 100,000 of 2,048 values | Qdrant Edge without and with int8, and Chroma |
| million | 1,000,000 of 512 values | Qdrant Edge with int8; `--sides edge` without |
| graph | 100,000 of 2,048 values | Qdrant Edge with other `m`, `ef_construct` and `ef` of its index (HNSW) |

Memory is the peak of the process together with the one that builds the index: of all pages, and of those that belong to
no file (Linux). It is looked at four times a second, so that short peaks may be missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qwen3vl_qdrant import QdrantStore
from qwen3vl_qdrant.edge import configs
from qwen3vl_qdrant.edge.collection import EdgeCollection

from benchmarks.ingest import documents
from qwen3vl import Document, Point, Store, open_store
from tests.support.fake_embedder import fake_recipe

PARTS = {
    "local": (20_000, 2048, ["edge", "local"]),
    "chroma": (100_000, 2048, ["edge", "edge-int8", "chroma"]),
    "million": (1_000_000, 512, ["edge-int8"]),
    "graph": (100_000, 2048, ["edge"]),
}
SIDES = ("edge", "edge-int8", "local", "chroma")
GRAPHS = ((8, 100), (16, 50), (16, 100), (16, 200), (32, 100))
"""`m` and `ef_construct`: one of them differs from the default."""
SEARCH_EFS = (32, 64, 100, 200, 400)
NUM_QUERIES, NUM_HITS, NUM_WARM_UP = 200, 10, 20
PAUSE_S = 5.0
"""Before other queries are searched, when a folder's files have been read ahead."""
POLL_S = 0.25
"""Between looks at the memory of a process, each of which holds up its memory maps for milliseconds."""
NUM_CENTRES, NUM_DIRECTIONS = 1000, 64
BATCH = 512
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does with one store."""

    work: str
    side: str
    folder: str
    points: int
    dimensions: int
    m: int = configs.DEFAULT_HNSW.m
    ef_construct: int = configs.DEFAULT_HNSW.ef_construct
    efs: tuple[int, ...] = ()
    """Searches use each of these in turn, in place of the engine's own `ef`."""


def clustered(count: int, dimensions: int, seed: tuple[int, int]) -> Vectors:
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    centres = shared.standard_normal((NUM_CENTRES, NUM_DIRECTIONS), dtype=np.float32)
    directions = shared.standard_normal((NUM_DIRECTIONS, dimensions), dtype=np.float32)
    near = own.standard_normal((count, NUM_DIRECTIONS), dtype=np.float32)
    noise = own.standard_normal((count, dimensions), dtype=np.float32)
    vectors = (centres[own.integers(NUM_CENTRES, size=count)] + 0.6 * near) @ directions + noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # type: ignore[no-any-return]


def queries_of(job: Job) -> Vectors:
    return clustered(NUM_QUERIES, job.dimensions, (1, 0))


def batches(job: Job) -> Iterator[tuple[int, list[Document], Vectors]]:
    stream = documents(job.points)
    for start in range(0, job.points, BATCH):
        batch = list(islice(stream, BATCH))
        yield start, batch, clustered(len(batch), job.dimensions, (2, start))


class NearestPoints:
    """The numbers of the nearest points to each query, among all vectors that were added."""

    def __init__(self, queries: Vectors) -> None:
        self.queries = queries
        self.scores = np.full((len(queries), NUM_HITS), -np.inf, np.float32)
        self.numbers = np.zeros((len(queries), NUM_HITS), np.int64)

    def add(self, start: int, vectors: Vectors) -> None:
        numbers = np.broadcast_to(np.arange(start, start + len(vectors)), (len(self.queries), len(vectors)))
        scores = np.hstack([self.scores, self.queries @ vectors.T])
        best = np.argpartition(-scores, NUM_HITS - 1)[:, :NUM_HITS]
        self.scores = np.take_along_axis(scores, best, 1)
        self.numbers = np.take_along_axis(np.hstack([self.numbers, numbers]), best, 1)


def open_side(side: str, folder: Path) -> Store:
    if side == "local":
        return QdrantStore(QdrantClient(path=str(folder)))
    if side == "chroma":
        return open_store(f"chroma:{folder}")
    return open_store(str(folder), layout={"quantization": "scalar" if side == "edge-int8" else None})


def write(job: Job) -> dict[str, Any]:
    configs.DEFAULT_HNSW = configs.DEFAULT_HNSW.model_copy(update={"m": job.m, "ef_construct": job.ef_construct})
    indexing_s = 0.0
    build_index = EdgeCollection.build_index

    def timed(self: EdgeCollection, *args: Any, **options: Any) -> bool:
        nonlocal indexing_s
        start = time.perf_counter()
        try:
            return build_index(self, *args, **options)
        finally:
            indexing_s += time.perf_counter() - start

    EdgeCollection.build_index = timed  # type: ignore[method-assign]
    recipe = fake_recipe(dimensions=job.dimensions)
    store = open_side(job.side, Path(job.folder) / "store")
    store.create(recipe)
    nearest = NearestPoints(queries_of(job))
    seconds = 0.0
    for first, batch, vectors in batches(job):
        nearest.add(first, vectors)
        points = [
            Point(store.point_id(document, recipe), vector, document)
            for document, vector in zip(batch, vectors, strict=True)
        ]
        start = time.perf_counter()
        store.upsert(points)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    store.build_index()
    if store.count() != job.points:
        raise SystemExit(f"{job.side}: {store.count()} of {job.points} points arrived")
    store.close()
    seconds += time.perf_counter() - start
    np.save(Path(job.folder) / "nearest.npy", nearest.numbers)
    files = [file.stat() for file in (Path(job.folder) / "store").rglob("*") if file.is_file()]
    return {
        "written": job.points / (seconds - indexing_s),
        "indexing_s": indexing_s,
        "with_index": job.points / seconds,
        "disk_mib": sum(file.st_blocks * 512 for file in files) >> 20,
    }


def search(job: Job) -> dict[str, Any]:
    queries, nearest = queries_of(job), np.load(Path(job.folder) / "nearest.npy")
    with tempfile.TemporaryDirectory() as folder:  # a first store loads the libraries
        recipe = fake_recipe(dimensions=job.dimensions)
        document = next(documents(1))
        first = open_side(job.side, Path(folder))
        first.create(recipe)
        first.upsert([Point(first.point_id(document, recipe), queries[0], document)])
        first.search(queries[0], 1)
        first.close()
    start = time.perf_counter()
    store = open_side(job.side, Path(job.folder) / "store")
    store.search(queries[0], 1)
    results: dict[str, Any] = {"opening_s": time.perf_counter() - start}

    def find(query: Vectors) -> list[int]:
        return [hit.document.metadata["number"] for hit in store.search(query, NUM_HITS)]

    if not job.efs:
        results |= measure(find, queries, nearest)
        time.sleep(PAUSE_S)
        later = clustered(NUM_QUERIES, job.dimensions, (1, 1))
        results["later_p50_ms"] = measure(find, later, nearest)["p50_ms"]
    results["efs"] = [measure(searcher(store, ef), queries, nearest) for ef in job.efs]
    store.close()
    return results


def searcher(store: Any, ef: int) -> Callable[[Vectors], list[int]]:
    """Return a search by the index with another `ef`, which `Store.search` does not have."""

    def find(query: Vectors) -> list[int]:
        params = models.SearchParams(hnsw_ef=ef)
        found = store.client.query_points(store.collection, query, search_params=params, limit=NUM_HITS).points
        return [point.payload["metadata"]["number"] for point in found]

    return find


def measure(find: Callable[[Vectors], list[int]], queries: Vectors, nearest: NDArray[np.int64]) -> dict[str, float]:
    for query in queries[:NUM_WARM_UP]:
        find(query)
    seconds, num_found = [], 0
    for query, expected in zip(queries, nearest, strict=True):
        start = time.perf_counter()
        hits = find(query)
        seconds.append(time.perf_counter() - start)
        num_found += len({*hits} & {*expected.tolist()})
    return {"p50_ms": 1000 * statistics.median(seconds), "recall": num_found / nearest.size}


def tree_memory(pid: int) -> tuple[int, int]:
    """MiB of a process and its descendants: all pages in memory, and those that belong to no file."""
    total = anonymous = 0
    pending = [pid]
    while pending:
        process = Path(f"/proc/{pending.pop()}")
        try:
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            pending += [int(child) for file in process.glob("task/*/children") for child in file.read_text().split()]
        except OSError:  # it has ended
            continue
        total += int(status.get("VmRSS", "0 kB").split()[0])
        anonymous += int(status.get("RssAnon", "0 kB").split()[0])
    return total >> 10, anonymous >> 10


def run(job: Job) -> dict[str, Any]:
    """Do a job in a process of its own, and add its peak memory to what it returns."""
    command = [sys.executable, "-m", "benchmarks.stores", "--work", json.dumps(asdict(job))]
    peak, peak_anonymous = 0, 0
    # NumPy makes the vectors. Its threads would spin for a while after each batch, on a core that the kernel needs to
    # write to the disk.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if job.work == "write" else None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        while process.poll() is None:
            total, anonymous = tree_memory(process.pid)
            peak, peak_anonymous = max(peak, total), max(peak_anonymous, anonymous)
            time.sleep(POLL_S)
        assert process.stdout is not None  # noqa: S101
        output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{job.work} of {job.side} failed")
    memory = {f"{job.work}_mib": peak, f"{job.work}_anonymous_mib": peak_anonymous}
    return {**json.loads(output.splitlines()[-1]), **memory}


def compare(points: int, dimensions: int, sides: list[str], turns: int, scratch: Path | None) -> None:
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for turn in range(turns):
        for side in sides if turn % 2 == 0 else sides[::-1]:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                job = Job("write", side, folder, points, dimensions)
                figures = {**run(job), **run(replace(job, work="search"))}
            print(side, figures, file=sys.stderr)
            measured[side].append({name: value for name, value in figures.items() if name != "efs"})
    medians = {
        side: {name: statistics.median(figures[name] for figures in runs) for name in runs[0]}
        for side, runs in measured.items()
    }
    print(
        "| store | points a second | the index, s | points a second, with it | open and first hit, s | search p50, ms "
        "| later, ms | recall@10 | peak MiB while writing (of no file) | while searching | on disk, MiB |"
    )
    print(f"| --- |{' ---: |' * 10}")
    for side, row in medians.items():
        print(
            f"| {side} | {row['written']:,.0f} | {row['indexing_s']:.1f} | {row['with_index']:,.0f} "
            f"| {row['opening_s']:.2f} | {row['p50_ms']:.2f} | {row['later_p50_ms']:.2f} "
            f"| {row['recall']:.4f} "
            f"| {row['write_mib']:,.0f} ({row['write_anonymous_mib']:,.0f}) "
            f"| {row['search_mib']:,.0f} ({row['search_anonymous_mib']:,.0f}) | {row['disk_mib']:,.0f} |",
            flush=True,
        )
    for other in sides[1:] if sides[0] == "edge" else ():
        ours, theirs = medians["edge"], medians[other]
        print(
            f"\nedge / {other}: writes {ours['written'] / theirs['written']:.1f} "
            f"(with the index {ours['with_index'] / theirs['with_index']:.1f}), "
            f"searches {theirs['p50_ms'] / ours['p50_ms']:.1f}, opening {theirs['opening_s'] / ours['opening_s']:.1f}",
            flush=True,
        )


def compare_graphs(points: int, dimensions: int, scratch: Path | None) -> None:
    print("| m | ef_construct | the index, s | ef | recall@10 | search p50, ms |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for m, ef_construct in GRAPHS:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            job = Job("write", "edge", folder, points, dimensions, m, ef_construct)
            indexing_s = run(job)["indexing_s"]
            rows = run(replace(job, work="search", efs=SEARCH_EFS))["efs"]
        for ef, row in zip(SEARCH_EFS, rows, strict=True):
            figures = f"{ef} | {row['recall']:.4f} | {row['p50_ms']:.2f}"
            print(f"| {m} | {ef_construct} | {indexing_s:.1f} | {figures} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["local", "chroma", "million"])
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="other sides than the part's")
    parser.add_argument("--points", type=int, help="another number of points than the part's")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where stores are written and deleted again")
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        job = Job(**options.work)
        print(json.dumps({"write": write, "search": search}[job.work](job)))
        return
    for part in options.parts:
        points, dimensions, sides = PARTS[part]
        points = options.points or points
        print(f"\n## {part}: {points:,} points of {dimensions:,} values\n", flush=True)
        if part == "graph":
            compare_graphs(points, dimensions, options.folder)
        else:
            compare(points, dimensions, options.sides or sides, options.turns, options.folder)


if __name__ == "__main__":
    main()
