"""Searches by words, and by words and vectors together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

from qwen3vl.documents import Document
from qwen3vl.stores import Hit, Search
from qwen3vl.stores.fusion import fuse, num_candidates
from qwen3vl.stores.types import MAX_GROUP_CANDIDATES
from qwen3vl_qdrant.filters import payload_path, to_filter
from qwen3vl_qdrant.layout import TEXT_VECTOR_NAME, Layout
from qwen3vl_qdrant.reading import engine_ids

if TYPE_CHECKING:  # it imports this module
    from qwen3vl_qdrant.core import QdrantCore

_GROWTH_FACTOR = 4
"""Factor by which the number of candidates grows until there are enough groups."""
Ranking = list[tuple[str, float]]
"""Ids and scores of points, best first."""


async def search_words(core: QdrantCore, layout: Layout, searches: Sequence[Search]) -> list[list[Hit]]:
    """Run searches in the modes `"text"` and `"hybrid"`.

    One request finds the ids of all candidates, which are fused here, and another one reads the documents of the hits.

    Args:
        core: The collection, with sparse vectors.
        layout: Its layout.
        searches: The searches.

    Returns:
        The hits of each search, best first.
    """
    if any(search.group_by is not None for search in searches):
        pages = [page for search in searches for page in await _find(core, layout, [search])]
    else:
        pages = await _find(core, layout, searches)
    return await read_hits(core, pages)


async def read_hits(core: QdrantCore, pages: Sequence[Ranking]) -> list[list[Hit]]:
    """Read the documents of found points in one request.

    Args:
        core: The collection.
        pages: The points of each search.

    Returns:
        The hits of each search in the same order. Points that were deleted meanwhile are left out.
    """
    ids = list(dict.fromkeys(point_id for page in pages for point_id, _ in page))
    native_ids = engine_ids(ids)
    records = await core.request(core.client.retrieve, core.collection, native_ids, with_payload=True) if ids else []
    documents = {str(record.id): Document.from_payload(record.payload or {}) for record in records}
    return [
        [Hit(point_id, documents[point_id], score) for point_id, score in page if point_id in documents]
        for page in pages
    ]


async def _find(core: QdrantCore, layout: Layout, searches: Sequence[Search]) -> list[Ranking]:
    """Return the requested page of hits of each search.

    A search with `group_by` is passed alone, and is repeated with more candidates until there are enough groups, or
    `MAX_GROUP_CANDIDATES` candidates.
    """
    factor = 1
    while True:
        first_counts = [num_candidates(search.limit + search.offset) for search in searches]
        counts = [max(count, min(factor * count, MAX_GROUP_CANDIDATES)) for count in first_counts]
        requests = [_requests(core, layout, search, count) for search, count in zip(searches, counts, strict=True)]
        batch = [request for own in requests for _, request in own]
        responses = iter(await core.request(core.client.query_batch_points, core.collection, batch) if batch else [])
        pages, is_complete = [], True
        for search, own, count in zip(searches, requests, counts, strict=True):
            found = [next(responses).points for _ in own]
            ranking = _rank(search, found, [share for share, _ in own], count)
            if search.group_by is not None:
                ranking = _best_per_group(ranking, found, payload_path(search.group_by))
                is_complete = (
                    len(ranking) >= search.offset + search.limit
                    or all(len(part) < count for part in found)
                    or count >= MAX_GROUP_CANDIDATES
                )
            pages.append(ranking[search.offset : search.offset + search.limit])
        if is_complete:
            return pages
        factor *= _GROWTH_FACTOR


def _requests(core: QdrantCore, layout: Layout, search: Search, count: int) -> list[tuple[float, models.QueryRequest]]:
    """Return the requests for a search's candidates, by vectors and by words, with their weights in the score.

    Requests with the weight 0 are left out, and so is the one by words if only stop words are searched for.
    """
    query_filter = to_filter(search.where, core.tenant)
    with_payload: Any = False if search.group_by is None else [payload_path(search.group_by)]
    share = search.alpha if search.mode == "hybrid" else 0.0
    requests = []
    if share > 0:
        arguments = core.query_arguments(replace(search, limit=count, offset=0), layout)
        requests.append((share, core.to_query(**arguments, with_payload=with_payload)))
    words = layout.bm25.embed_query(search.text) if layout.bm25 is not None and share < 1 else None
    if words is not None and words.indices:
        arguments = {"query": words, "using": TEXT_VECTOR_NAME, "limit": count, "filter": query_filter}
        requests.append((1 - share, core.to_query(**arguments, with_payload=with_payload)))
    return requests


def _rank(search: Search, found: Sequence[Sequence[Any]], shares: Sequence[float], count: int) -> Ranking:
    rankings = [[(str(point.id), float(point.score)) for point in points] for points in found]
    if search.mode == "hybrid":
        return fuse(rankings, shares, count)
    # Points with equal scores in the order of their ids, so that pages do not overlap.
    return sorted((pair for ranking in rankings for pair in ranking), key=lambda pair: (-pair[1], pair[0]))


def _best_per_group(ranking: Ranking, found: Sequence[Sequence[Any]], path: str) -> Ranking:
    """Return the best point of each value of a payload key, as Qdrant groups points."""
    payloads: Mapping[str, Any] = {str(point.id): point.payload or {} for points in found for point in points}
    best: dict[Any, tuple[str, float]] = {}
    for point_id, score in ranking:
        for value in value_by_key(payloads[point_id], path) or []:
            if isinstance(value, (str, int)):
                best.setdefault(value, (point_id, score))
    return list(dict.fromkeys(best.values()))
