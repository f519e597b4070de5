"""`Where` filters as Chroma's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen3vl.stores.types import RANGE_OPERATORS
from qwen3vl_chroma.conditions import Condition, any_of, equal_to, in_range

DOCUMENT_OPERATORS = frozenset({"$contains", "$not_contains", "$regex", "$not_regex"})
"""Operators of Chroma that compare a document's text."""
TENANT_KEY = "_tenant"
"""Metadata key of a point's tenant."""


def to_where(where: Any, tenant: str | None = None) -> dict[str, Any] | None:
    """Return a filter in Chroma's form.

    Args:
        where: A `Where`, a Chroma filter (a mapping with `$` operators), or None.
        tenant: The tenant whose points may match; None for no restriction.

    Returns:
        The filter, or None if it has no condition.

    Raises:
        ValueError: The filter has another type, or a value that Chroma cannot compare.
    """
    if where is not None and not isinstance(where, Mapping):
        raise ValueError(f"a filter is a mapping of metadata keys, not {type(where).__name__}")
    conditions: list[Condition] = [] if tenant is None else [{TENANT_KEY: {"$eq": tenant}}]
    for key, value in (where or {}).items():
        conditions.append({key: value} if key.startswith("$") else _condition(key, value))
    return {"$and": conditions} if len(conditions) > 1 else conditions[0] if conditions else None


def split_where(where: Any) -> tuple[Any, dict[str, Any] | None]:
    """Separate the conditions about the text from those about metadata.

    Args:
        where: A filter as `to_where` accepts it; it may also have the operators in `DOCUMENT_OPERATORS`.

    Returns:
        The filter by metadata, and Chroma's `where_document`; None for either if it has no condition.
    """
    if not isinstance(where, Mapping):
        return where, None
    about_text = [{key: value} for key, value in where.items() if key in DOCUMENT_OPERATORS]
    about_metadata = {key: value for key, value in where.items() if key not in DOCUMENT_OPERATORS}
    text = {"$and": about_text} if len(about_text) > 1 else about_text[0] if about_text else None
    return about_metadata or None, text


def _condition(key: str, value: Any) -> Condition:
    if isinstance(value, (str, bool, int, float)):
        return equal_to(key, value)
    if isinstance(value, Mapping) and value and set(value) <= RANGE_OPERATORS:
        return in_range(key, value)
    if isinstance(value, Mapping) and value and all(str(operator).startswith("$") for operator in value):
        return {key: value}
    if isinstance(value, Sequence):
        return any_of(key, value)
    raise ValueError(f"{key} cannot be filtered by {value!r}")
