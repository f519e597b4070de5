"""Searches for groups of points with the same value of a payload key.

The Python package of Qdrant Edge has no such searches, so points are searched for without groups and grouped here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

from qwen3vl.stores.types import MAX_GROUP_CANDIDATES

_OVERSAMPLING = 4
"""Number of hits that a search returns for each hit that is requested, since some are of groups that have enough."""
_GROWTH_FACTOR = 4
"""Factor by which a search that has found no further group is enlarged, up to about `MAX_GROUP_CANDIDATES` hits."""


def find_groups(
    search: Callable[[models.Filter, int], list[models.ScoredPoint]], key: str, limit: int, group_size: int
) -> list[models.PointGroup]:
    """Return the best hits of each value of a payload key.

    Args:
        search: Returns the best hits with their payloads, given a filter to add to the query's own and a maximum number
            of hits.
        key: Path of the key in the payload. Points without it, or with neither a str nor an int there, are left out. A
            point with a list belongs to the group of each of its values.
        limit: Maximum number of groups.
        group_size: Maximum number of hits of a group.

    Returns:
        The groups, the one with the best hit first.
    """
    groups: dict[Any, list[models.ScoredPoint]] = {}
    num_hits = limit * group_size * _OVERSAMPLING
    while len(groups) < limit:
        hits = search(_has_other_value(key, list(groups)), num_hits)
        new: dict[Any, list[models.ScoredPoint]] = {}
        for hit in hits:
            for value in dict.fromkeys(filter(_is_group, value_by_key(hit.payload or {}, key) or [])):
                if value not in groups:
                    new.setdefault(value, []).append(hit)
        groups |= new
        if len(hits) < num_hits:
            break
        if not new:  # the values of all these hits are numbers with a point, for example
            if num_hits >= MAX_GROUP_CANDIDATES:
                break
            num_hits *= _GROWTH_FACTOR
    best = dict(list(groups.items())[:limit])
    for value, members in best.items():
        if len(members) < group_size:
            best[value] = search(models.Filter(must=[_has_value(key, value)]), group_size)
    return [models.PointGroup(id=value, hits=members[:group_size]) for value, members in best.items()]


def _is_group(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _has_value(key: str, value: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _has_other_value(key: str, known: Sequence[Any]) -> models.Filter:
    """Return a filter for points with a value that is not known yet, so that a large group does not hide the others.

    A point may have known values, too, in a list.
    """
    lacks_key = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    by_type = [[value for value in known if isinstance(value, kind)] for kind in (str, int)]
    lists: list[Any] = [values for values in by_type if values]
    if not lists:
        return models.Filter(must_not=[lacks_key])
    others: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchExcept(**{"except": values})) for values in lists
    ]
    # An index of words finds no number by the words that it is not.
    knows_none: list[Any] = [models.FieldCondition(key=key, match=models.MatchAny(any=values)) for values in lists]
    return models.Filter(must_not=[lacks_key], should=[models.Filter(must=others), models.Filter(must_not=knows_none)])
