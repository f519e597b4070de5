"""Check for what no store can keep: reserved or invalid metadata keys, and texts or values that cannot be JSON."""

from __future__ import annotations

import json

from qwen3vl.documents import FORMER_KEYS, RESERVED, Document, has_former_keys


def storage_problem(document: Document) -> str:
    """Return why a document cannot be stored: a reserved or invalid metadata key, or a value that cannot be JSON.

    Args:
        document: The document.

    Returns:
        The reason; empty if it can be stored.
    """
    taken = RESERVED.union(FORMER_KEYS.values()) if has_former_keys(document.metadata) else RESERVED
    if reserved := sorted(taken & document.metadata.keys()):
        return f"its metadata use {', '.join(reserved)}, reserved for the document's own fields; use other names"
    if invalid := [key for key in document.metadata if not isinstance(key, str) or not key]:
        return f"its metadata have keys that are empty or not strings: {invalid}"
    try:
        json.dumps(document.to_payload(), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        return f"its text or metadata cannot be stored as JSON: {error}"
    return ""
