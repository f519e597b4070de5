"""`ingest`: documents into a collection on a server, on all nodes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pyarrow as pa
import ray
from ray.data import Dataset

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.embedder import Embedder
from qwen3vl.errors import StoreError
from qwen3vl.ingestion import IngestError, Report, Sync
from qwen3vl.ingestion.sync import SyncTracker, delete_stale
from qwen3vl.loaders import Loader
from qwen3vl.recipe import Recipe
from qwen3vl.settings import ModelName
from qwen3vl_ray.contents import EmbedNew
from qwen3vl_ray.manifests import ENTRY_SCHEMA, to_entry
from qwen3vl_ray.pools import BATCH_SIZE, check_arguments, check_connection, map_on_models
from qwen3vl_ray.reading import Paths, load_dataset, read_files
from qwen3vl_ray.target import Target
from qwen3vl_ray.writing import MAX_WRITERS, TallySink, find_cause, run


def ingest(
    documents: Paths | Dataset,
    location: str,
    *,
    collection: str = "qwen3vl",
    model: ModelName = "Qwen/Qwen3-VL-Embedding-2B",
    loader: Loader | None = None,
    sync: Sync = False,
    layout: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    num_gpus: float = 1,
    min_workers: int = 1,
    max_workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    **settings: Any,
) -> Report:
    """Embed and write the documents that a collection does not have yet, as `qwen3vl.ingest` does in one process.

    Ids, payloads and vectors are those of `qwen3vl.ingest`. A run that was ended, however, is continued by the next
    one: the store is asked what it has, and no list of what is done is kept. Documents with equal content are embedded
    once on each worker, as long as it remembers them (the last 8,192); workers do not know each other's. A failure is
    in the report, and is tried again by the next run. The batch of a worker or a node that is lost is done elsewhere.

    Args:
        documents: Paths as for `read`, or a dataset whose rows are documents or name a `path` to load.
        location: The URL of a server, perhaps with `qdrant:` or `chroma:` in front.
        collection: Name of the collection; it is created if it does not exist.
        model: As for `Embedder`.
        loader: As for `read`.
        sync: As for `qwen3vl.ingest`: which points are deleted at the end if the run did not see them. The driver keeps
            the ids of all documents then. If it is not known which documents a failure has, as of a manifest that
            cannot be read, nothing is deleted.
        layout: As for `open_store`.
        timeout_s: As for `open_store`.
        num_gpus: GPUs of a worker; 0 runs it on a CPU, or asks servers.
        min_workers: Minimum number of workers.
        max_workers: Maximum number of workers; None is as many as the cluster has room for. A worker writes what it has
            embedded, in at most two requests at once.
        batch_size: Maximum number of documents of a batch; a worker has at most two at once, which it does again if the
            run is killed.
        **settings: Other arguments of `Embedder`.

    Returns:
        What was done.

    Raises:
        RecipeError: The collection has another recipe or layout; nothing was read then.
        StoreError: The store cannot be reached for two minutes, or refuses everything.
        ModelError: The model cannot be loaded on a worker.
        IngestError: All points are written, and those that `sync` deletes cannot be deleted.
        RuntimeError: This process is connected by Ray Client.
        ValueError: `sync` has another value, there is an `api_key`, or Ray restores a checkpoint, with which a run does
            not see all documents.

    Example:
        ```python
        report = ingest(["scans", "s3://bucket/manuals"], "http://localhost:6333", max_workers=8)
        ```
    """
    check_connection()
    target = Target(location, collection, None if layout is None else tuple(layout.items()), timeout_s, uuid4().hex)
    tracker = SyncTracker(sync)
    if tracker.enabled and ray.data.DataContext.get_current().checkpoint_config is not None:
        raise ValueError(
            "sync needs to see all documents, and a run with a checkpoint of Ray does not: leave one of them out. A "
            "run without a checkpoint continues as well"
        )
    target.read_recipe()
    arguments = {"model": model, **settings}
    recipe = model_recipe(arguments, num_gpus)
    store = target.prepare(recipe)
    loader = loader or Loader()
    if isinstance(documents, Dataset):
        rows = _load_rows(documents, loader)
    else:
        rows = read_files(documents, loader, keep_skipped=True)
    embedded = map_on_models(
        rows,
        EmbedNew,
        {**arguments, "target": target, "recipe": recipe, "for_sync": tracker.enabled},
        num_gpus=num_gpus,
        min_workers=min_workers,
        max_workers=max_workers,
        batch_size=batch_size,
    )
    tally = run(embedded, TallySink(target, recipe), MAX_WRITERS).tally
    report = tally.to_report()
    if tracker.enabled:
        for point_id, source, locator in tally.seen:
            tracker.add(point_id, Document(source, "text", locator=locator))
        for source, _, _ in tally.failed:
            tracker.add_failed(source or None)
        tracker.has_unknown_failure |= tally.has_unknown_failure
        try:
            delete_stale(tracker, store, report)
        except StoreError as error:
            raise IngestError(f"{error}. All points are written; the next run deletes what is left", report) from error
    return report


def model_recipe(arguments: Mapping[str, Any], num_gpus: float) -> Recipe:
    """Return the recipe of a model, which a worker loads: the driver may have neither its files nor a device.

    Args:
        arguments: Those of `Embedder`.
        num_gpus: GPUs of the worker.

    Returns:
        The recipe.

    Raises:
        Qwen3VLError: The model cannot be loaded.
        ValueError: An argument is out of range, or is an `api_key`.
    """
    if not ray.is_initialized():
        ray.init()
    check_arguments(arguments, num_gpus)
    try:
        return ray.get(ray.remote(_load_recipe).options(num_gpus=num_gpus).remote(dict(arguments)))
    except ray.exceptions.RayTaskError as error:
        if (reason := find_cause(error)) is not None:
            raise reason from error
        raise


def _load_recipe(arguments: dict[str, Any]) -> Recipe:
    with Embedder(**arguments) as embedder:
        return embedder.recipe


def _load_rows(dataset: Dataset, loader: Loader) -> Dataset:
    entries = dataset.map_batches(to_entries, batch_size=None, batch_format="pyarrow")
    return load_dataset(entries, loader, keep_skipped=True)


def to_entries(table: pa.Table) -> pa.Table:
    """Return the rows of a dataset of others as rows of `ENTRY_SCHEMA`.

    Args:
        table: Documents, failures, and files to load.

    Returns:
        A row for each; one that is none of these is a failure.
    """
    rows = table.to_pylist()
    return pa.Table.from_pylist([to_entry(row, "", LoadFailure(_name(row), "")) for row in rows], ENTRY_SCHEMA)


def _name(row: Mapping[str, Any]) -> str:
    """Return what a row is called if it is no document."""
    return next((str(row[key]) for key in ("source", "path", "image", "video", "id") if row.get(key)), "")
