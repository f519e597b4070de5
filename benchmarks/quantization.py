"""Recall, memory and time of Qdrant's layouts with real vectors and a real index, as a table and a plot.

    uv run python -m benchmarks.quantization [--scenes 20000] [--plot docs/quantization.png]

20,000 drawn scenes and 500 captions of others, embedded by the tiny model (128 values), in Qdrant's own engine in
this process (HNSW and quantisation as on a server, without the network).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import matplotlib as mpl
import numpy as np
from qdrant_client import models
from qwen3vl_qdrant import Figure, Layout, QdrantEdgeStore, measure, table
from qwen3vl_qdrant.edge import configs

from qwen3vl import Document, Embedder, Point
from qwen3vl.demo.scenes import random_scene

QUERIES = 500
OVERSAMPLING = (1, 2, 4, 8, 16, 20, 32)
QUARTER = 32
MIN_SHOWN_MISSES = 1e-4
LAYOUTS = {
    "full": Layout(),
    "int8": Layout(quantization="scalar"),
    "turbo": Layout(quantization="turbo"),
    "binary": Layout(quantization="binary"),
    "quarter": Layout(short=QUARTER),
    "quarter, int8": Layout(short=QUARTER, quantization="scalar"),
}


def embed_scenes(count: int, cache: Path | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Vectors of scenes and of captions, read from the cache if there is one."""
    if cache is not None and cache.exists():
        stored = np.load(cache)
        return stored["scenes"], stored["captions"]
    random = Random(17)
    embedder = Embedder("tiny")
    scenes = embedder.embed((random_scene(random).draw(random) for _ in range(count)), progress=True)
    captions = embedder.embed([random_scene(random).caption(random.randrange(3)) for _ in range(QUERIES)])
    if cache is not None:
        np.savez(cache, scenes=scenes, captions=captions)
    return scenes, captions


def measure_layout(layout: Layout, scenes: np.ndarray[Any, Any], captions: np.ndarray[Any, Any]) -> list[Figure]:
    recipe = Embedder("tiny").recipe
    with tempfile.TemporaryDirectory() as folder:
        store = QdrantEdgeStore(folder, layout=layout)
        store.create(recipe)
        for start in range(0, len(scenes), 1000):
            documents = [Document(str(number), "picture", image=str(number)) for number in range(start, start + 1000)]
            vectors = scenes[start : start + 1000]
            store.upsert(
                [
                    Point(store.point_id(document, recipe), vector, document)
                    for document, vector in zip(documents, vectors, strict=False)
                ]
            )
        store.build_index()
        if (store.client.get_collection(store.collection).indexed_vectors_count or 0) < len(scenes):
            raise SystemExit("the engine built no index")
        try:
            return measure(store, captions, oversampling=OVERSAMPLING)
        finally:
            store.close()


def plot(measured: dict[str, list[Figure]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plot_figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, figures in measured.items():
        rescored = [figure for figure in figures if "rescored" in figure.search and "not" not in figure.search]
        factors = [float(figure.search.split(" x")[1].split(" ")[0]) for figure in rescored]
        if rescored:
            missed = [100 * max(MIN_SHOWN_MISSES, 1 - figure.recall) for figure in rescored]
            (line,) = axes.plot(factors, missed, marker="o", label=f"{name}: {rescored[0].bytes} bytes a point")
            default = next(number for number, figure in enumerate(rescored) if "default" in figure.search)
            axes.plot(factors[default], missed[default], "o", color=line.get_color(), markersize=12, alpha=0.4)
    axes.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xscale="log",
        xlabel="candidates rescored with full vectors per hit (large mark: the default)",
        yscale="log",
        ylabel="missed of the ten nearest, percent",
    )
    axes.set_xticks(OVERSAMPLING, [str(factor) for factor in OVERSAMPLING])
    axes.set_yticks([0.01, 0.1, 1, 10, 50], ["none", "0.1", "1", "10", "50"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    plot_figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--cache", type=Path, help="an .npz file for the vectors")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    # Kilobytes of vectors: an index of all of them, and used where a scan of so few would be faster.
    configs.INDEXING_THRESHOLD_KB = 100
    configs.DEFAULT_HNSW = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=1)
    scenes, captions = embed_scenes(options.scenes, options.cache)
    measured = {name: measure_layout(layout, scenes, captions) for name, layout in LAYOUTS.items()}
    for name, figures in measured.items():
        print(f"\n{name}\n\n{table(figures)}", flush=True)
    if options.plot:
        plot(measured, options.plot)


if __name__ == "__main__":
    main()
