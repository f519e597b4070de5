"""Filters of this package as Qdrant's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from qwen3vl.stores import RANGE

TENANT = "tenant"


def to_filter(where: Any, tenant: str | None = None) -> models.Filter | None:
    """A `Where`, or a Qdrant filter as it is, within a tenant.

    Raises `ValueError` for a value that cannot be asked for.
    """
    must: list[Any] = []
    if tenant is not None:
        must.append(models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant)))
    if isinstance(where, models.Filter):
        must.append(where)
    elif isinstance(where, Mapping):
        must += [_condition(metadata_key(key), value) for key, value in where.items()]
    elif where is not None:
        raise ValueError(f"a filter is a mapping of metadata keys or a models.Filter, not {type(where).__name__}")
    return models.Filter(must=must) if must else None


def metadata_key(key: str) -> str:
    """The path of a metadata key; a dot in it leads into nested metadata."""
    parts = (part if part.replace("_", "a").replace("-", "a").isalnum() else f'"{part}"' for part in key.split("."))
    return ".".join(("metadata", *parts))


def _condition(key: str, value: Any) -> models.FieldCondition | models.Filter:
    if isinstance(value, (str, bool, int)):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    if isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    if isinstance(value, Mapping) and value and set(value) <= RANGE:
        return models.FieldCondition(key=key, range=models.Range(**value))
    if isinstance(value, Sequence):
        return models.Filter(should=[_condition(key, each) for each in value])
    raise ValueError(f"{key} cannot be filtered by {value!r}")
