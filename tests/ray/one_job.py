"""A program that ingests manifests with a Ray of its own: `python -m tests.ray.one_job LOCATION MODEL PATH…`.

The report is printed as JSON, on a line of its own.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import ray
from qwen3vl_ray import ingest

NUM_WORKERS, BATCH_SIZE = 2, 8


def main(location: str, model: str, *paths: str) -> None:
    ray.init(
        "local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        configure_logging=False,
    )
    report = ingest(
        paths,
        location,
        model=model,
        num_gpus=0,
        min_workers=NUM_WORKERS,
        max_workers=NUM_WORKERS,
        batch_size=BATCH_SIZE,
    )
    sys.stdout.write(f"\n{json.dumps(asdict(report))}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
