"""A program that ingests a folder on a cluster of three nodes: `python -m tests.ray.three_nodes FOLDER PLACE KILL`.

With KILL a node is killed when the first points are stored. It prints the report as JSON.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import ray
from qwen3vl_ray import ingest
from ray.cluster_utils import Cluster

from qwen3vl import Loader, open_store
from tests.ray.workers import wait_for

NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


def main(folder: str, place: str, kill: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(**NODE) for _ in range(2)]
        ray.init(cluster.address, log_to_driver=False, configure_logging=False)
        store = open_store(place)

        def kill_node() -> bool:
            if kill == "kill":
                wait_for(lambda: store.count() > 0)
                cluster.remove_node(nodes[1], allow_graceful=False)
            return kill == "kill"

        with ThreadPoolExecutor() as pool:
            killing = pool.submit(kill_node)
            report = ingest(
                folder,
                place,
                model="tiny",
                device="cpu",
                loader=Loader(segment_seconds=1),
                num_gpus=0,
                min_workers=2,
                max_workers=2,
                batch_size=4,
            )
            is_killed = killing.result()
        num_nodes = sum(node["Alive"] for node in ray.nodes())
        sys.stdout.write(json.dumps({"report": asdict(report), "killed": is_killed, "nodes": num_nodes}))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
