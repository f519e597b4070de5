"""What a `QdrantClient` calls, over a folder of Qdrant Edge."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.client_base import QdrantBase
from qdrant_client.http.models import QueryResponse

from qwen3vl.errors import StoreError
from qwen3vl_qdrant.edge.collection import EdgeCollection
from qwen3vl_qdrant.edge.configs import DEFAULT_HNSW, schema_name, to_edge_config, to_edge_schema
from qwen3vl_qdrant.edge.filters import to_edge_filter
from qwen3vl_qdrant.edge.folder import EdgeFolder, acquire_folder, release_folder
from qwen3vl_qdrant.edge.groups import find_groups
from qwen3vl_qdrant.edge.queries import (
    to_edge_point,
    to_edge_request,
    to_edge_selector,
    to_id,
    to_record,
    to_scored_point,
)

_COMPLETED = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
_IGNORED = frozenset({"wait", "ordering", "timeout", "consistency", "grpc_grace", "read_consistency"})
"""Arguments without a meaning for an engine in this process."""


class EdgeBackend(QdrantBase):  # type: ignore[misc]
    """The methods of a `QdrantClient` over one folder. Any number of threads may use one object at once.

    Changes are on the disk when a method returns: they outlive a power cut.

    Args:
        location: The folder; it is created if it does not exist.

    Attributes:
        location: As passed.

    Raises:
        StoreError: Another process has the folder open, or it cannot be read.
    """

    def __init__(self, location: Path) -> None:
        super().__init__()
        self.location = location
        self._folder: EdgeFolder | None = acquire_folder(location)
        self._release = weakref.finalize(self, release_folder, self._folder)

    @property
    def folder(self) -> EdgeFolder:
        """The open folder.

        Raises:
            RuntimeError: This object is closed.
        """
        if self._folder is None:
            raise RuntimeError(f"the store in {self.location} is closed")
        return self._folder

    def close(self, **_: Any) -> None:
        """Close the folder, unless others in this process use it. Later calls of other methods fail."""
        self._folder = None
        self._release()

    # Collections.

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        """Return whether there is a collection of this name."""
        _refuse(kwargs)
        return self.folder.exists(collection_name)

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        """Return the names of the collections."""
        _refuse(kwargs)
        names = self.folder.names()
        return models.CollectionsResponse(collections=[models.CollectionDescription(name=name) for name in names])

    def create_collection(
        self,
        collection_name: str,
        vectors_config: Any = None,
        sparse_vectors_config: Any = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        quantization_config: Any = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Create a collection with dense and sparse vectors. `ValueError` if it exists."""
        _refuse(kwargs, {"on_disk_payload", "optimizers_config", "wal_config", "shard_number", "replication_factor"})
        description = models.CreateCollection(
            vectors=vectors_config,
            sparse_vectors=sparse_vectors_config,
            hnsw_config=hnsw_config,
            quantization_config=quantization_config,
            metadata=metadata,
        )
        self._check_writable()
        to_edge_config(description)
        self.folder.create(collection_name, description)
        return True

    def delete_collection(self, collection_name: str, **kwargs: Any) -> bool:
        """Delete a collection with its points; false if there is none."""
        _refuse(kwargs)
        self._check_writable()
        return self.folder.delete(collection_name)

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Return the description and the state of a collection."""
        _refuse(kwargs)
        collection = self.folder.open(collection_name)
        description = collection.description
        info = collection.call("info")
        hnsw = description.hnsw_config.model_dump(exclude_none=True) if description.hnsw_config else {}
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            points_count=info.points_count,
            indexed_vectors_count=info.indexed_vectors_count,
            segments_count=info.segments_count,
            payload_schema={
                key: models.PayloadIndexInfo(data_type=schema_name(index.data_type), points=index.points)
                for key, index in info.payload_schema.items()
            },
            config=models.CollectionConfig(
                params=models.CollectionParams(vectors=description.vectors, sparse_vectors=description.sparse_vectors),
                hnsw_config=DEFAULT_HNSW.model_copy(update=hnsw),
                optimizer_config=models.OptimizersConfig(
                    deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=0
                ),
                quantization_config=description.quantization_config,
                metadata=description.metadata,
            ),
        )

    def create_payload_index(
        self, collection_name: str, field_name: str, field_schema: Any = None, field_type: Any = None, **kwargs: Any
    ) -> models.UpdateResult:
        """Index a key of the payload."""
        _refuse(kwargs)
        schema = to_edge_schema(field_schema if field_schema is not None else field_type)
        return self._update(collection_name, edge.UpdateOperation.create_field_index(field_name, schema))

    def delete_payload_index(self, collection_name: str, field_name: str, **kwargs: Any) -> models.UpdateResult:
        """Remove the index of a key of the payload."""
        _refuse(kwargs)
        return self._update(collection_name, edge.UpdateOperation.delete_field_index(field_name))

    # Points.

    def upsert(self, collection_name: str, points: Any, **kwargs: Any) -> models.UpdateResult:
        """Write points, replacing those with the same ids."""
        _refuse(kwargs)
        edge_points = [to_edge_point(point) for point in _point_structs(points)]
        return self._update(collection_name, edge.UpdateOperation.upsert_points(edge_points))

    def delete(self, collection_name: str, points_selector: Any, **kwargs: Any) -> models.UpdateResult:
        """Delete points by ids or by a filter."""
        _refuse(kwargs)
        ids, edge_filter = _selected(points_selector)
        collection = self.folder.open(collection_name)
        if edge_filter is None:
            operation = edge.UpdateOperation.delete_points(ids)
            num_deleted = len(ids)
        else:
            operation = edge.UpdateOperation.delete_points_by_filter(edge_filter)
            num_deleted = collection.call("count", edge.CountRequest(exact=False, filter=edge_filter))
        result = self._update(collection_name, operation)
        collection.count_deleted(num_deleted)
        return result

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> list[models.Record]:
        """Return those of the points that exist."""
        _refuse(kwargs)
        collection = self.folder.open(collection_name)
        records = collection.call("retrieve", list(ids), to_edge_selector(with_payload), with_vectors)
        return [to_record(record) for record in records]

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        order_by: Any = None,
        offset: Any = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> tuple[list[models.Record], Any]:
        """Return a page of points in the order of their ids, and the id at which the next one begins."""
        _refuse({**kwargs, "order_by": order_by})
        request = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=to_edge_filter(scroll_filter),
            with_payload=to_edge_selector(with_payload),
            with_vector=with_vectors,
        )
        records, next_offset = self.folder.open(collection_name).call("scroll", request)
        return [to_record(record) for record in records], None if next_offset is None else to_id(next_offset)

    def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True, **kwargs: Any
    ) -> models.CountResult:
        """Return the number of points that match a filter."""
        _refuse(kwargs)
        request = edge.CountRequest(exact=exact, filter=to_edge_filter(count_filter))
        return models.CountResult(count=self.folder.open(collection_name).call("count", request))

    # Searches.

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **kwargs: Any
    ) -> list[QueryResponse]:
        """Run several queries."""
        _refuse(kwargs)
        collection = self.folder.open(collection_name)
        to_vector = partial(_vector_of, collection)
        queries = [to_edge_request(request, to_vector) for request in requests]
        results = collection.call("query_batch", edge.QueryBatchRequest(queries)) if queries else []
        return [
            QueryResponse.model_construct(points=[to_scored_point(point) for point in points]) for points in results
        ]

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> QueryResponse:
        """Run one query."""
        names = ("using", "prefetch", "limit", "offset", "score_threshold", "lookup_from")
        options = {name: kwargs.pop(name) for name in names if kwargs.get(name) is not None}
        _refuse(kwargs)
        request = models.QueryRequest.model_construct(
            query=query,
            filter=query_filter,
            params=search_params,
            with_payload=with_payload,
            with_vector=with_vectors,
            **options,
        )
        return self.query_batch_points(collection_name, [request])[0]

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        limit: int = 10,
        group_size: int = 3,
        query_filter: models.Filter | None = None,
        with_payload: Any = True,
        **kwargs: Any,
    ) -> models.GroupsResult:
        """Return the best points of each value of a key; points without the key are left out."""
        if kwargs.pop("with_lookup", None) is not None:
            raise NotImplementedError("a folder has no groups with points of other collections: use a server")

        def search(extra: models.Filter | None, num_hits: int) -> list[models.ScoredPoint]:
            conditions = [condition for condition in (query_filter, extra) if condition is not None]
            both = models.Filter(must=conditions) if conditions else None
            options = {**kwargs, "query_filter": both, "limit": num_hits, "with_payload": True}
            return list(self.query_points(collection_name, **options).points)

        groups = find_groups(search, group_by, limit, group_size)
        if with_payload is False:
            for group in groups:
                group.hits = [hit.model_copy(update={"payload": None}) for hit in group.hits]
        return models.GroupsResult(groups=groups)

    def build_index(
        self, collection_name: str, progress: Callable[[float], None] | None = None, *, min_points: int = 0
    ) -> bool:
        """Index new points; see `EdgeCollection.build_index`."""
        self._check_writable()
        return self.folder.open(collection_name).build_index(progress, min_points=min_points)

    def _update(self, collection_name: str, operation: edge.UpdateOperation) -> models.UpdateResult:
        self._check_writable()
        collection = self.folder.open(collection_name)
        collection.update(operation)
        collection.flush()
        return _COMPLETED

    def _check_writable(self) -> None:
        if self.folder.is_read_only:
            raise StoreError(
                f"{self.location} cannot be written by this process: make the folder and its files writable"
            )


def _refuse(options: dict[str, Any], ignored: set[str] | None = None) -> None:
    """Raise an error for options that change what a call means, and that Edge does not have."""
    for name, value in options.items():
        if value is not None and name not in _IGNORED and name not in (ignored or ()):
            raise NotImplementedError(f"a folder does not support the argument {name}: leave it out, or use a server")


def _point_structs(points: Any) -> list[Any]:
    if not isinstance(points, models.Batch):
        return list(points)
    payloads = points.payloads or [None] * len(points.ids)
    if isinstance(points.vectors, dict):
        names, columns = list(points.vectors), zip(*points.vectors.values(), strict=True)
        vectors: list[Any] = [dict(zip(names, column, strict=True)) for column in columns]
    else:
        vectors = list(points.vectors)
    return [
        models.PointStruct.model_construct(id=point_id, vector=vector, payload=payload)
        for point_id, vector, payload in zip(points.ids, vectors, payloads, strict=True)
    ]


def _selected(selector: Any) -> tuple[list[Any], edge.Filter | None]:
    """Return the ids of a selector, or its filter."""
    match selector:
        case models.PointIdsList():
            return list(selector.points), None
        case models.FilterSelector():
            return [], to_edge_filter(selector.filter)
        case models.Filter():
            return [], to_edge_filter(selector)
    return list(selector), None


def _vector_of(collection: EdgeCollection, point_id: Any, using: str | None) -> Any:
    records = collection.call("retrieve", [point_id], False, [using or ""])
    if not records:
        raise ValueError(f"there is no point {point_id} whose vector could be searched for")
    vector = records[0].vector
    return vector[using or ""] if isinstance(vector, dict) else vector
