"""`Where` filters as Qdrant's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from qwen3vl.stores.types import RANGE_OPERATORS

TENANT_KEY = "tenant"
"""Payload key of a point's tenant."""


def to_filter(where: Any, tenant: str | None = None) -> models.Filter | None:
    """Return a filter in Qdrant's form.

    Args:
        where: A `Where`, a `models.Filter`, or None.
        tenant: The tenant whose points may match; None for no restriction.

    Returns:
        The filter, or None if it has no condition.

    Raises:
        ValueError: The filter has another type, or a value that Qdrant cannot compare.
    """
    conditions: list[Any] = []
    if tenant is not None:
        conditions.append(models.FieldCondition(key=TENANT_KEY, match=models.MatchValue(value=tenant)))
    if isinstance(where, models.Filter):
        conditions.append(where)
    elif isinstance(where, Mapping):
        conditions += [_condition(metadata_key(key), value) for key, value in where.items()]
    elif where is not None:
        raise ValueError(f"a filter is a mapping of metadata keys or a models.Filter, not {type(where).__name__}")
    return models.Filter(must=conditions) if conditions else None


def metadata_key(key: str) -> str:
    """Return the payload path of a metadata key.

    Args:
        key: The key. A dot leads into nested metadata.

    Returns:
        The path, with parts quoted that are not plain names.
    """
    parts = (part if part.replace("_", "a").replace("-", "a").isalnum() else f'"{part}"' for part in key.split("."))
    return ".".join(("metadata", *parts))


def _condition(key: str, value: Any) -> models.FieldCondition | models.Filter:
    if isinstance(value, (str, bool, int)):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    if isinstance(value, float):
        # Qdrant matches only strings, booleans and integers exactly.
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    if isinstance(value, Mapping) and value and set(value) <= RANGE_OPERATORS:
        return models.FieldCondition(key=key, range=models.Range(**value))
    if isinstance(value, Sequence):
        return models.Filter(should=[_condition(key, option) for option in value])
    raise ValueError(f"{key} cannot be filtered by {value!r}")
