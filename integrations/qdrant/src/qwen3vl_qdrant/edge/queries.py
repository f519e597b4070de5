"""Conversion of queries and points from qdrant-client's models to Qdrant Edge's classes, and of results back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from qwen3vl_qdrant.edge.example_queries import to_example_query, without_examples
from qwen3vl_qdrant.edge.filters import to_edge_filter

ToVector = Callable[[Any, "str | None"], Any]
"""Returns the vector of a point, given the point's id and the vector's name."""


def to_edge_request(request: models.QueryRequest, to_vector: ToVector) -> edge.QueryRequest:
    """Convert a query.

    Args:
        request: The query.
        to_vector: Returns the vector of a point that the query has as an example.

    Returns:
        The query in Edge's form.

    Raises:
        NotImplementedError: The query needs something that Edge does not have.
    """
    _refuse_lookup(request)
    refuse_shard_key(request)
    return edge.QueryRequest(
        limit=10 if request.limit is None else request.limit,
        offset=request.offset,
        query=_query(request, to_vector),
        prefetches=_prefetches(request.prefetch, to_vector),
        with_vector=request.with_vector if request.with_vector is not None else False,
        with_payload=to_edge_selector(request.with_payload if request.with_payload is not None else False),
        filter=to_edge_filter(without_examples(request.filter, request.query)),
        score_threshold=request.score_threshold,
        params=_search_params(request.params),
    )


def to_edge_selector(with_payload: Any) -> Any:
    """Convert `with_payload`, which says what of a payload is returned."""
    match with_payload:
        case models.PayloadSelectorInclude():
            return edge.PayloadSelector.Include(keys=with_payload.include)
        case models.PayloadSelectorExclude():
            return edge.PayloadSelector.Exclude(keys=with_payload.exclude)
        case bool() | None:
            return with_payload
    return list(with_payload)


def to_edge_point(point: models.PointStruct) -> edge.Point:
    """Convert a point that is to be written."""
    return edge.Point(point.id, to_edge_vector(point.vector), point.payload or {})


def to_edge_vector(vector: Any) -> Any:
    """Convert a vector, or vectors by name."""
    if isinstance(vector, dict):
        return {name: to_edge_vector(value) for name, value in vector.items()}
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(vector.indices, vector.values)
    if not isinstance(vector, np.ndarray):
        return vector
    # Edge's bindings (PyO3) read any sequence of floats. A view makes one float of Python after the other, an array
    # slower ones of NumPy, and a list has to be made first.
    return vector.astype(np.float32, copy=False).data if vector.ndim == 1 else vector.tolist()


def to_record(record: edge.Record) -> models.Record:
    """Return a stored point in qdrant-client's form."""
    # Without validation, which is slow: Edge's values are valid.
    return models.Record.model_construct(
        id=to_id(record.id),
        payload=record.payload,
        vector=_from_edge_vector(record.vector),
        order_value=record.order_value,
    )


def to_scored_point(point: edge.ScoredPoint) -> models.ScoredPoint:
    """Return a hit in qdrant-client's form."""
    return models.ScoredPoint.model_construct(
        id=to_id(point.id),
        version=point.version,
        score=point.score,
        payload=point.payload,
        vector=_from_edge_vector(point.vector),
    )


def to_id(point_id: Any) -> int | str:
    """Return a point's id in qdrant-client's form."""
    return point_id if isinstance(point_id, int) else str(point_id)


def _from_edge_vector(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: _from_edge_vector(value) for name, value in vector.items()}
    if isinstance(vector, edge.SparseVector):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector


def _prefetches(prefetch: Any, to_vector: ToVector) -> list[edge.Prefetch] | None:
    if prefetch is None:
        return None
    return [_prefetch(stage, to_vector) for stage in (prefetch if isinstance(prefetch, list) else [prefetch])]


def _prefetch(stage: models.Prefetch, to_vector: ToVector) -> edge.Prefetch:
    _refuse_lookup(stage)
    return edge.Prefetch(
        limit=10 if stage.limit is None else stage.limit,
        query=_query(stage, to_vector),
        prefetches=_prefetches(stage.prefetch, to_vector),
        params=_search_params(stage.params),
        filter=to_edge_filter(without_examples(stage.filter, stage.query)),
        score_threshold=stage.score_threshold,
    )


def _query(request: models.QueryRequest | models.Prefetch, to_vector: ToVector) -> Any:
    query: Any = request.query
    using = request.using
    if isinstance(query, models.NearestQuery) and query.mmr is None:
        query = query.nearest
    match query:
        case None:
            return None
        case int() | str() | UUID():
            return edge.Query.Nearest(to_vector(query, using), using=using)
        case list() | np.ndarray() | models.SparseVector():
            return edge.Query.Nearest(to_edge_vector(query), using=using)
        case models.FusionQuery():
            return edge.Fusion.Rrf(k=2) if query.fusion == models.Fusion.RRF else edge.Fusion.Dbsf()
        case models.RrfQuery():
            return edge.Fusion.Rrf(k=query.rrf.k or 2, weights=query.rrf.weights)

    def vector_of(example: Any) -> Any:
        return to_vector(example, using) if isinstance(example, (int, str, UUID)) else to_edge_vector(example)

    return to_example_query(query, using, 10 if request.limit is None else request.limit, vector_of)


def _search_params(params: models.SearchParams | None) -> edge.SearchParams | None:
    if params is None:
        return None
    quantization: Any = params.quantization and edge.QuantizationSearchParams(
        ignore=bool(params.quantization.ignore),
        rescore=params.quantization.rescore,
        oversampling=params.quantization.oversampling,
    )
    acorn: Any = params.acorn and edge.AcornSearchParams(bool(params.acorn.enable), params.acorn.max_selectivity)
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef,
        exact=bool(params.exact),
        indexed_only=bool(params.indexed_only),
        quantization=quantization or None,
        acorn=acorn or None,
        idf=_idf(params.idf),
    )


def _idf(idf: Any) -> edge.IdfParams | None:
    """Convert the population of the rarity of words: the points of a filter, or, as by default, all."""
    return edge.IdfParams(to_edge_filter(idf.corpus)) if isinstance(idf, models.IdfCorpusParams) else None


def refuse_shard_key(request: Any) -> None:
    """Raise `NotImplementedError` if a query or a selector of points names shards."""
    if request.shard_key is not None:
        raise NotImplementedError("a folder has one shard, which has no key: leave shard_key out, or use a server")


def _refuse_lookup(request: models.QueryRequest | models.Prefetch) -> None:
    if request.lookup_from is not None:
        raise NotImplementedError("a folder has no queries by vectors of other collections (lookup_from): use a server")
