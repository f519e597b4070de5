"""Points that a folder still has although its `meta.json` has lost their collection."""

from __future__ import annotations

import logging
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from qdrant_client.local.persistence import CollectionPersistence

from qwen3vl.documents import Document
from qwen3vl.errors import StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.stores.types import tenant_point_id
from qwen3vl_qdrant.filters import TENANT_KEY
from qwen3vl_qdrant.layout import SHORT_VECTOR_NAME, TEXT_VECTOR_NAME, Layout

logger = logging.getLogger(__name__)
_NUM_CHECKED = 100


def check_left_points(file: Path, recipe: Recipe, layout: Layout) -> None:
    """Check that points that a new collection takes over were made by its recipe.

    Embedded Qdrant loads the points of an existing file into the new collection. Ids are derived from the document and
    the recipe, so they tell whether the recipe made the points.

    Args:
        file: The `storage.sqlite` of the new collection; it may not exist.
        recipe: The new collection's recipe.
        layout: Its layout.

    Raises:
        StoreError: Points were made by another recipe or for another layout.
    """
    if not file.exists():
        return
    with closing(CollectionPersistence(str(file.parent))) as storage:
        points = list(islice(storage.load(), _NUM_CHECKED))
    sizes = (
        {"": recipe.dimensions} if layout.short is None else {"": recipe.dimensions, SHORT_VECTOR_NAME: layout.short}
    )
    for point in points:
        payload: dict[str, Any] = point.payload or {}
        vectors: Any = point.vector if isinstance(point.vector, dict) else {"": point.vector}
        reason = ""
        if {name: len(vector) for name, vector in vectors.items() if name != TEXT_VECTOR_NAME} != sizes:
            reason = "their vectors have other names or sizes"
        elif point.id != tenant_point_id(Document.from_payload(payload), recipe, payload.get(TENANT_KEY)):
            reason = "another model, or other settings, made them"
        if reason:
            raise StoreError(
                f"{file.parent} still has points of a collection that meta.json does not name any more, and they do "
                f"not fit the new one: {reason}. Use the model, settings and layout that made them, or another "
                "collection name, or move the folder away"
            )
    if points:
        logger.warning("%s: the points that are still there are taken over into the new collection", file.parent)
