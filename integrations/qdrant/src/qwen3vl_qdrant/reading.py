"""What a core reads of a Qdrant collection by id and in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from qwen3vl.documents import Document
from qwen3vl.stores import Point, PointRef, StoreCore, StoredPoint, Vector
from qwen3vl.stores.types import POINT_REF_KEYS
from qwen3vl_qdrant.filters import TENANT_KEY

_SCAN_PAGE_POINTS = 1000
_MAX_ID_DIGITS, _MAX_ID = 20, 2**64 - 1
"""The largest id that is a number. A UUID without hyphens has more digits."""


class QdrantReader(StoreCore):
    """The methods of `QdrantCore` that read points without a search."""

    async def fetch_ids(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that the tenant has stored."""
        return {str(record.id) for record in await self._retrieve(ids, with_vectors=False)}

    async def fetch_vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the full vectors, (dimensions,) float32, of those of the ids that the tenant has stored."""
        return {str(record.id): _full_vector(record) for record in await self._retrieve(ids, with_vectors=[""])}

    async def fetch_points(self, ids: Sequence[str]) -> list[StoredPoint]:
        """Return those of the ids that the tenant has stored, with full vectors and payloads.

        What a layout adds, such as short vectors, is not read: a store computes it when it writes a point.
        """
        records = await self._retrieve(ids, with_vectors=[""], with_payload=True)
        return [_stored_point(record, record.payload or {}, self.database) for record in records]

    async def _retrieve(
        self, ids: Sequence[str], *, with_vectors: bool | list[str], with_payload: bool = False
    ) -> list[models.Record]:
        """Return the stored records of the ids, without those of other tenants, in one request."""
        records = await self.request(
            self.client.retrieve,
            self.collection,
            engine_ids(ids),
            with_payload=with_payload or (False if self.tenant is None else [TENANT_KEY]),
            with_vectors=with_vectors,
        )
        if self.tenant is None:
            return list(records)
        return [record for record in records if (record.payload or {}).get(TENANT_KEY) == self.tenant]

    async def scan_page(self, native_filter: Any, offset: Any) -> tuple[list[PointRef], Any]:
        """Return a page of the points that match, and the id at which the next page begins (None at the end)."""
        records, next_offset = await self.request(
            self.client.scroll,
            self.collection,
            scroll_filter=native_filter,
            limit=_SCAN_PAGE_POINTS,
            offset=offset,
            with_payload=[f"metadata.{key}" for key in POINT_REF_KEYS],
            with_vectors=False,
        )
        points = [
            PointRef.from_metadata(str(record.id), (record.payload or {}).get("metadata") or {}) for record in records
        ]
        return points, next_offset


def engine_ids(ids: Sequence[str]) -> list[int | str]:
    """Return ids in Qdrant's form. Points of others may have a number as their id, which is text everywhere else.

    Args:
        ids: UUIDs, and numbers as text.

    Returns:
        The same with numbers as int.
    """
    return [int(point_id) if _is_number(point_id) else point_id for point_id in ids]


def _is_number(point_id: str) -> bool:
    if len(point_id) > _MAX_ID_DIGITS or not (point_id.isascii() and point_id.isdecimal()):
        return False
    return str(int(point_id)) == point_id and int(point_id) <= _MAX_ID  # "007" is another id than "7"


def ids_to_write(points: Sequence[Point]) -> list[int | str]:
    """Return the ids of points that are written in one request, in Qdrant's form.

    Args:
        points: The points, all of which were read from another store, or none.

    Returns:
        Their ids.
    """
    ids = [point.id for point in points]
    return engine_ids(ids) if isinstance(points[0], StoredPoint) else [*ids]  # others are UUIDs, which we have made


def _full_vector(record: models.Record) -> Vector:
    vector: Any = record.vector
    return np.asarray(vector[""] if isinstance(vector, dict) else vector, dtype=np.float32)


def _stored_point(record: models.Record, payload: dict[str, Any], database: str) -> StoredPoint:
    document, tenant = Document.from_payload(payload), payload.get(TENANT_KEY)
    return StoredPoint(str(record.id), _full_vector(record), document, tenant, database, payload)
