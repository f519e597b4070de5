"""A program that ingests manifests with a Ray of its own: `python -m tests.ray.one_job LOCATION MODEL PATH…`."""

from __future__ import annotations

import sys

import ray
from qwen3vl_ray import ingest

from qwen3vl import Report

NUM_WORKERS, BATCH_SIZE = 2, 8


def run(location: str, model: str, *paths: str) -> Report:
    """Do the job on the Ray that this process is connected to."""
    return ingest(
        paths,
        location,
        model=model,
        num_gpus=0,
        min_workers=NUM_WORKERS,
        max_workers=NUM_WORKERS,
        batch_size=BATCH_SIZE,
    )


if __name__ == "__main__":
    ray.init(
        "local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        configure_logging=False,
    )
    run(*sys.argv[1:])
