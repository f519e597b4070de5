"""What `qwen3vl index --ray` does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Below `uv run`, Ray would copy the current folder to the workers, and start each of them in a new environment of uv.
# It reads this variable when it is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray
from ray.exceptions import RayTaskError

from qwen3vl.ingestion import Report, Sync
from qwen3vl.loaders import Loader
from qwen3vl.settings import server_urls
from qwen3vl_ray.ingestion import ingest
from qwen3vl_ray.pools import warn_without_gpus
from qwen3vl_ray.writing import find_cause


def index_on_cluster(
    address: str,
    paths: Sequence[str],
    location: str,
    *,
    collection: str,
    loader: Loader,
    sync: Sync,
    layout: Mapping[str, Any] | None,
    **arguments: Any,
) -> Report:
    """Ingest files on a cluster, with a GPU for each worker if the cluster has any.

    Args:
        address: As for `ray.init`: `"auto"`, `"local"`, or `"ray://HOST:PORT"`.
        paths: As for `ingest`.
        location: The store.
        collection: As for `ingest`.
        loader: As for `ingest`.
        sync: As for `ingest`.
        layout: As for `ingest`.
        **arguments: Those of `Embedder`.

    Returns:
        What was done.

    Raises:
        Qwen3VLError: As for `ingest`.
    """
    urls = server_urls(arguments["model"])
    for name in () if urls else ("model", "adapter"):  # workers have other current folders
        if (folder := arguments.get(name)) and Path(folder).is_dir():
            arguments[name] = str(Path(folder).resolve())
    with _connected(address):
        options: dict[str, Any] = {
            "collection": collection,
            "loader": loader,
            "sync": sync,
            "layout": layout,
            "num_gpus": 0 if urls else _num_gpus(arguments["device"]),
        }
        if not address.startswith("ray://"):
            return ingest(paths, location, **options, **arguments)
        # A client of Ray is no part of the cluster: the driver of the data set is a task there, and its log, too.
        warn_without_gpus(options["num_gpus"])
        try:
            driver = ray.remote(ingest).options(num_cpus=0)
            return ray.get(driver.remote(paths, location, **options, **arguments))
        except RayTaskError as error:
            if (reason := find_cause(error)) is not None:
                raise reason from error
            raise


def _num_gpus(device: str) -> float:
    """Return the GPUs of a worker: one if the device is a GPU, or if it is not said and the cluster has some."""
    if device != "auto":
        return 1 if device.startswith("cuda") else 0
    return min(1, ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call,no-any-return]


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Connect to a cluster, unless this process is connected to one already."""
    if ray.is_initialized():
        yield
        return
    ray.init(address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
