"""A program that ingests a folder on a cluster of three nodes: `python -m tests.ray.three_nodes LOCATION PATH…`.

A node is killed when the first points are stored. The report is printed as JSON.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import ray
from qwen3vl_ray import ingest
from ray.cluster_utils import Cluster

from qwen3vl import Loader, open_store
from tests.ray.workers import wait_for

NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


def main(location: str, *paths: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(**NODE) for _ in range(2)]
        ray.init(cluster.address, log_to_driver=False, configure_logging=False)
        store = open_store(location)

        def kill_node() -> int:
            wait_for(lambda: store.count() > 0)
            stored = store.count()
            cluster.remove_node(nodes[1], allow_graceful=False)
            return stored

        with ThreadPoolExecutor() as pool:
            killing = pool.submit(kill_node)
            report = ingest(
                paths,
                location,
                model="tiny",
                device="cpu",
                loader=Loader(segment_seconds=1),
                num_gpus=0,
                min_workers=2,
                max_workers=2,
                batch_size=4,
            )
            stored = killing.result()
        num_nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        outcome = {"report": asdict(report), "stored_when_killed": stored, "nodes": num_nodes}
        sys.stdout.write(f"\n{json.dumps(outcome)}\n")
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:])
