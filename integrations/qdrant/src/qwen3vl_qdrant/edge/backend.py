"""The methods of a `QdrantClient` that read and search points, implemented with Qdrant Edge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.http.models import QueryResponse

from qwen3vl_qdrant.edge.collection import EdgeCollection
from qwen3vl_qdrant.edge.collections_backend import refuse
from qwen3vl_qdrant.edge.example_queries import to_edge_order
from qwen3vl_qdrant.edge.filters import to_edge_filter
from qwen3vl_qdrant.edge.groups import find_groups
from qwen3vl_qdrant.edge.points_backend import PointsBackend
from qwen3vl_qdrant.edge.queries import (
    to_edge_request,
    to_edge_selector,
    to_id,
    to_record,
    to_scored_point,
)
from qwen3vl_qdrant.edge.refusals import refuse_missing


@refuse_missing
class EdgeBackend(PointsBackend):
    """The methods of a `QdrantClient` for the collections of one folder; see `CollectionsBackend`.

    Methods that a folder does not have raise `NotImplementedError`.
    """

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> list[models.Record]:
        """Return the points with these ids; ids without a point are left out."""
        refuse(kwargs)
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
        """Return a page of points, ordered by id, and the id at which the next page begins (None after the last one).

        With `order_by`, that id is always None: the order's `start_from` asks for the next page.
        """
        refuse(kwargs)
        request = edge.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=to_edge_filter(scroll_filter),
            with_payload=to_edge_selector(with_payload),
            with_vector=with_vectors,
            order_by=to_edge_order(order_by),
        )
        records, next_offset = self.folder.open(collection_name).call("scroll", request)
        return [to_record(record) for record in records], None if next_offset is None else to_id(next_offset)

    def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True, **kwargs: Any
    ) -> models.CountResult:
        """Return the number of points that match a filter."""
        refuse(kwargs)
        request = edge.CountRequest(exact=exact, filter=to_edge_filter(count_filter))
        return models.CountResult(count=self.folder.open(collection_name).call("count", request))

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: models.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
        **kwargs: Any,
    ) -> models.FacetResponse:
        """Return the values of a payload key, which needs a payload index, and the number of points of each value."""
        refuse(kwargs)
        request = edge.FacetRequest(key, limit=limit, exact=exact, filter=to_edge_filter(facet_filter))
        hits = self.folder.open(collection_name).call("facet", request).hits
        return models.FacetResponse(hits=[models.FacetValueHit(value=hit.value, count=hit.count) for hit in hits])

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **kwargs: Any
    ) -> list[QueryResponse]:
        """Run several queries."""
        refuse(kwargs)
        collection = self.folder.open(collection_name)
        to_vector = partial(_vector_of, collection)
        queries = [to_edge_request(request, to_vector) for request in requests]
        results = collection.call("query_batch", edge.QueryBatchRequest(queries)) if queries else []
        responses = [[to_scored_point(point) for point in points] for points in results]
        for request, points in zip(requests, responses, strict=True):
            if not request.with_vector:  # for MMR, Edge returns the vectors in any case
                for point in points:
                    point.vector = None
        return [QueryResponse.model_construct(points=points) for points in responses]

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        lookup_from: Any = None,
        **kwargs: Any,
    ) -> QueryResponse:
        """Run one query."""
        refuse(kwargs)
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vector=with_vectors,
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        return self.query_batch_points(collection_name, [request])[0]

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: Any = None,
        search_params: Any = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        with_lookup: Any = None,
        lookup_from: Any = None,
        **kwargs: Any,
    ) -> models.GroupsResult:
        """Return the best points of each value of a payload key."""
        refuse({**kwargs, "with_lookup": with_lookup})

        def search(extra: models.Filter, num_hits: int) -> list[models.ScoredPoint]:
            response = self.query_points(
                collection_name,
                query,
                using,
                prefetch,
                extra if query_filter is None else models.Filter(must=[query_filter, extra]),
                search_params,
                num_hits,
                with_payload=True,
                with_vectors=with_vectors,
                score_threshold=score_threshold,
                lookup_from=lookup_from,
            )
            return list(response.points)

        groups = find_groups(search, group_by, limit, group_size)
        if with_payload is not True:
            # Groups are found by whole payloads, so the selected parts are read at the end.
            hits = [hit for group in groups for hit in group.hits]
            selected = False if with_payload is None else with_payload
            records = self.retrieve(collection_name, [hit.id for hit in hits], selected)
            payloads = {record.id: record.payload for record in records}
            for hit in hits:
                hit.payload = payloads.get(hit.id)
        return models.GroupsResult(groups=groups)


def _vector_of(collection: EdgeCollection, point_id: Any, using: str | None) -> Any:
    records = collection.call("retrieve", [point_id], False, [using or ""])
    if not records:
        raise ValueError(f"there is no point {point_id} whose vector could be searched for")
    vector = records[0].vector
    return vector[using or ""] if isinstance(vector, dict) else vector
