"""A program that ingests files on a cluster of three nodes: `python -m tests.ray.three_nodes ARGUMENTS`.

The arguments are JSON: `locations` and `paths`, `client_location` and `client_paths`. The paths are ingested into each
of the locations: a node is killed when the first points are there, and replaced before the next run. What is left of
the cluster is used through Ray Client then. What happened is printed as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

# Ray waits 30 s for the process that it starts for a client, which imports Ray first. Other tests may run meanwhile.
os.environ["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = "180"
# The server of Ray Client forks that process while its own threads use gRPC. gRPC's handlers for forks start threads in
# the child, which crash at times if they run before the child executes its program (Ray's issue #63202).
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# Ray looks at nodes every 3 s by default, and takes one for dead after five times.
os.environ["RAY_health_check_period_ms"] = "500"  # noqa: SIM112 (Ray's own name)

import ray
from qwen3vl_ray import ingest
from ray.cluster_utils import Cluster

from qwen3vl import Loader, open_store
from tests.ray.forked_worker import serve_workers
from tests.ray.ray_client import use_client
from tests.ray.workers import wait_for
from tests.support.store_backends import free_port

COLLECTION = "three-nodes"
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_log_monitor": False}


def main(arguments: str) -> None:
    with serve_workers() as worker:
        NODE["setup_worker_path"] = worker
        use_cluster(**json.loads(arguments))


def use_cluster(**given: Any) -> None:
    port = free_port()
    head = {**NODE, "include_dashboard": False, "no_monitor": True, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**NODE)
        ray.init(cluster.address, log_to_driver=False, configure_logging=False)
        outcomes = [ingest_and_kill(cluster, location, given["paths"]) for location in given["locations"]]
        ray.shutdown()
        client = use_client(f"ray://127.0.0.1:{port}", given["client_location"], tuple(given["client_paths"]))
        sys.stdout.write(f"\n{json.dumps({'outcomes': outcomes, 'client': client})}\n")
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


def ingest_and_kill(cluster: Cluster, location: str, paths: list[str]) -> dict[str, Any]:
    """Add the third node, and kill it when the store has the first points."""
    node = cluster.add_node(**NODE)
    wait_for(lambda: num_nodes() == 3)
    store = open_store(location, COLLECTION)

    def kill_node() -> int:
        wait_for(lambda: store.count() > 0)
        stored = store.count()
        cluster.remove_node(node, allow_graceful=False)
        return stored

    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill_node)
        report = ingest(
            paths,
            location,
            collection=COLLECTION,
            model="tiny",
            device="cpu",
            loader=Loader(segment_seconds=1),
            num_gpus=0,
            min_workers=2,
            max_workers=2,
            batch_size=4,
        )
        stored = killing.result()
    return {"report": asdict(report), "stored_when_killed": stored, "nodes": num_nodes()}


def num_nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:])
