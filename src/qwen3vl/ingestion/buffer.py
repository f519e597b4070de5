"""What waits between two threads of an ingestion, in batches: items of a slow source need not fill one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_UNWRITTEN_POINTS = 512
"""Maximum number of points that are embedded and not yet written: what a killed process has to embed again."""
MIN_WRITE_BATCH = 256
"""Number of points that are written at once without waiting for more."""
MAX_WRITE_DELAY_S = 2.0
"""Seconds after which fewer points are written. A write to a folder ends with a flush to the disk, which takes 0.1 s
even for a single point and holds Python's global lock: the threads that feed the model should not stop more often."""
LOOKUP_BATCH = 512
"""Maximum number of documents whose ids are looked up in one request."""
POLL_INTERVAL_S = 0.1
"""Seconds between checks of whether to stop, and between calls of `progress` while the run waits."""
MAX_LOOKUP_DELAY_S = 0.5
"""Seconds after which fewer documents are looked up."""


class PipelineStopped(Exception):  # noqa: N818 (not an error)
    """The ingestion was asked to stop; raised in its threads to end their work."""


class BatchBuffer(Generic[T]):
    """A bounded buffer. One thread puts items, another takes them in batches.

    Args:
        max_items: Maximum number of items in it, including those that were taken last.
        min_batch: Number of items that are taken at once without waiting for more.
        max_delay_s: Seconds after which fewer items are taken.
    """

    def __init__(self, max_items: int, min_batch: int, max_delay_s: float) -> None:
        self._max_items = max_items
        self._min_batch = min_batch
        self._max_delay_s = max_delay_s
        self._changed = threading.Condition()
        self._items: list[T] = []
        self._num_taken = 0
        self._closed = False

    def put(self, items: Iterable[T], on_wait: Callable[[], None] = lambda: None) -> None:
        """Add items; wait while the buffer is full.

        Args:
            items: The items.
            on_wait: Called several times a second while the buffer is full; it may raise an exception.

        Raises:
            PipelineStopped: The buffer is closed.
        """
        for item in items:
            while not self._add(item):
                on_wait()

    def _add(self, item: T) -> bool:
        """Add an item if there is space for it, or will be within `POLL_INTERVAL_S`; return whether it was added."""
        with self._changed:
            if not self._has_space():
                self._changed.wait_for(lambda: self._has_space() or self._closed, POLL_INTERVAL_S)
            if self._closed:
                raise PipelineStopped
            if not self._has_space():
                return False
            self._items.append(item)
            # The thread that takes need not wake up for the items between.
            if len(self._items) in (1, self._min_batch):
                self._changed.notify_all()
            return True

    def _has_space(self) -> bool:
        return len(self._items) + self._num_taken < self._max_items

    def take(self) -> list[T]:
        """Wait for `min_batch` items, at most `max_delay_s` after the first; remove and return all.

        Call it again only when the items of the previous call are done with: they count as in the buffer until then.

        Returns:
            The items; none if the buffer is closed and empty.
        """
        with self._changed:
            self._num_taken = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._items or self._closed)
            self._changed.wait_for(lambda: len(self._items) >= self._min_batch or self._closed, self._max_delay_s)
            items, self._items = self._items, []
            self._num_taken = len(items)
            return items

    def close(self) -> None:
        """Refuse further items; those in the buffer can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
