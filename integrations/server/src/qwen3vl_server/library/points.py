"""How many points of each source a store has."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from qwen3vl.stores import AsyncStore

_MAX_AGE_S = 60.0
"""Seconds for which sources stay counted. Others may write into the store as well."""


class SourceCounts:
    """Counts the points of each source, by reading all of the store, and remembers the counts for a while.

    Args:
        store: The store.
    """

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._counts: dict[str, int] = {}
        self._counted_s = 0.0
        self._num_changes = 0
        self._counted_changes = -1
        """Number of changes before the last count began; changes while it runs make it stale."""

    async def get(self) -> dict[str, int]:
        """Return the number of points by source, sorted by source."""
        async with self._lock:
            if self._counted_changes != self._num_changes or time.monotonic() - self._counted_s >= _MAX_AGE_S:
                num_changes = self._num_changes
                counter = Counter([point.source async for point in self._store.ascan()])
                self._counts, self._counted_changes = dict(sorted(counter.items())), num_changes
                self._counted_s = time.monotonic()
            return self._counts

    def forget(self) -> None:
        """Count again at the next call, because the store was changed."""
        self._num_changes += 1
