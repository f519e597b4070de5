"""What a stream sync_tracker, and what is to go because it did not come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Literal
from uuid import UUID

from qwen3vl.documents import Document
from qwen3vl.stores import Store

Sync = bool | Literal["sources"] | Callable[[str], bool]


class SyncTracker:
    """Ids and places of what came, and sources that failed; kept only as far as `sync` needs them.

    Raises `ValueError` for a `sync` that means nothing.
    """

    def __init__(self, sync: Sync) -> None:
        if not (isinstance(sync, bool) or sync == "sources" or callable(sync)):
            raise ValueError(f"sync is {sync!r}; it may be True, False, 'sources' or a function of a source")
        self.sync = sync
        self.ids: set[bytes] = set()
        self.places: set[int] = set()
        self.sources: set[str] = set()
        self.failed: set[str] = set()

    def add(self, point_id: str, document: Document) -> None:
        if self.sync:
            self.ids.add(UUID(point_id).bytes)
            self.places.add(hash((document.source, document.locator)))
            self.sources.add(document.source)

    def gone(self, store: Store) -> dict[str, bool]:
        """Ids of stored points that are to go, and whether another version of each came."""
        return {
            stored.id: hash((stored.source, stored.locator)) in self.places
            for stored in store.scan()
            if UUID(stored.id).bytes not in self.ids and self._stale(stored.source)
        }

    def _stale(self, source: str) -> bool:
        if self.sync == "sources":
            wanted = source in self.sources
        else:
            wanted = self.sync(source) if callable(self.sync) else bool(self.sync)
        return wanted and not self._spared(source)

    def _spared(self, source: str) -> bool:
        """Whether the source, or a folder above it, failed in this run."""
        return source in self.failed or any(str(parent) in self.failed for parent in PurePath(source).parents)
