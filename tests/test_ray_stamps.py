"""`benchmarks.ray_stamps`: rows a second out of the stamps of batches."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from benchmarks.ray_stamps import (
    BEGAN,
    DONE,
    WORKER,
    EmbeddedBatch,
    collect_batches,
    rows_per_s,
    steady_window,
)


def back_to_back(worker: int, begin_s: float, count: int, seconds: float = 2.0, rows: int = 8) -> list[EmbeddedBatch]:
    """The batches of a worker that does nothing else."""
    begins = [begin_s + number * seconds for number in range(count)]
    return [EmbeddedBatch(worker, each, each + seconds, rows) for each in begins]


@pytest.mark.parametrize(("first_s", "last_s"), [(0, 2), (1, 17), (2.5, 3), (3.1, 16.9)])
def test_a_worker_without_pauses_has_its_full_rate_in_any_window(first_s: float, last_s: float) -> None:
    assert rows_per_s(back_to_back(1, 0, 10), first_s, last_s) == pytest.approx(4)


def test_pauses_and_the_part_of_a_batch_outside_the_window_do_not_count() -> None:
    batches = [EmbeddedBatch(1, 0, 2, 8), EmbeddedBatch(1, 3, 5, 8), EmbeddedBatch(2, 0, 4, 4)]
    assert rows_per_s(batches, 1, 4) == pytest.approx((4 + 4 + 3) / 3)
    assert rows_per_s(batches, 6, 7) == 0


def test_rows_of_a_batch_that_arrive_in_parts_are_one_batch() -> None:
    tables = [
        {WORKER: np.array([1, 1, 2]), BEGAN: np.array([0.0, 0.0, 0.5]), DONE: np.array([2.0, 2.0, 1.5])},
        {WORKER: np.array([1, 1]), BEGAN: np.array([0.0, 2.0]), DONE: np.array([2.0, 4.0])},
    ]
    assert collect_batches(tables) == [
        EmbeddedBatch(2, 0.5, 1.5, 1),
        EmbeddedBatch(1, 0.0, 2.0, 3),
        EmbeddedBatch(1, 2.0, 4.0, 1),
    ]


def test_the_window_begins_when_all_workers_work() -> None:
    def window(*workers: list[EmbeddedBatch]) -> tuple[float, float]:
        return steady_window(sorted(chain(*workers), key=lambda batch: batch.done_s), len(workers))

    assert window(back_to_back(1, 0, 20)) == (10, 30)
    assert window(back_to_back(1, 0, 20), back_to_back(2, 21, 9)) == (21, 33)
    with pytest.raises(RuntimeError, match="give more --seconds"):
        window(back_to_back(1, 0, 20), back_to_back(2, 38, 1))
    with pytest.raises(RuntimeError, match="1 workers embedded something, not 2"):
        steady_window(back_to_back(1, 0, 20), 2)
