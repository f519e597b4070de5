"""Documents in Chroma's form: a text and flat metadata, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qwen3vl.documents import FORMER_KEYS, Document
from qwen3vl.stores import Hit

_PRESENT_NAMES = {former: present for present, former in FORMER_KEYS.items()}
"""The present names of metadata keys that collections of earlier versions have."""


def flatten_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as Chroma accepts them.

    Args:
        metadata: JSON values by key.

    Returns:
        Scalars and lists of scalars of one type as they are, other values as JSON, None left out.
    """
    return {
        key: value if _is_flat(value) else json.dumps(value) for key, value in metadata.items() if value is not None
    }


def to_document(text: str | None, metadata: Mapping[str, Any]) -> Document:
    """Return a stored document.

    Args:
        text: Chroma's document.
        metadata: Its metadata. `_node_content`, if present, has them in their original form.

    Returns:
        The document as it was ingested.
    """
    original = json.loads(metadata["_node_content"])["metadata"] if "_node_content" in metadata else dict(metadata)
    return Document.from_payload({"page_content": text or "", "metadata": original})


def to_hits(result: Mapping[str, Any]) -> list[Hit]:
    """Return the hits of a query.

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
        key: The metadata key. Hits without it are left out; a list counts as each of its values.

    Returns:
        Distinct hits, best first.
    """
    best: dict[Any, Hit] = {}
    for hit in hits:
        value = hit.document.to_payload()["metadata"].get(_PRESENT_NAMES.get(key, key))
        for group in value if isinstance(value, list) else [value]:
            if isinstance(group, (str, int)):
                best.setdefault(group, hit)
    return list({hit.id: hit for hit in best.values()}.values())


def _is_flat(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and len({type(item) for item in value}) == 1 and isinstance(value[0], (str, int, float))
    return isinstance(value, (str, int, float))
