"""Searches by vectors whose pages have no hit twice, also if several points have equal scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qwen3vl.stores import Hit, Search
from qwen3vl.stores.types import MAX_GROUP_CANDIDATES
from qwen3vl_qdrant.group_search import to_hit
from qwen3vl_qdrant.layout import Layout
from qwen3vl_qdrant.word_search import Ranking, read_hits

if TYPE_CHECKING:  # it imports this module
    from qwen3vl_qdrant.core import QdrantCore

_MIN_ENLARGED, _GROWTH_FACTOR = 1000, 4
"""How the number of points grows until all that have the score of a page's last hit are among them."""


async def search_vectors(core: QdrantCore, layout: Layout, searches: Sequence[Search]) -> list[list[Hit]]:
    """Run searches in the mode `"dense"` without `group_by`.

    The engine orders points with equal scores, such as those of equal photos, in another way for each number of hits.
    Its own offset would therefore repeat hits and leave out others: all hits up to the end of the page, and one more,
    are requested, and are ordered by score and id here. If that one has the score of the page's last hit, more are
    requested, at most `MAX_GROUP_CANDIDATES`: pages may repeat hits where more points have one score. They may do
    so with `Layout(short=...)`, unless the search is exact: more hits come from more candidates, some of them better.

    Args:
        core: The collection.
        layout: Its layout.
        searches: The searches.

    Returns:
        The hits of each search, best first.
    """
    ends = [search.offset + search.limit for search in searches]
    counts = [end + 1 for end in ends]
    hits: dict[int, list[Hit]] = {}
    rankings: dict[int, Ranking] = {}
    remaining = list(range(len(searches)))
    is_first_request = True
    while remaining:
        # Payloads are read at once for first pages; for others, those of the hits before would be read in vain.
        with_payload = [is_first_request and searches[index].offset == 0 for index in remaining]
        requests = [
            core.to_query(
                **core.query_arguments(replace(searches[index], limit=counts[index], offset=0), layout),
                with_payload=reads_payload,
            )
            for index, reads_payload in zip(remaining, with_payload, strict=True)
        ]
        responses = await core.request(core.client.query_batch_points, core.collection, requests)
        unfinished = []
        for index, reads_payload, response in zip(remaining, with_payload, responses, strict=True):
            points, search, end = response.points, searches[index], ends[index]
            if _is_cut_within_equal(points, end, counts[index]):
                counts[index] = min(max(_MIN_ENLARGED, _GROWTH_FACTOR * counts[index]), MAX_GROUP_CANDIDATES)
                unfinished.append(index)
                continue
            page = sorted(points, key=lambda point: (-point.score, str(point.id)))[search.offset : end]
            if reads_payload:
                hits[index] = [to_hit(point) for point in page]
            else:
                rankings[index] = [(str(point.id), float(point.score)) for point in page]
        remaining, is_first_request = unfinished, False
    hits |= zip(rankings, await read_hits(core, list(rankings.values())), strict=True)
    return [hits[index] for index in range(len(searches))]


def _is_cut_within_equal(points: Sequence[Any], end: int, count: int) -> bool:
    """Return whether points that were not returned may belong on a page, as their score is that of its last hit."""
    return end < len(points) >= count < MAX_GROUP_CANDIDATES and points[-1].score == points[end - 1].score
