"""Conditions of Chroma on one metadata key.

Chroma compares a stored integer with the integer part of a number with a fraction: `{"$eq": 30.5}` finds a stored 30,
and `{"$lt": 30.5}` does not. Such numbers therefore get conditions with the integers beside them, which are compared
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from qwen3vl.stores.types import Scalar

Condition = dict[str, Any]


def equal_to(key: str, value: Scalar) -> Condition:
    """Return the condition that a value is equal to another one."""
    if not _has_fraction(value):
        return {key: {"$eq": value}}
    return _all([{key: {"$eq": value}}, {key: {"$gt": math.floor(value)}}, {key: {"$lt": math.ceil(value)}}])


def any_of(key: str, values: Sequence[Scalar]) -> Condition:
    """Return the condition that a value is one of several. Chroma's `$in` takes values of one type only."""
    conditions = [equal_to(key, value) for value in values if _has_fraction(value)]
    by_type: dict[type, list[Scalar]] = {}
    for value in values:
        if not _has_fraction(value):
            by_type.setdefault(type(value), []).append(value)
    conditions += [{key: {"$in": alike}} for alike in by_type.values()]
    return conditions[0] if len(conditions) == 1 else {"$or": conditions}


def in_range(key: str, bounds: Mapping[str, float]) -> Condition:
    """Return the condition that a value is in a range, which has at least one of the bounds gt, gte, lt and lte."""
    return _all([_bound(key, operator, bound) for operator, bound in bounds.items()])


def _bound(key: str, operator: str, bound: float) -> Condition:
    condition = {key: {f"${operator}": bound}}
    if not _has_fraction(bound):
        return condition
    below, above = math.floor(bound), math.ceil(bound)
    match operator:
        case "gt":
            return {"$or": [condition, {key: {"$gte": above}}]}
        case "gte":
            return {"$and": [condition, {key: {"$gt": below}}]}
        case "lt":
            return {"$or": [condition, {key: {"$lte": below}}]}
    return {"$and": [condition, {key: {"$lt": above}}]}


def _has_fraction(value: Scalar) -> TypeGuard[float]:
    return isinstance(value, float) and not value.is_integer()


def _all(conditions: list[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else {"$and": conditions}
