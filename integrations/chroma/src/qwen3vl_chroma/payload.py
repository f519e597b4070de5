"""Documents in Chroma's form: a text and flat metadata, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qwen3vl.documents import FORMER_KEYS, Document
from qwen3vl.stores import Hit, StoredPoint, Vector
from qwen3vl_chroma.filters import TENANT_KEY

_CURRENT_NAMES = {former: present for present, former in FORMER_KEYS.items()}
"""By metadata key of earlier versions, its name today."""


def flatten_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Convert metadata to the types that Chroma accepts.

    Args:
        metadata: JSON values by key.

    Returns:
        Scalars, and lists of one or more scalars of one type, as they are; other values as JSON text. None is left out.
    """
    return {
        key: value if _is_flat(value) else json.dumps(value) for key, value in metadata.items() if value is not None
    }


def to_document(text: str | None, metadata: Mapping[str, Any]) -> Document:
    """Convert a stored text and its metadata to a document.

    Args:
        text: Chroma's document.
        metadata: Its metadata. `ChromaStore` writes them in their original form under `_node_content`, too; records of
            others, which lack it, are read as they are.

    Returns:
        The document as it was ingested.
    """
    original = json.loads(metadata["_node_content"])["metadata"] if "_node_content" in metadata else dict(metadata)
    return Document.from_payload({"page_content": text or "", "metadata": original})


def to_stored_point(
    point_id: str, vector: Vector, text: str | None, metadata: Mapping[str, Any] | None, database: str
) -> StoredPoint:
    """Convert a record to a point that can be copied.

    Args:
        point_id: Its id.
        vector: (dimensions,) float32.
        text: Chroma's document.
        metadata: Its metadata.
        database: Name of the database.

    Returns:
        The point.
    """
    payload = metadata or {}
    return StoredPoint(point_id, vector, to_document(text, payload), payload.get(TENANT_KEY), database, payload)


def to_hits(result: Mapping[str, Any]) -> list[Hit]:
    """Convert the answer to a query to hits.

    Args:
        result: Chroma's answer to one query vector, with ids, documents, metadatas and distances.

    Returns:
        The hits in the answer's order; scores are cosines, 1 minus Chroma's cosine distance.
    """
    rows = zip(*(result[key][0] for key in ("ids", "documents", "metadatas", "distances")), strict=True)
    return [
        Hit(point_id, to_document(text, metadata or {}), 1.0 - float(distance))
        for point_id, text, metadata, distance in rows
    ]


def best_per_group(hits: Sequence[Hit], key: str) -> list[Hit]:
    """Return the best hit of each value of a metadata key, as Qdrant groups hits.

    Args:
        hits: Hits, best first.
        key: The metadata key, or the name that it had in earlier versions. Hits whose value is neither a str nor an int
            are left out; a hit with a list of values belongs to the group of each.

    Returns:
        The hits, best first. One that is the best of several groups is in it once.
    """
    best: dict[Any, Hit] = {}
    for hit in hits:
        value = hit.document.to_payload()["metadata"].get(_CURRENT_NAMES.get(key, key))
        for group in value if isinstance(value, list) else [value]:
            if isinstance(group, (str, int)):
                best.setdefault(group, hit)
    return list({hit.id: hit for hit in best.values()}.values())


def _is_flat(value: Any) -> bool:
    """Return whether Chroma accepts a metadata value."""
    if isinstance(value, list):
        return bool(value) and len({type(item) for item in value}) == 1 and isinstance(value[0], (str, int, float))
    return isinstance(value, (str, int, float))
