"""A program that uses a cluster through Ray Client: `python -m tests.ray.ray_client LOCATION PATH…`.

It prints as JSON the report of what `qwen3vl index --ray ray://…` calls, an error of it, and why `read` is refused.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

# Ray waits 30 s for the process that it starts for a client, which imports Ray first. Other tests may run meanwhile.
os.environ["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = "180"

import ray
from qwen3vl_ray import read
from qwen3vl_ray.command import index_on_cluster
from ray.cluster_utils import Cluster

from qwen3vl import Loader, RecipeError
from tests.support.store_backends import free_port


def main(location: str, *paths: str) -> None:
    port = free_port()
    head = {"num_cpus": 4, "object_store_memory": 100 * 2**20, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
    address = f"ray://127.0.0.1:{port}"
    arguments: dict[str, Any] = {"collection": "qwen3vl", "loader": Loader(), "sync": False, "layout": None}
    model: dict[str, Any] = {"model": "tiny", "device": "cpu"}
    answers: dict[str, Any] = {}
    try:
        answers["report"] = asdict(index_on_cluster(address, paths, location, **arguments, **model))
        try:
            index_on_cluster(address, paths, location, **arguments, **model, fps=2.0)
        except RecipeError as error:
            answers["recipe"] = str(error)
        ray.init(address)
        try:
            read(paths)
        except RuntimeError as error:
            answers["read"] = str(error)
        ray.shutdown()
        sys.stdout.write(f"\n{json.dumps(answers)}\n")
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:])
