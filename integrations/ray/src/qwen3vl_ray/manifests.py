"""Manifests: lists of documents and files in Parquet and in lines of JSON."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qwen3vl.documents import LoadFailure
from qwen3vl.errors import InputError
from qwen3vl.ingestion.validation import check_metadata
from qwen3vl.loaders.outcomes import storable_name
from qwen3vl_ray.documents import DOCUMENT_SCHEMA, document_of, documents_table, file_of, metadata_of
from qwen3vl_ray.objects import open_filesystem
from qwen3vl_ray.rows import MANIFEST

MANIFEST_SUFFIXES = frozenset({".parquet", ".jsonl", ".ndjson"})
"""Suffixes of paths that are read as manifests."""
ENTRY_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("path", pa.string()))
"""Columns of rows that are documents, failures, or files to load."""
MANIFEST_SCHEMA = pa.schema([("manifest", pa.string()), ("error", pa.string())])
"""Columns of rows that are manifests: the path or URL, and why it is not read."""
_ROWS = 1024
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:|[/\\]", re.IGNORECASE)
"""The beginning of absolute paths (also of Windows), URLs and data URIs."""


def read_manifest(batch: pa.Table) -> Iterator[pa.Table]:
    """Read manifests.

    Args:
        batch: Rows with the columns of `MANIFEST_SCHEMA`; `error` may be missing.

    Yields:
        Rows with the columns of `ENTRY_SCHEMA`. A row that is no document, and a manifest that cannot be read, are rows
        with an error.
    """
    for manifest in batch.to_pylist():
        rows = _entries(manifest["manifest"], manifest.get("error"))
        while chunk := list(islice(rows, _ROWS)):
            yield pa.Table.from_pylist(chunk, ENTRY_SCHEMA)


def _entries(manifest: str, error: str | None) -> Iterator[dict[str, Any]]:
    if error is not None:
        yield _to_failure(LoadFailure(manifest, f"the manifest cannot be read: {error}"))
        return
    base = posixpath.dirname(manifest.replace("\\", "/"))
    try:
        for number, row in enumerate(_rows(manifest), 1):
            yield to_entry(row, base, LoadFailure(manifest, "", locator=f"row={number}"))
    except Exception as error:  # libraries of stores and formats raise anything
        reason = f"the manifest cannot be read: {type(error).__name__}: {error}; check the path and the file"
        yield _to_failure(LoadFailure(manifest, reason))


def _rows(manifest: str) -> Iterator[Any]:
    filesystem, name = open_filesystem(manifest)
    with filesystem.open(name, "rb") as file:
        if PurePath(name).suffix.lower() == ".parquet":
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
        else:
            yield from _parse_lines(file)


def _parse_lines(lines: Iterable[bytes]) -> Iterator[Any]:
    for line in lines:
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:  # such as 100,000 brackets
                yield InputError(f"the line is no JSON: {error}")


def to_entry(row: Any, base: str, failure: LoadFailure) -> dict[str, Any]:
    """Return a row of a manifest, or of a dataset of others, as a row of `ENTRY_SCHEMA`.

    Args:
        row: A mapping of values by column.
        base: Folder or URL to which relative references belong; empty if they stay as they are.
        failure: The name of the row, for its error.

    Returns:
        A document, a file to load, or a failure.
    """
    try:
        if isinstance(row, InputError):
            raise row
        if not isinstance(row, Mapping):
            raise InputError('it is no mapping of values by column; write {"path": …} or the fields of a document')
        if row.get("error"):
            # Of a manifest that cannot be read, the kind says that its documents are not known.
            kind = {"kind": MANIFEST} if row.get("kind") == MANIFEST else {}
            return _check_types({name: row.get(name) for name in ("source", "locator", "error")} | kind)
        if (path := file_of(row)) is not None:
            if row.get("locator"):
                raise InputError(
                    "the row names a file to load and has a locator, and a file is loaded as a whole: leave the "
                    "locator out, or name the part by image or video (report.pdf#page=3) in place of path"
                )
            metadata = metadata_of({key: value for key, value in row.items() if key != "path"})
            check_metadata(metadata)
            return _check_types({"path": _join(base, path), "metadata": json.dumps(metadata)})
        references = {key: _join(base, row[key]) for key in ("image", "video") if row.get(key)}
        return documents_table([document_of({**row, **references})]).to_pylist()[0]  # type: ignore[no-any-return]
    except (InputError, TypeError, ValueError, pa.ArrowException) as error:
        if isinstance(row, Mapping) and (source := _source_of(row, base)):
            reason = str(error) if source == failure.source else f"{failure.name}: {error}"
            return {"source": storable_name(source), "locator": None, "error": storable_name(reason)}
        return _to_failure(replace(failure, reason=str(error)))


def _check_types(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a row if it can be in a table; otherwise one row would end the run."""
    for name, value in entry.items():
        if isinstance(value, str) and storable_name(value) != value:
            raise InputError(
                f"its {name} {storable_name(value)} is not valid Unicode; rename the file, or correct the row"
            )
    pa.Table.from_pylist([entry], ENTRY_SCHEMA)
    return entry


def _source_of(row: Mapping[str, Any], base: str) -> str:
    """Return the source that the documents of a row would have; empty if the row does not say it."""
    keys = ("path", "source") if row.get("path") else ("source", "image", "video")  # a path is the source itself
    key, name = next(((key, row[key]) for key in keys if row.get(key)), ("", None))
    if not isinstance(name, str):
        return ""
    return name if key == "source" else _join(base, name)


def _to_failure(failure: LoadFailure) -> dict[str, Any]:
    """Return the failure of documents of unknown sources."""
    reason = storable_name(failure.reason)
    return {"source": failure.source, "locator": failure.locator, "error": reason, "kind": MANIFEST}


def _join(base: str, reference: str) -> str:
    return posixpath.join(base, reference) if base and not _ABSOLUTE.match(reference) else reference
