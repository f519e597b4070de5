"""Thread pools and futures of the package."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future

import pytest

from qwen3vl.concurrency.futures import when_all
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool


def done(value: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(value)
    return future


def test_when_all_starts_after_the_last_future() -> None:
    first: Future[int] = Future()
    second: Future[int] = Future()
    started: list[bool] = []

    def start() -> Future[int]:
        started.append(True)
        return done(3)

    result = when_all([first, second], start)
    first.set_result(1)
    assert not started
    second.set_exception(ValueError("counts as done"))
    assert started == [True]
    assert result.result(0) == 3


def test_when_all_starts_at_once_if_all_futures_are_done() -> None:
    assert when_all([], lambda: done(3)).result(0) == 3
    assert when_all([done(1)], lambda: done(4)).result(0) == 4


def test_when_all_passes_on_errors() -> None:
    failed: Future[int] = Future()
    failed.set_exception(ValueError("of the future"))

    def raise_error() -> Future[int]:
        raise ValueError("of start")

    with pytest.raises(ValueError, match="of the future"):
        when_all([], lambda: failed).result(0)
    with pytest.raises(ValueError, match="of start"):
        when_all([], raise_error).result(0)


def test_when_all_counts_cancelled_futures() -> None:
    pending: Future[int] = Future()
    result = when_all([pending], lambda: done(5))
    pending.cancel()
    assert result.result(0) == 5


def test_when_all_keeps_nothing_alive() -> None:
    """Done futures keep their callbacks; these must not keep what `start` refers to."""

    class Pixels:
        pass

    pixels = Pixels()
    reference = weakref.ref(pixels)
    future: Future[int] = Future()
    # As in the engine, `start` refers to the future that it waits for.
    result = when_all([future], lambda kept=(pixels, future): done(1))  # type: ignore[misc]
    del pixels
    gc.disable()
    try:
        future.set_result(0)
        assert result.result(0) == 1
        assert reference() is None
    finally:
        gc.enable()


def test_closed_pool_takes_no_work_and_is_not_restarted() -> None:
    pool = ForkSafeThreadPool(1, "test")
    assert pool.submit(lambda: 1).result(10) == 1
    pool.close()
    pool.close()
    pool.start_threads()  # as a forked process does
    with pytest.raises(RuntimeError):
        pool.submit(lambda: 1)
