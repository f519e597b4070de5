"""Documents as rows of a dataset, and rows of others as documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast, get_args

import pyarrow as pa

from qwen3vl.documents import Document, Kind, LoadFailure
from qwen3vl.errors import InputError
from qwen3vl.ingestion.validation import check_storable
from qwen3vl.loaders import Skipped
from qwen3vl_ray.rows import ERROR, RECIPE, VECTOR

SKIPPED = "skipped"
"""`kind` of the row of a file that is not loaded; its `text` says why."""
_STRINGS = ("id", "source", "kind", "content_hash", "locator", "text", "image", "video", "metadata", ERROR)
DOCUMENT_SCHEMA = pa.schema([*((name, pa.string()) for name in _STRINGS), ("fused", pa.bool_())])
"""Columns of a dataset of documents: the fields of `Document`, its id, `metadata` as JSON, and `error`."""
_OWN_KEYS = frozenset((*DOCUMENT_SCHEMA.names, VECTOR, RECIPE)) - {"id"}
_CONTENTS = ("text", "image", "video")


def documents_table(items: Iterable[Document | LoadFailure | Skipped]) -> pa.Table:
    """Return documents and failures as rows.

    Args:
        items: What a `Loader` yields.

    Returns:
        A row for each, with the columns of `DOCUMENT_SCHEMA`. A failure has only its source, locator and error.
    """
    return pa.Table.from_pylist([_to_row(item) for item in items], DOCUMENT_SCHEMA)


def _to_row(item: Document | LoadFailure | Skipped) -> dict[str, Any]:
    if isinstance(item, Document):
        fields = {name: getattr(item, name) for name in DOCUMENT_SCHEMA.names if name not in ("metadata", ERROR)}
        return {**fields, "metadata": json.dumps(dict(item.metadata))}
    if isinstance(item, LoadFailure):
        return {"source": item.source, "locator": item.locator, ERROR: item.reason}
    return {"source": item.source, "kind": SKIPPED, "text": item.suffix}


def document_of(row: Mapping[str, Any]) -> Document:
    """Return the document of a row, also of a row of others, which may lack columns and have more.

    Args:
        row: Its values: the fields of `Document`, with `metadata` as a mapping or as JSON. Others become metadata, also
            an `id` that is not the document's, but not `vector`, `recipe` and `error`, the columns of `embed`.

    Returns:
        The document.

    Raises:
        InputError: It has neither text nor media, or has values that no store can keep.
    """
    image, video, text = row.get("image") or None, row.get("video") or None, row.get("text") or ""
    if not (image or video or text):
        raise InputError("the row has no text, no image and no video: fill one of these columns, or leave the row out")
    kind = row.get("kind") or ("clip" if video else "picture" if image else "text")
    if kind not in get_args(Kind):
        raise InputError(f"its kind is {kind!r}; it may be {', '.join(get_args(Kind))}")
    fused = row.get("fused")
    document = Document(
        source=row.get("source") or image or video or "",
        kind=cast("Kind", kind),
        content_hash=row.get("content_hash") or "",
        locator=row.get("locator") or "",
        text=text,
        image=image,
        video=video,
        fused=True if fused is None else bool(fused),
        metadata=metadata_of({key: value for key, value in row.items() if key != "id"}),
    )
    if (own_id := row.get("id")) is not None and own_id != document.id:  # not that of a row of `read`
        document = replace(document, metadata={"id": own_id, **document.metadata})
    check_storable(document)
    return document


def metadata_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a row: those under `metadata`, and the values under names that are no field.

    Args:
        row: Its values.

    Returns:
        The metadata.

    Raises:
        InputError: `metadata` is neither a mapping nor JSON of one.
    """
    metadata = row.get("metadata") or {}
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except (ValueError, RecursionError) as error:  # such as 100,000 brackets
            raise InputError(f"its metadata are no JSON: {error}") from error
    if not isinstance(metadata, Mapping):
        raise InputError("its metadata must be a mapping, or JSON of one")
    others = {key: value for key, value in row.items() if key not in _OWN_KEYS and value is not None}
    return {**metadata, **others}


def file_of(row: Mapping[str, Any]) -> str | None:
    """Return the file that a row names, to be loaded.

    Args:
        row: Its values.

    Returns:
        Its `path`, or its `source` if it has no columns of text or media; None if the row is a document itself, also
        one whose text is empty.

    Raises:
        InputError: It has a `path` and content of its own.
    """
    if row.get(ERROR):
        return None
    contents = [name for name in _CONTENTS if row.get(name)]
    if contents and row.get("path"):
        raise InputError(
            f"the row has a path and {' and '.join(contents)}, and is either a file to load or a document: for a "
            "document with this image or video, name it by image or video in place of path; for a text about a file, "
            "name the file by source; for the file alone, leave the others out"
        )
    if contents:
        return None
    if row.get("path"):
        return row["path"]  # type: ignore[no-any-return]
    return None if row.keys() & _CONTENTS else row.get("source") or None
