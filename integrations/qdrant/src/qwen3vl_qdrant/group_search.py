"""Searches by vectors for the best hit of each value of a metadata key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwen3vl.documents import Document
from qwen3vl.stores import Hit, Search
from qwen3vl_qdrant.filters import payload_path
from qwen3vl_qdrant.layout import Layout

if TYPE_CHECKING:  # it imports this module
    from qwen3vl_qdrant.core import QdrantCore

_GROWTH_FACTOR = 4
"""Factor by which the number of groups grows until they have enough different hits."""
_MAX_REQUESTS = 5


async def search_groups(core: QdrantCore, layout: Layout, search: Search) -> list[Hit]:
    """Return the best hit of each value of `search.group_by`.

    A point with a list of values is the best one of several groups perhaps, and a hit once.

    Args:
        core: The collection.
        layout: Its layout.
        search: The search.

    Returns:
        The hits, best first.
    """
    arguments = core.query_arguments(search, layout)
    arguments["query_filter"] = arguments.pop("filter")
    arguments["search_params"] = arguments.pop("params", None)
    # Qdrant's groups have no offset: those before it are requested as well.
    num_needed = num_groups = search.limit + search.offset
    hits: dict[str, Hit] = {}
    for _ in range(_MAX_REQUESTS):
        arguments["limit"] = num_groups
        result = await core.request(
            core.client.query_points_groups,
            core.collection,
            group_by=payload_path(search.group_by or ""),
            group_size=1,
            **arguments,
        )
        hits = {hit.id: hit for hit in (to_hit(group.hits[0]) for group in result.groups)}
        if len(hits) >= num_needed or len(result.groups) < num_groups:
            break
        num_groups *= _GROWTH_FACTOR
    return list(hits.values())[search.offset : num_needed]


def to_hit(point: Any) -> Hit:
    """Return a found point of qdrant-client as a hit."""
    return Hit(str(point.id), Document.from_payload(point.payload or {}), float(point.score))
