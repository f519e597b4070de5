"""Validation of searches and filters before they are sent: what one database rejects, another may silently ignore."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from qwen3vl.errors import InputError
from qwen3vl.inputs import check_text, type_name
from qwen3vl.stores.types import RANGE_OPERATORS, Search, is_value_list


def check_where(where: Any) -> None:
    """Check the keys and values of a filter.

    Args:
        where: A `Where`. Filters of a database's own type, keys that begin with `$` and mappings of operators other
            than those of a range are left to the database.

    Raises:
        ValueError: A key is not a str, or a value cannot be compared; the message names the key and the value.
    """
    for key, value in where.items() if isinstance(where, Mapping) else ():
        if not isinstance(key, str):
            raise ValueError(f"a filter has names of metadata keys as str, and {key!r} is of type {type_name(key)}")
        _check_text(key, f"the filter's key {key!r}")
        if isinstance(value, Mapping) and value and value.keys() <= RANGE_OPERATORS:
            if not all(isinstance(bound, (int, float)) for bound in value.values()):
                raise ValueError(f"{key!r} cannot be filtered by {value!r}: the bounds of a range are numbers")
            _check_scalars(key, value.values())
        elif not key.startswith("$") and not (isinstance(value, Mapping) and value):
            _check_scalars(key, value if is_value_list(value) else [value])


def check_vector(search: Search) -> None:
    """Check the vector of a search whose mode is set.

    Args:
        search: The search.

    Raises:
        ValueError: The search compares vectors, and its vector has NaN or infinity.
    """
    if search.mode != "text" and not np.isfinite(search.vector).all():
        raise ValueError("the vector of a search has NaN or infinity: check what has embedded the query")


def _check_scalars(key: str, values: Iterable[Any]) -> None:
    for value in values:
        if isinstance(value, str):
            _check_text(value, f"the filter's value of {key!r}")
        elif not isinstance(value, (int, float)):
            raise ValueError(
                f"{key!r} cannot be filtered by {value!r}; a value is a str, an int, a float, a bool, a list of them, "
                f"or a mapping of {', '.join(sorted(RANGE_OPERATORS))}"
            )
        elif not -math.inf < value < math.inf:
            # JSON has no such numbers: a request has null instead, which is no bound, and matches every number.
            raise ValueError(f"{key!r} cannot be filtered by {value}, which is not finite; leave it out")


def _check_text(text: str, name: str) -> None:
    try:
        check_text(text, name)
    except InputError as error:
        raise ValueError(str(error)) from error
