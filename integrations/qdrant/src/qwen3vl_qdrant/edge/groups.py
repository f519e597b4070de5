"""Groups of hits by a key of the payload: Edge has none in Python, so more hits are searched for and grouped here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

_OVERSAMPLING = 4
"""Hits that are searched for at once, for each one that is wanted."""


def find_groups(
    search: Callable[[models.Filter, int], list[models.ScoredPoint]], key: str, limit: int, group_size: int
) -> list[models.PointGroup]:
    """Return the best hits of each value of a key.

    Args:
        search: Returns the best hits, at most so many, within an additional filter; with payload.
        key: Path of the key in the payload. Points without it are left out.
        limit: Maximum number of groups.
        group_size: Maximum number of hits of a group.

    Returns:
        The groups, the one with the best hit first.
    """
    groups: dict[Any, list[models.ScoredPoint]] = {}
    num_hits = limit * group_size * _OVERSAMPLING
    has_key = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    while len(groups) < limit:
        # The groups that are known are left out, so that a large one does not hide the others.
        hits = search(models.Filter(must_not=[has_key, *(_has_value(key, value) for value in groups)]), num_hits)
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
