"""Points between embedding and writing."""

from __future__ import annotations

import threading

from qwen3vl.stores import Point

BATCH = 512
"""Points that are embedded and not yet written, at most: what a kill costs."""
MIN_WRITE_BATCH = 256
"""Points that are worth a write of their own, before MAX_WRITE_DELAY_S is over."""
MAX_WRITE_DELAY_S = 0.5
"""Seconds that an embedded point waits for company."""


class PipelineStopped(Exception):  # noqa: N818 (not an error)
    """A thread is asked to end."""


class Buffer:
    """Points between embedding and writing: at most BATCH, those being written among them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.points: list[Point] = []
        self.writing = 0
        self.closed = False

    def put(self, points: list[Point]) -> None:
        """Adds points, when there is room; raises `PipelineStopped` where nobody takes them any more."""
        for point in points:
            with self.changed:
                while len(self.points) + self.writing >= BATCH and not self.closed:
                    self.changed.wait()
                if self.closed:
                    raise PipelineStopped
                self.points.append(point)
                self.changed.notify_all()

    def take(self) -> list[Point]:
        """All points that wait, when they are enough or have waited long; none when no more will come."""
        with self.changed:
            self.writing = 0
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.points or self.closed)
            self.changed.wait_for(lambda: len(self.points) >= MIN_WRITE_BATCH or self.closed, MAX_WRITE_DELAY_S)
            taken, self.points = self.points, []
            self.writing = len(taken)
            return taken

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
