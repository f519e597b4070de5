"""Recall, bytes and time of Qdrant's layouts on real vectors and a real index, as a table and a plot.

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
from qwen3vl_qdrant import Figure, Layout, QdrantStore, measure, table

from qwen3vl import Document, Embedder, Point
from qwen3vl.demo.scenes import random_scene
from tests.support.qdrant_edge_client import EdgeClient

QUERIES = 500
OVERSAMPLING = (1, 2, 4, 8, 16, 20, 32)
QUARTER = 32
LEAST_SHOWN = 1e-4
LAYOUTS = {
    "full": Layout(),
    "int8": Layout(quantization="scalar"),
    "turbo": Layout(quantization="turbo"),
    "binary": Layout(quantization="binary"),
    "quarter": Layout(short=QUARTER),
    "quarter, int8": Layout(short=QUARTER, quantization="scalar"),
}


def embedded(count: int, kept: Path | None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Vectors of scenes and of captions, made once where a file to keep them is given."""
    if kept is not None and kept.exists():
        stored = np.load(kept)
        return stored["scenes"], stored["captions"]
    random = Random(17)
    embedder = Embedder("tiny")
    scenes = embedder.embed((random_scene(random).draw(random) for _ in range(count)), progress=True)
    captions = embedder.embed([random_scene(random).caption(random.randrange(3)) for _ in range(QUERIES)])
    if kept is not None:
        np.savez(kept, scenes=scenes, captions=captions)
    return scenes, captions


def figures(layout: Layout, scenes: np.ndarray[Any, Any], captions: np.ndarray[Any, Any]) -> list[Figure]:
    recipe = Embedder("tiny").recipe
    with tempfile.TemporaryDirectory() as folder:
        client: Any = EdgeClient(Path(folder) / "shard")
        store = QdrantStore(client, layout=layout)
        store.create(recipe)
        for start in range(0, len(scenes), 1000):
            documents = [Document(str(number), "picture", image=str(number)) for number in range(start, start + 1000)]
            rows = scenes[start : start + 1000]
            store.upsert(
                [
                    Point(store.point_id(document, recipe), row, document)
                    for document, row in zip(documents, rows, strict=False)
                ]
            )
        if client.index() < len(scenes):
            raise SystemExit("the engine built no index")
        return measure(store, captions, oversampling=OVERSAMPLING)


def plot(measured: dict[str, list[Figure]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, found in measured.items():
        rescored = [each for each in found if "rescored" in each.way and "not" not in each.way]
        factors = [float(each.way.split(" x")[1].split(" ")[0]) for each in rescored]
        if rescored:
            missed = [100 * max(LEAST_SHOWN, 1 - each.recall) for each in rescored]
            (line,) = axes.plot(factors, missed, marker="o", label=f"{name}: {rescored[0].bytes} bytes a point")
            default = next(number for number, each in enumerate(rescored) if "default" in each.way)
            axes.plot(factors[default], missed[default], "o", color=line.get_color(), markersize=12, alpha=0.4)
    axes.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xscale="log",
        xlabel="candidates read in full for each wanted hit (large mark: the default)",
        yscale="log",
        ylabel="missed of the ten nearest, per cent",
    )
    axes.set_xticks(OVERSAMPLING, [str(each) for each in OVERSAMPLING])
    axes.set_yticks([0.01, 0.1, 1, 10, 50], ["none", "0.1", "1", "10", "50"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="an .npz file to keep the vectors in")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    scenes, captions = embedded(options.scenes, options.keep)
    measured = {name: figures(layout, scenes, captions) for name, layout in LAYOUTS.items()}
    for name, found in measured.items():
        print(f"\n{name}\n\n{table(found)}", flush=True)
    if options.plot:
        plot(measured, options.plot)


if __name__ == "__main__":
    main()
