"""Which documents of a batch a store does not have yet."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.ingestion.buffer import LOOKUP_BATCH
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Store
from qwen3vl_ray.documents import DOCUMENT_SCHEMA, SKIPPED, document_of
from qwen3vl_ray.rows import rows_of
from qwen3vl_ray.tally import Tally, take_failures


def find_new(table: pa.Table, store: Store, recipe: Recipe, *, for_sync: bool) -> tuple[list[Document], Tally]:
    """Find the documents that a store does not have, and count the others.

    Args:
        table: Rows of documents, failures and skipped files.
        store: The store.
        recipe: The recipe of the vectors, which the ids depend on.
        for_sync: Whether the tally has the ids of all documents.

    Returns:
        The documents to embed, and what became of the other rows.
    """
    rows, tally = take_failures(table)
    documents: dict[str, Document] = {}
    for row in rows_of(rows, DOCUMENT_SCHEMA.names):
        if row["kind"] == SKIPPED:
            tally.merge(Tally(skipped={row["text"]: 1}))
        elif (document := _document(row, tally)) is not None:
            point_id = store.point_id(document, recipe)
            tally.unchanged += point_id in documents
            documents[point_id] = document
    if for_sync:
        tally.seen = [(point_id, document.source, document.locator) for point_id, document in documents.items()]
    ids = list(documents)
    stored: set[str] = set()
    for start in range(0, len(ids), LOOKUP_BATCH):
        stored |= store.existing(ids[start : start + LOOKUP_BATCH])
    tally.unchanged += len(stored)
    return [document for point_id, document in documents.items() if point_id not in stored], tally


def _document(row: dict[str, Any], tally: Tally) -> Document | None:
    """Return the document of a row; if it is none, add a failure to the tally."""
    try:
        return document_of(row)
    except InputError as error:
        tally.failed.append((row["source"] or "", row["locator"] or "", str(error)))
        return None
