"""Rows a second out of the stamps that simulated workers put on their batches.

A batch is embedded from `BEGAN` to `DONE`, on `WORKER`: columns of its rows, in seconds of `time.monotonic`, whose zero
all processes of a machine share. A batch that an edge of a window divides counts with the part that is within it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

BEGAN, DONE, WORKER = "began_s", "done_s", "worker"


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """A batch of a worker.

    Attributes:
        worker: Process id.
        began_s: When it was begun.
        done_s: When it was done.
        rows: Number of its rows.
    """

    worker: int
    began_s: float
    done_s: float
    rows: int

    def rows_within(self, first_s: float, last_s: float) -> float:
        """Return how many rows were embedded in a window, at an even rate from the begin of the batch to its end."""
        shared_s = min(self.done_s, last_s) - max(self.began_s, first_s)
        return self.rows * max(shared_s, 0.0) / (self.done_s - self.began_s)


def collect_batches(tables: Iterable[Any]) -> list[EmbeddedBatch]:
    """Return the batches of rows, which may arrive in parts.

    Args:
        tables: Mappings with the columns `WORKER`, `BEGAN` and `DONE`, as arrays.

    Returns:
        The batches, in the order in which they were done.
    """
    rows: Counter[tuple[int, float, float]] = Counter()
    for table in tables:
        rows.update(zip(*(table[name].tolist() for name in (WORKER, BEGAN, DONE)), strict=True))
    return sorted((EmbeddedBatch(*key, count) for key, count in rows.items()), key=lambda batch: batch.done_s)


def steady_window(batches: list[EmbeddedBatch], num_workers: int) -> tuple[float, float]:
    """Return the window in which a run is measured.

    Args:
        batches: In the order in which they were done.
        num_workers: How many workers the run has.

    Returns:
        From when a quarter of the rows were done, but not before the last worker began its first batch, until three
        quarters were done.

    Raises:
        RuntimeError: Another number of workers did anything, or they began so late that no such window is left.
    """
    began_s: dict[int, float] = {}
    for batch in batches:
        began_s[batch.worker] = min(batch.began_s, began_s.get(batch.worker, batch.began_s))
    if len(began_s) != num_workers:
        raise RuntimeError(f"{len(began_s)} workers embedded something, not {num_workers}: give more --seconds")
    total, done = sum(batch.rows for batch in batches), 0
    quarters: dict[int, float] = {}
    for batch in batches:
        done += batch.rows
        for quarter in (1, 3):
            if 4 * done >= quarter * total:
                quarters.setdefault(quarter, batch.done_s)
    first_s, last_s = max(quarters[1], *began_s.values()), quarters[3]
    if first_s >= last_s:
        raise RuntimeError("the last worker began when three quarters of the rows were done: give more --seconds")
    return first_s, last_s


def rows_per_s(batches: Iterable[EmbeddedBatch], first_s: float, last_s: float) -> float:
    """Return the rows that were embedded in a window, a second."""
    return sum(batch.rows_within(first_s, last_s) for batch in batches) / (last_s - first_s)
