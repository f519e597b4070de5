"""Which documents a store does not have yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.ingestion.pipeline import LOOKUP_BATCH
from qwen3vl.recipe import Recipe
from qwen3vl_ray.documents import DOCUMENT_SCHEMA, SKIPPED, document_of, documents_table
from qwen3vl_ray.rows import rows_of
from qwen3vl_ray.tally import Tally, take_failures, with_tally
from qwen3vl_ray.target import Target


def keep_new(table: pa.Table, target: Target, recipe: Recipe, for_sync: bool) -> Iterator[pa.Table]:
    """Keep the documents that a store does not have, and count the others.

    Args:
        table: Rows of documents and failures.
        target: The collection.
        recipe: The recipe of the vectors, which the ids depend on.
        for_sync: Whether the tally has the ids of all documents.

    Yields:
        Rows of the documents to embed, and a tally as the last row.
    """
    for start in range(0, table.num_rows, LOOKUP_BATCH):
        yield _keep_new(table.slice(start, LOOKUP_BATCH), target, recipe, for_sync)


def _keep_new(table: pa.Table, target: Target, recipe: Recipe, for_sync: bool) -> pa.Table:
    rows, failures = take_failures(table)
    tally = Tally(failed=failures.failed)
    store = target.open()
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
    stored = store.existing(list(documents))
    tally.unchanged += len(stored)
    new = [document for point_id, document in documents.items() if point_id not in stored]
    return with_tally(documents_table(new), [tally])


def _document(row: dict[str, Any], tally: Tally) -> Document | None:
    """Return the document of a row; if it is none, add a failure to the tally."""
    try:
        return document_of(row)
    except InputError as error:
        tally.failed.append((row["source"] or "", row["locator"] or "", str(error)))
        return None
