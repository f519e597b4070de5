"""A simulated cluster for the benchmarks of `qwen3vl_ray`: nodes are processes, and a GPU is a sleep.

Nodes (`ray.cluster_utils.Cluster`) have eight logical GPUs each. A worker runs `Embed` as it is, with an embedder that
sleeps as long as a GPU would take: what is measured beside the sleep is what Ray and this package do for each batch, on
the cores of this machine.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.ray_stamps import BEGAN, DONE, WORKER
from qwen3vl.inputs import as_item
from qwen3vl.media.images import read_image_header
from qwen3vl.media.policy import DEFAULT_POLICY
from qwen3vl.results import Batch
from tests.support.fake_embedder import fake_recipe

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # workers are started in this environment
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own name; otherwise workers wait for all other processes)
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
DIMENSION = 2048
GPUS_PER_NODE = 8
STORE_BYTES = 96 * 2**20
_RECIPE = fake_recipe(dimensions=DIMENSION)


class SleepingEmbedder:
    """Takes as long for each batch as a GPU that embeds so many inputs a second.

    Args:
        rate: Inputs a second.
        opens_images: Whether images are decoded, and pages of PDF files rendered, before the sleep.
    """

    recipe = _RECIPE
    policy = DEFAULT_POLICY
    dimension = DIMENSION

    def __init__(self, rate: float, *, opens_images: bool = False) -> None:
        self._rate = rate
        self._opens_images = opens_images

    def embed(self, inputs: list[Any], *, on_error: str) -> Batch:  # noqa: ARG002
        if self._opens_images:
            for value in inputs:
                for image in as_item(value).images:
                    read_image_header(image, self.policy).load(None)
        time.sleep(len(inputs) / self._rate)
        return Batch(np.full((len(inputs), DIMENSION), DIMENSION**-0.5, np.float32))


def operator() -> type:
    """Return `Embed` with a simulated model; Ray is imported here, after its settings are made."""
    from qwen3vl_ray.downloads import Downloads
    from qwen3vl_ray.embedding import Embed
    from qwen3vl_ray.rows import set_column

    class SimulatedEmbed(Embed):
        def __init__(self, rate: float, *, opens_images: bool = False) -> None:
            self.embedder = SleepingEmbedder(rate, opens_images=opens_images)  # type: ignore[assignment]
            self._downloads = Downloads(DEFAULT_POLICY)
            self.recipe_json = json.dumps(_RECIPE.to_dict())
            self._gpu = threading.Lock()  # both batches of a worker share its GPU

        def __call__(self, batch: Any) -> Any:
            with self._gpu:
                began_s = time.monotonic()
                table = super().__call__(batch)
                stamps = {BEGAN: began_s, DONE: time.monotonic(), WORKER: os.getpid()}
            for name, value in stamps.items():
                table = set_column(table, name, pa.array([value] * table.num_rows))
            return table

    return SimulatedEmbed


@contextmanager
def cluster(num_workers: int) -> Iterator[None]:
    """Start nodes for so many workers, and stop them."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 4, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        for first in range(0, num_workers, GPUS_PER_NODE):
            gpus = min(GPUS_PER_NODE, num_workers - first)
            nodes.add_node(num_cpus=2 * gpus, num_gpus=gpus, object_store_memory=STORE_BYTES)
        ray.init(nodes.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def repeated(function: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Call a function in a thread, again and again until the end of the context."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(interval_s):
            function()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
