"""Points between embedding and writing."""

from __future__ import annotations

import threading

from qwen3vl.stores import Point

MAX_UNWRITTEN_POINTS = 512
"""Maximum number of points that are embedded and not yet written: what a killed process has to embed again."""
MIN_WRITE_BATCH = 256
"""Number of points that are written at once without waiting for more."""
MAX_WRITE_DELAY_S = 0.5
"""Seconds after which fewer points are written."""


class PipelineStopped(Exception):  # noqa: N818 (not an error)
    """The ingestion was asked to stop; raised in its threads to end their work."""


class WriteBuffer:
    """A bounded buffer of embedded points. One thread puts, another takes.

    At most `MAX_UNWRITTEN_POINTS` are in it, including those that the writer took last.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._points: list[Point] = []
        self._num_writing = 0
        self._closed = False

    def put(self, points: list[Point]) -> None:
        """Add points; wait while the buffer is full.

        Args:
            points: The points.

        Raises:
            PipelineStopped: The buffer is closed.
        """
        for point in points:
            with self._changed:
                while len(self._points) + self._num_writing >= MAX_UNWRITTEN_POINTS and not self._closed:
                    self._changed.wait()
                if self._closed:
                    raise PipelineStopped
                self._points.append(point)
                self._changed.notify_all()

    def take(self) -> list[Point]:
        """Wait for `MIN_WRITE_BATCH` points, at most `MAX_WRITE_DELAY_S` after the first; remove and return all.

        Call it again only when the points of the previous call are written: they count as unwritten until then.

        Returns:
            The points; none if the buffer is closed and empty.
        """
        with self._changed:
            self._num_writing = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._points or self._closed)
            self._changed.wait_for(lambda: len(self._points) >= MIN_WRITE_BATCH or self._closed, MAX_WRITE_DELAY_S)
            points, self._points = self._points, []
            self._num_writing = len(points)
            return points

    def close(self) -> None:
        """Refuse further points; those in the buffer can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
