"""Filters of this package as Chroma's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen3vl.stores import RANGE

TENANT = "_tenant"


def to_where(where: Any, tenant: str | None = None) -> dict[str, Any] | None:
    """A `Where`, or a Chroma filter (a mapping with `$` operators) as it is, within a tenant.

    Raises `ValueError` for a value that cannot be asked for.
    """
    if where is not None and not isinstance(where, Mapping):
        raise ValueError(f"a filter is a mapping of metadata keys, not {type(where).__name__}")
    all_of: list[dict[str, Any]] = [] if tenant is None else [{TENANT: {"$eq": tenant}}]
    for key, value in (where or {}).items():
        all_of += [{key: value}] if key.startswith("$") else _conditions(key, value)
    return {"$and": all_of} if len(all_of) > 1 else all_of[0] if all_of else None


def _conditions(key: str, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, (str, bool, int, float)):
        return [{key: {"$eq": value}}]
    if isinstance(value, Mapping) and value and set(value) <= RANGE:
        return [{key: {f"${name}": edge}} for name, edge in value.items()]
    if isinstance(value, Mapping) and value and all(str(name).startswith("$") for name in value):
        return [{key: value}]
    if isinstance(value, Sequence):
        return [{key: {"$in": list(value)}}]
    raise ValueError(f"{key} cannot be filtered by {value!r}")
