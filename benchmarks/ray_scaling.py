"""Throughput of `qwen3vl_ray` against the number of workers, on a simulated cluster of Ray.

    python -m benchmarks.ray_scaling --workers 1 2 4 8 16 32 --rate 40

Nodes are processes on this machine (`ray.cluster_utils.Cluster`) with eight logical GPUs each. A worker runs `Embed` as
it is, with an embedder that sleeps as long as a GPU would take: what is measured beside the sleep is what Ray and this
package do for each batch, on the cores of this machine. A worker needs 250 MiB.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from qwen3vl.media.policy import DEFAULT_POLICY
from qwen3vl.recipe import Recipe
from qwen3vl.results import Batch

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
DIMENSION = 2048
GPUS_PER_NODE = 8
STORE_BYTES = 96 * 2**20
_RECIPE = Recipe(
    model="simulated",
    revision="",
    weights="0",
    prompt_version="1",
    instruction="None.",
    max_length=8192,
    min_pixels=1,
    max_pixels=1,
    total_pixels=1,
    fps=1.0,
    max_frames=1,
    exif=False,
    dimensions=DIMENSION,
    normalised=True,
)


class SleepingEmbedder:
    """Takes as long for each batch as a GPU that embeds so many inputs a second."""

    recipe = _RECIPE
    policy = DEFAULT_POLICY
    dimension = DIMENSION

    def __init__(self, rate: float) -> None:
        self._rate = rate

    def embed(self, inputs: list[Any], *, on_error: str) -> Batch:  # noqa: ARG002
        time.sleep(len(inputs) / self._rate)
        return Batch(np.full((len(inputs), DIMENSION), DIMENSION**-0.5, np.float32))


def operator() -> type:
    """Return `Embed` with a simulated model; Ray is imported here, after its settings are made."""
    from qwen3vl_ray.embedding import Embed

    class SimulatedEmbed(Embed):
        def __init__(self, rate: float) -> None:
            import json
            import threading

            self.embedder = SleepingEmbedder(rate)  # type: ignore[assignment]
            self.recipe_json = json.dumps(_RECIPE.to_dict())
            self._gpu = threading.Lock()  # both batches of a worker share its GPU

        def __call__(self, batch: Any) -> Any:
            with self._gpu:
                return super().__call__(batch)

    return SimulatedEmbed


@contextmanager
def cluster(num_workers: int) -> Iterator[None]:
    """Start nodes for so many workers, and stop them."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": STORE_BYTES})
    try:
        for first in range(0, num_workers, GPUS_PER_NODE):
            gpus = min(GPUS_PER_NODE, num_workers - first)
            nodes.add_node(num_cpus=2 * gpus, num_gpus=gpus, object_store_memory=STORE_BYTES)
        ray.init(nodes.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


def measure(num_workers: int, rate: float, seconds: float, batch_size: int) -> float:
    """Return the rows a second of so many workers in the middle half of a run, when all of them work."""
    import ray
    from qwen3vl_ray.pools import map_on_models

    ray.data.DataContext.get_current().enable_progress_bars = False
    num_rows = int(num_workers * rate * seconds) // batch_size * batch_size
    rows = ray.data.range(num_rows, override_num_blocks=max(num_rows // 4096, num_workers))
    vectors = map_on_models(
        rows.map_batches(add_texts, batch_format="pyarrow"),
        operator(),
        {"rate": rate},
        num_gpus=1,
        min_workers=num_workers,
        max_workers=num_workers,
        batch_size=batch_size,
    )
    seen, progress = 0, []
    for batch in vectors.select_columns(["id"]).iter_batches(batch_size=None):
        seen += len(batch["id"])
        progress.append((seen, time.perf_counter()))
    if seen != num_rows:
        raise RuntimeError(f"{seen} rows arrived of {num_rows}")
    middle = [(count, at_s) for count, at_s in progress if num_rows / 4 <= count <= num_rows * 3 / 4]
    (first, started_s), (last, ended_s) = middle[0], middle[-1]
    return (last - first) / (ended_s - started_s)


def add_texts(table: Any) -> Any:
    """Return documents for a range of ids."""
    import pyarrow as pa

    ids = table.column("id").to_pylist()
    return pa.table({"id": ids, "text": [f"page {number}" for number in ids]})


def main(arguments: Iterable[str] | None = None) -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--rate", type=float, default=40.0, help="inputs a second of a simulated GPU")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a measurement is to take")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args(None if arguments is None else list(arguments))
    print("| workers | rows a second | of linear |\n| ---: | ---: | ---: |", flush=True)
    for num_workers in options.workers:
        with cluster(num_workers):
            rate = measure(num_workers, options.rate, options.seconds, options.batch_size)
        print(f"| {num_workers} | {rate:,.0f} | {rate / (num_workers * options.rate):.0%} |", flush=True)


if __name__ == "__main__":
    main()
