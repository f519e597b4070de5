"""Conversion of queries by example, with MMR, and without a vector, from qdrant-client's models to Qdrant Edge's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

_DEFAULT_DIVERSITY = 0.5
_DIRECTIONS = {models.Direction.ASC: edge.Direction.Asc, models.Direction.DESC: edge.Direction.Desc}


def to_example_query(query: Any, using: str | None, limit: int, to_vector: Callable[[Any], Any]) -> Any:
    """Convert a query with MMR, or a recommend, discover, context, order-by or sample query.

    Args:
        query: The query.
        using: Name of the vector.
        limit: Number of hits that are requested.
        to_vector: Returns the vector of an example in Edge's form. An example is a point's id or a vector.

    Returns:
        The query in Edge's form.

    Raises:
        NotImplementedError: The query is of another type, which needs a Qdrant server.
        ValueError: A recommendation by the average vector has no positive example, or a vector that is not dense.
    """
    match query:
        case models.NearestQuery(mmr=models.Mmr() as mmr):
            diversity = _DEFAULT_DIVERSITY if mmr.diversity is None else mmr.diversity
            return edge.Mmr(to_vector(query.nearest), 1 - diversity, mmr.candidates_limit or limit, using=using)
        case models.RecommendQuery():
            return _recommend(query.recommend, using, to_vector)
        case models.DiscoverQuery():
            pairs = _pairs(query.discover.context, to_vector)
            return edge.Query.Discover(edge.DiscoverQuery(to_vector(query.discover.target), pairs), using=using)
        case models.ContextQuery():
            return edge.Query.Context(edge.ContextQuery(_pairs(query.context, to_vector)), using=using)
        case models.OrderByQuery():
            return to_edge_order(query.order_by)
        case models.SampleQuery():
            return edge.Sample.Random
    raise NotImplementedError(f"a folder has no query of type {type(query).__name__}: use a Qdrant server")


def to_edge_order(order_by: Any) -> edge.OrderBy | None:
    """Convert an order by a payload key, which needs a payload index of numbers or datetimes."""
    if order_by is None:
        return None
    if isinstance(order_by, str):
        return edge.OrderBy(order_by)
    start: Any = order_by.start_from
    direction = order_by.direction and _DIRECTIONS[order_by.direction]
    return edge.OrderBy(order_by.key, direction, start.isoformat() if hasattr(start, "isoformat") else start)


def without_examples(query_filter: models.Filter | None, query: Any) -> models.Filter | None:
    """Return a filter that also leaves out the points that a query names as examples, as a server does."""
    ids = [example for example in _examples(query) if isinstance(example, (int, str, UUID))]
    if not ids:
        return query_filter
    others = models.HasIdCondition.model_construct(has_id=ids)
    return models.Filter.model_construct(must=None if query_filter is None else [query_filter], must_not=[others])


def _examples(query: Any) -> list[Any]:
    match query:
        case models.NearestQuery():
            return [query.nearest]
        case models.RecommendQuery():
            return [*(query.recommend.positive or []), *(query.recommend.negative or [])]
        case models.DiscoverQuery():
            return [query.discover.target, *_examples(models.ContextQuery(context=query.discover.context))]
        case models.ContextQuery():
            return [example for pair in _as_list(query.context) for example in (pair.positive, pair.negative)]
    return [query]


def _recommend(recommend: models.RecommendInput, using: str | None, to_vector: Callable[[Any], Any]) -> Any:
    positives = [to_vector(example) for example in recommend.positive or []]
    negatives = [to_vector(example) for example in recommend.negative or []]
    match recommend.strategy:
        case models.RecommendStrategy.BEST_SCORE:
            return edge.Query.RecommendBestScore(edge.RecommendQuery(positives, negatives), using=using)
        case models.RecommendStrategy.SUM_SCORES:
            return edge.Query.RecommendSumScores(edge.RecommendQuery(positives, negatives), using=using)
    if not positives or not all(isinstance(vector, list) for vector in positives + negatives):
        raise ValueError(
            "a recommendation by the average vector needs a positive example, and dense vectors: use the strategy "
            "best_score or sum_scores"
        )
    target = np.mean(positives, axis=0)
    if negatives:
        target = 2 * target - np.mean(negatives, axis=0)
    return edge.Query.Nearest(target.tolist(), using=using)


def _pairs(context: Any, to_vector: Callable[[Any], Any]) -> list[edge.ContextPair]:
    return [edge.ContextPair(to_vector(pair.positive), to_vector(pair.negative)) for pair in _as_list(context)]


def _as_list(context: Any) -> list[models.ContextPair]:
    return context if isinstance(context, list) else [] if context is None else [context]
