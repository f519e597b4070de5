"""The methods of a `QdrantClient` that change points, implemented with Qdrant Edge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import islice, repeat
from typing import Any
from uuid import uuid4

import qdrant_edge as edge
from qdrant_client import models

from qwen3vl.stores import StopIndexing, indexing_progress
from qwen3vl_qdrant.edge.collections_backend import CollectionsBackend, refuse
from qwen3vl_qdrant.edge.filters import to_edge_filter
from qwen3vl_qdrant.edge.indexing import IndexBuildError
from qwen3vl_qdrant.edge.queries import refuse_shard_key, to_edge_point, to_edge_vector

log = logging.getLogger(__name__)
MIN_INDEXED_POINTS = 20_000
"""Writing builds the index once this many points, and at least half of all points, are not in it."""
_UPLOAD_OPTIONS = {"parallel", "method", "max_retries"}
"""Arguments of uploads that are accepted and have no effect: they concern requests to a server."""
_UPDATE_MODES = {
    models.UpdateMode.UPSERT: edge.UpdateMode.Upsert,
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}


class PointsBackend(CollectionsBackend):
    """The methods that change points; see `CollectionsBackend`."""

    def upsert(
        self,
        collection_name: str,
        points: Any,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Write points, and build the index if many are new."""
        refuse(kwargs)
        result = self._upsert(collection_name, points, update_filter, update_mode)
        self.finish_writes(collection_name)
        return result

    def _upsert(
        self,
        collection_name: str,
        points: Any,
        update_filter: models.Filter | None,
        update_mode: models.UpdateMode | None,
    ) -> models.UpdateResult:
        """Write points, and leave to a later `finish_writes` what it does, as `write` does."""
        operation = edge.UpdateOperation.upsert_points(
            [to_edge_point(point) for point in _point_structs(points)],
            condition=to_edge_filter(update_filter),
            update_mode=None if update_mode is None else _UPDATE_MODES[update_mode],
        )
        return self.update(collection_name, operation, flush=False)

    def write(self, collection_name: str, points: Iterable[tuple[Any, Any, dict[str, Any]]]) -> None:
        """Write points from their ids, vectors and payloads.

        Writing to the disk and the index are left to a later `finish_writes`: until then the points survive the end of
        the process, but not a power cut. `upsert` takes models of pydantic, and making them takes a tenth of the time
        of a write.
        """
        converted = [edge.Point(point_id, to_edge_vector(vector), payload) for point_id, vector, payload in points]
        self.update(collection_name, edge.UpdateOperation.upsert_points(converted), flush=False)

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[Any],
        batch_size: int = 64,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> None:
        """Write any number of points; they are on the disk at the end."""
        refuse(kwargs, _UPLOAD_OPTIONS)
        remaining = iter(points)
        while batch := list(islice(remaining, batch_size)):
            self._upsert(collection_name, batch, update_filter, update_mode)
        self.finish_writes(collection_name)

    def upload_collection(
        self,
        collection_name: str,
        vectors: Any,
        payload: Iterable[dict[Any, Any]] | None = None,
        ids: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write any number of points from their vectors, payloads and ids; without ids, they get random UUIDs."""
        points = (
            models.PointStruct.model_construct(id=point_id, vector=vector, payload=point_payload)
            for point_id, vector, point_payload in zip(
                iter(lambda: str(uuid4()), None) if ids is None else ids,
                _rows(vectors),
                repeat(None) if payload is None else payload,
                strict=False,
            )
        )
        self.upload_points(collection_name, points, **kwargs)

    def update_vectors(
        self, collection_name: str, points: Any, update_filter: models.Filter | None = None, **kwargs: Any
    ) -> models.UpdateResult:
        """Replace vectors of points; their other vectors and payloads remain."""
        refuse(kwargs)
        vectors = [edge.PointVectors(point.id, to_edge_vector(point.vector)) for point in points]
        return self.update(
            collection_name, edge.UpdateOperation.update_vectors(vectors, condition=to_edge_filter(update_filter))
        )

    def delete_vectors(self, collection_name: str, vectors: Any, points: Any, **kwargs: Any) -> models.UpdateResult:
        """Delete vectors of points by their names."""
        refuse(kwargs)
        return self._update_selected(collection_name, "delete_vectors", points, list(vectors))

    def delete(self, collection_name: str, points_selector: Any, **kwargs: Any) -> models.UpdateResult:
        """Delete points by ids or by a filter."""
        refuse(kwargs)
        collection = self.folder.open(collection_name)
        ids, edge_filter = _selected(points_selector)
        num_deleted = len(ids)
        if edge_filter is not None:
            num_deleted = collection.call("count", edge.CountRequest(exact=False, filter=edge_filter))
        result = self._update_selected(collection_name, "delete_points", points_selector)
        collection.count_deleted(num_deleted)
        return result

    def set_payload(
        self, collection_name: str, payload: Any, points: Any, key: str | None = None, **kwargs: Any
    ) -> models.UpdateResult:
        """Set keys of payloads, at their top or below `key`; other keys remain."""
        refuse(kwargs)
        return self._update_selected(collection_name, "set_payload", points, payload, key)

    def overwrite_payload(self, collection_name: str, payload: Any, points: Any, **kwargs: Any) -> models.UpdateResult:
        """Replace payloads."""
        refuse(kwargs)
        return self._update_selected(collection_name, "overwrite_payload", points, payload)

    def delete_payload(self, collection_name: str, keys: Any, points: Any, **kwargs: Any) -> models.UpdateResult:
        """Delete keys of payloads."""
        refuse(kwargs)
        return self._update_selected(collection_name, "delete_payload", points, list(keys))

    def clear_payload(self, collection_name: str, points_selector: Any, **kwargs: Any) -> models.UpdateResult:
        """Delete payloads."""
        refuse(kwargs)
        return self._update_selected(collection_name, "clear_payload", points_selector)

    def finish_writes(self, collection_name: str) -> None:
        """Write all points to the disk, and build the index if many are new (see `MIN_INDEXED_POINTS`).

        If it cannot be built, that is logged, and `on_indexing` can end it: the points are stored.
        """
        collection = self.folder.open(collection_name)
        collection.sync()
        num_points = int(collection.call("info").points_count)
        try:
            self.build_index(collection_name, indexing_progress(), min_points=max(MIN_INDEXED_POINTS, num_points // 2))
        except StopIndexing:
            pass
        except IndexBuildError as error:
            log.warning("the points of the collection %r in %s are stored: %s", collection_name, self.location, error)

    def build_index(
        self, collection_name: str, progress: Callable[[float], None] | None = None, *, min_points: int = 0
    ) -> bool:
        """Index new points; see `EdgeCollection.build_index`."""
        self.check_writable()
        return self.folder.open(collection_name).build_index(progress, min_points=min_points)

    def _update_selected(self, collection_name: str, name: str, selector: Any, *args: Any) -> models.UpdateResult:
        """Apply an operation of Edge to the points of a selector; Edge has one for ids and another one for filters."""
        ids, edge_filter = _selected(selector)
        operations: Any = edge.UpdateOperation
        if edge_filter is None:
            return self.update(collection_name, getattr(operations, name)(ids, *args))
        return self.update(collection_name, getattr(operations, f"{name}_by_filter")(edge_filter, *args))


def _point_structs(points: Any) -> list[Any]:
    if not isinstance(points, models.Batch):
        return list(points)
    payloads: list[Any] = list(points.payloads) if points.payloads else [None] * len(points.ids)
    return [
        models.PointStruct.model_construct(id=point_id, vector=vector, payload=payload)
        for point_id, vector, payload in zip(points.ids, _rows(points.vectors), payloads, strict=True)
    ]


def _rows(vectors: Any) -> Iterable[Any]:
    """Return the vectors point by point. `vectors` has them like that, or as all points' vectors by vector name."""
    if isinstance(vectors, dict):
        return (dict(zip(vectors, row, strict=True)) for row in zip(*vectors.values(), strict=True))
    rows: Iterable[Any] = vectors
    return rows


def _selected(selector: Any) -> tuple[list[Any], edge.Filter | None]:
    """Return the ids of a selector, or its filter."""
    if isinstance(selector, (models.PointIdsList, models.FilterSelector)):
        refuse_shard_key(selector)
    match selector:
        case models.PointIdsList():
            return list(selector.points), None
        case models.FilterSelector():
            return [], to_edge_filter(selector.filter)
        case models.Filter():
            return [], to_edge_filter(selector)
    return list(selector), None
