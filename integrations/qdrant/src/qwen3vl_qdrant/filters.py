"""`Where` filters as Qdrant's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qdrant_client import models

from qwen3vl.stores.types import RANGE_OPERATORS, is_value_list

TENANT_KEY = "tenant"
"""Payload key of a point's tenant."""
_MAX_EXACT_INTEGER = 2**53
"""Up to here, every integer is a float of 64 bits, as the bounds of ranges in Qdrant are."""


def to_filter(where: Any, tenant: str | None = None) -> models.Filter | None:
    """Return a filter in Qdrant's form.

    Args:
        where: A `Where`, a `models.Filter` (it becomes one condition of the result), or None.
        tenant: The tenant whose points may match; None for no restriction.

    Returns:
        A new filter; None if there is no condition, also not inside of a `models.Filter`.

    Raises:
        ValueError: `where` has another type, a key that no payload path can name, an empty list of values, or a value
            that Qdrant cannot compare.
    """
    conditions: list[Any] = []
    if tenant is not None:
        conditions.append(models.FieldCondition(key=TENANT_KEY, match=models.MatchValue(value=tenant)))
    if isinstance(where, models.Filter):
        conditions += [] if _matches_everything(where) else [where]
    elif isinstance(where, Mapping):
        conditions += [_condition(payload_path(key), value) for key, value in where.items()]
    elif where is not None:
        raise ValueError(f"a filter is a mapping of metadata keys or a models.Filter, not {type(where).__name__}")
    return models.Filter(must=conditions) if conditions else None


def payload_path(key: str) -> str:
    """Return the payload path of a metadata key.

    Args:
        key: The key. A dot leads into nested metadata.

    Returns:
        `metadata.`, then the key, in which parts that are not plain names are quoted.

    Raises:
        ValueError: The key has a quotation mark or a backslash, for which Qdrant's paths have no escape.
    """
    if '"' in key or "\\" in key:
        raise ValueError(f"the metadata key {key!r} has a \" or a \\, which Qdrant's payload paths cannot express")
    parts = (part if part.replace("_", "a").replace("-", "a").isalnum() else f'"{part}"' for part in key.split("."))
    return ".".join(("metadata", *parts))


def _matches_everything(condition: Any) -> bool:
    """Return whether a condition is a filter that matches every point because of filters without conditions."""
    if not isinstance(condition, models.Filter):
        return False
    must, should = (
        clause if isinstance(clause, list) else [] if clause is None else [clause]
        for clause in (condition.must, condition.should)
    )
    return (
        not condition.must_not
        and condition.min_should is None
        and all(map(_matches_everything, must))
        and (not should or any(map(_matches_everything, should)))
    )


def _condition(key: str, value: Any) -> models.FieldCondition | models.Filter:
    """Return the condition for one key (a payload path): equal to a scalar, in a range, or any of a list."""
    if isinstance(value, (str, bool)) or (isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    if isinstance(value, (int, float)):
        # Qdrant has no match of floats, and its match of the integer 30 does not find a stored 30.0.
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    if isinstance(value, Mapping) and value and set(value) <= RANGE_OPERATORS and None not in value.values():
        return models.FieldCondition(key=key, range=models.Range(**value))
    if is_value_list(value) and value:  # Qdrant takes an empty `should` for no condition.
        return models.Filter(should=[_condition(key, option) for option in value])
    raise ValueError(f"{key} cannot be filtered by {value!r}")
