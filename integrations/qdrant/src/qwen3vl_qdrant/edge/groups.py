"""Searches for groups of points with the same value of a payload key.

The Python package of Qdrant Edge has no such searches, so points are searched for without groups and grouped here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

_OVERSAMPLING = 4
"""Number of hits that a search returns for each hit that is requested, since some are of groups that have enough."""


def find_groups(
    search: Callable[[models.Filter, int], list[models.ScoredPoint]], key: str, limit: int, group_size: int
) -> list[models.PointGroup]:
    """Return the best hits of each value of a payload key.

    Args:
        search: Returns the best hits with their payloads, given a filter to add to the query's own and a maximum number
            of hits.
        key: Path of the key in the payload. Points without it are left out.
        limit: Maximum number of groups.
        group_size: Maximum number of hits of a group.

    Returns:
        The groups, the one with the best hit first.
    """
    groups: dict[Any, list[models.ScoredPoint]] = {}
    num_hits = limit * group_size * _OVERSAMPLING
    lacks_key = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    while len(groups) < limit:
        # Points of groups found before are left out, so that a large group does not hide the others.
        hits = search(models.Filter(must_not=[lacks_key, *(_has_value(key, value) for value in groups)]), num_hits)
        found: dict[Any, list[models.ScoredPoint]] = {}
        for hit in hits:
            for value in dict.fromkeys(filter(_is_group, value_by_key(hit.payload or {}, key) or [])):
                found.setdefault(value, []).append(hit)
        new = {value: members for value, members in found.items() if value not in groups}
        groups |= new
        if len(hits) < num_hits or not new:
            break
    best = dict(list(groups.items())[:limit])
    for value, members in best.items():
        if len(members) < group_size:
            best[value] = search(models.Filter(must=[_has_value(key, value)]), group_size)
    return [models.PointGroup(id=value, hits=members[:group_size]) for value, members in best.items()]


def _is_group(value: Any) -> bool:
    return isinstance(value, (str, int))


def _has_value(key: str, value: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))
