"""Writing points of which a store may reject some."""

from __future__ import annotations

from collections.abc import Callable

from qwen3vl.errors import StoreError
from qwen3vl.stores import Point, Store


def upsert_valid(
    store: Store,
    points: list[Point],
    on_written: Callable[[list[Point]], None],
    on_rejected: Callable[[Point, Exception], None],
) -> None:
    """Write points. If the store rejects their content, bisect to find those at fault.

    Args:
        store: The store.
        points: The points.
        on_written: Called with points that are durable.
        on_rejected: Called with a point that the store rejects, and why.

    Raises:
        StoreError: The store cannot be reached, or refuses everything.
    """
    try:
        store.upsert(points)
    except Exception as error:  # clients raise anything for values that they cannot serialize
        if isinstance(error, StoreError) and not error.invalid_request:
            raise
        if len(points) == 1:
            on_rejected(points[0], error)
            return
        middle = len(points) // 2
        upsert_valid(store, points[:middle], on_written, on_rejected)
        upsert_valid(store, points[middle:], on_written, on_rejected)
    else:
        on_written(points)
