"""`read`: a dataset of documents from folders, patterns, object stores and manifests."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import InputError
from qwen3vl.ingestion.urls import split_url
from qwen3vl.loaders import Loader, Skipped
from qwen3vl.loaders.folder import LOADED_SUFFIXES
from qwen3vl.loaders.outcomes import storable_name
from qwen3vl_ray.crashes import CrashGuard
from qwen3vl_ray.documents import DOCUMENT_SCHEMA, documents_table
from qwen3vl_ray.downloads import Downloads
from qwen3vl_ray.manifests import ENTRY_SCHEMA, MANIFEST_SCHEMA, MANIFEST_SUFFIXES, read_manifest
from qwen3vl_ray.objects import find_objects, is_object, why_no_path
from qwen3vl_ray.pools import check_connection

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_MIN_FILES, _MAX_TASKS = 32, 4096
"""A task loads at least so many files; and more, if there would be more tasks than this otherwise."""
_ROWS = 1024
"""Rows that a task collects before it gives them to Ray."""


def read(paths: Paths, *, loader: Loader | None = None) -> Dataset:
    """Return the documents of files as a dataset, without opening any file here.

    The files are found in this process. Workers load them: a PDF as its pages, a video as its segments. Rows have
    references to media, never pixels. A file that cannot be loaded is a row with an `error`.

    Args:
        paths: Folders, glob patterns and files, which all nodes must see under the same path; URLs of object stores
            (`s3://bucket/folder`, `gs://`, `hf://` and others of fsspec, perhaps with a pattern); manifests, which are
            named with their suffix: `.parquet` and `.jsonl`. A row of a manifest is a document (any fields of
            `Document`), or names by `path` a file to load, whose documents have their own fields; further columns
            become metadata, but not `vector`, `recipe` and `error`.
        loader: How files are loaded; None is `Loader()`. Its policy is the workers'.

    Returns:
        The dataset. Its columns are `id`, `source`, `kind`, `content_hash`, `locator`, `text`, `image`, `video`,
        `fused`, `metadata` (JSON) and `error`.

    Example:
        ```python
        read(["scans", "s3://bucket/manuals/*.pdf", "manifest.parquet"])
        ```
    """
    return read_files(paths, loader or Loader(), keep_skipped=False)


def read_files(paths: Paths, loader: Loader, *, keep_skipped: bool) -> Dataset:
    """Return the dataset of `read`, perhaps with rows for files that are not loaded.

    Args:
        paths: As for `read`.
        loader: As for `read`.
        keep_skipped: Whether files of types that are not loaded are rows, of kind `SKIPPED`.

    Returns:
        The dataset.

    Raises:
        RuntimeError: This process is connected by Ray Client.
    """
    check_connection()
    names = [os.fspath(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    manifests = [name for name in names if PurePath(name).suffix.lower() in MANIFEST_SUFFIXES]
    entries = _find([name for name in names if name not in manifests], loader)
    if manifests:
        tables = [pa.Table.from_pylist([row], MANIFEST_SCHEMA) for row in _find_manifests(manifests, loader)]
        of_manifests = ray.data.from_arrow(tables).map_batches(read_manifest, batch_size=1, batch_format="pyarrow")
        # A manifest is read by one task, and its files are loaded by many.
        of_manifests = of_manifests.repartition(target_num_rows_per_block=_ROWS)
        entries = of_manifests if len(names) == len(manifests) else entries.union(of_manifests)
    return load_dataset(entries, loader, keep_skipped=keep_skipped)


def load_dataset(entries: Dataset, loader: Loader, *, keep_skipped: bool) -> Dataset:
    """Load the files of a dataset; one whose loading ends workers again and again is a row with an error.

    Args:
        entries: Rows as for `load_entries`.
        loader: As for `load_entries`.
        keep_skipped: As for `read_files`.

    Returns:
        The dataset of documents.
    """
    load = partial(load_entries, loader=loader, keep_skipped=keep_skipped)
    return entries.map_batches(partial(_load_guarded, load=load), batch_size=None, batch_format="pyarrow")


def _load_guarded(batch: pa.Table, load: Callable[[pa.Table], Iterator[pa.Table]]) -> Iterator[pa.Table]:
    yield from CrashGuard().run(batch, load)


def _find(names: list[str], loader: Loader) -> Dataset:
    """Return the files to load as a dataset: a block for each task."""
    items = chain.from_iterable(_find_path(name, loader) for name in names)
    found = list(chain.from_iterable(_name_item(item, loader) for item in items))
    size = max(_MIN_FILES, math.ceil(len(found) / _MAX_TASKS))
    chunks = (found[start : start + size] for start in range(0, max(len(found), 1), size))
    return ray.data.from_arrow([_to_table(chunk) for chunk in chunks])


def _find_path(path: str, loader: Loader) -> Iterator[Path | str | LoadFailure | Skipped]:
    """Find the files of a path, pattern or URL."""
    if is_object(path):
        return find_objects(path)
    reason = why_no_path(path)
    return loader.find(path) if reason is None else iter([LoadFailure(storable_name(path), reason)])


def _name_item(
    item: Path | str | LoadFailure | Skipped, loader: Loader
) -> Iterable[str | Document | LoadFailure | Skipped]:
    """Return what is found, a path as a str; in place of one that is not UTF-8, which Arrow refuses, its failure."""
    if not isinstance(item, Path):
        return [item]
    # The loader opens no file of such a name.
    return [str(item)] if storable_name(str(item)) == str(item) else loader.load_file(item)


def _to_table(found: Iterable[str | Document | LoadFailure | Skipped]) -> pa.Table:
    rows = [{"path": item} if isinstance(item, str) else documents_table([item]).to_pylist()[0] for item in found]
    return pa.Table.from_pylist(rows, ENTRY_SCHEMA)


def _find_manifests(names: list[str], loader: Loader) -> Iterator[dict[str, str | None]]:
    """Yield a row for each manifest; one that cannot be found has an `error`, and is not read."""
    for name in names:
        for item in _find_path(name, loader):
            for found in _name_item(item, loader):
                if isinstance(found, str):
                    yield {"manifest": found}
                else:
                    yield {"manifest": found.source, "error": found.reason if isinstance(found, LoadFailure) else None}


def load_entries(batch: pa.Table, loader: Loader, keep_skipped: bool) -> Iterator[pa.Table]:
    """Load the files of a batch.

    Args:
        batch: Rows with a `path`, and rows that are documents or failures already.
        loader: Loads the files.
        keep_skipped: As for `read_files`.

    Yields:
        Rows with the columns of `DOCUMENT_SCHEMA`.
    """
    done = batch.filter(pc.is_null(batch["path"])).select(DOCUMENT_SCHEMA.names)
    yield done
    files = batch.filter(pc.is_valid(batch["path"])).select(["path", "metadata", "error"]).to_pylist()
    loaded = chain.from_iterable(_load_row(row, loader) for row in files)
    items = (item for item in loaded if keep_skipped or not isinstance(item, Skipped))
    while chunk := list(islice(items, _ROWS)):
        yield documents_table(chunk)


def _load_row(row: dict[str, Any], loader: Loader) -> Iterable[Document | LoadFailure | Skipped]:
    if (reason := row["error"] or why_no_path(row["path"])) is not None:
        return [LoadFailure(row["path"], reason)]
    return _load(row["path"], json.loads(row["metadata"] or "{}"), loader)


def _load(path: str, metadata: dict[str, Any], loader: Loader) -> Iterator[Document | LoadFailure | Skipped]:
    for item in _load_object(path, loader) if is_object(path) else loader.load_file(Path(path)):
        if metadata and isinstance(item, Document):
            yield replace(item, metadata={**item.metadata, **metadata})
        else:
            yield item


def _load_object(url: str, loader: Loader) -> Iterator[Document | LoadFailure | Skipped]:
    """Load a file of an object store from a copy; the documents have its URL."""
    # Files of other types, perhaps large ones, are not downloaded. What looks like a query may be a part of a name.
    suffix, last = (PurePosixPath(name).suffix.lower() for name in (split_url(url)[0], url))
    if not LOADED_SUFFIXES & {suffix, last}:
        yield Skipped(url, suffix or "no suffix")
        return
    with Downloads(loader.policy) as downloads:
        try:
            copy = downloads.acquire(url)
        except InputError as error:
            yield LoadFailure(url, str(error))
            return
        for item in loader.load_file(copy):
            yield _rename(item, str(copy), url)


def _rename(item: Document | LoadFailure | Skipped, copy: str, url: str) -> Document | LoadFailure | Skipped:
    if isinstance(item, LoadFailure):
        return replace(item, source=url, reason=item.reason.replace(copy, url))
    if isinstance(item, Skipped):
        return replace(item, source=url)
    image, video = (None if each is None else each.replace(copy, url, 1) for each in (item.image, item.video))
    return replace(item, source=url, image=image, video=video)
