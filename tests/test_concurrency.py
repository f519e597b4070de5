"""Thread pools and futures of the package."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import Future

import pytest

from qwen3vl.concurrency.futures import call_when_done
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool


def done(value: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(value)
    return future


def test_function_is_called_after_the_last_future() -> None:
    first: Future[int] = Future()
    second: Future[int] = Future()
    calls: list[bool] = []
    call_when_done([first, second], lambda: calls.append(True))
    first.set_result(1)
    assert not calls
    second.set_exception(ValueError("counts as done"))
    assert calls == [True]


def test_function_is_called_at_once_if_all_futures_are_done() -> None:
    calls: list[int] = []
    call_when_done([], lambda: calls.append(1))
    call_when_done([done(1)], lambda: calls.append(2))
    assert calls == [1, 2]


def test_cancelled_futures_count() -> None:
    pending: Future[int] = Future()
    calls: list[bool] = []
    call_when_done([pending], lambda: calls.append(True))
    pending.cancel()
    assert calls == [True]


def test_nothing_is_kept_alive() -> None:
    """Done futures keep their callbacks; these must not keep what the function refers to."""

    class Pixels:
        pass

    pixels = Pixels()
    reference = weakref.ref(pixels)
    future: Future[int] = Future()
    # As in the engine, the function refers to the future that it waits for.
    call_when_done([future], lambda kept=(pixels, future): None)  # type: ignore[misc]
    del pixels
    gc.disable()
    try:
        future.set_result(0)
        assert reference() is None
    finally:
        gc.enable()


def test_closed_pool_takes_no_work_and_is_not_restarted() -> None:
    pool = ForkSafeThreadPool(1, "test")
    assert pool.submit(lambda: 1).result(10) == 1
    pool.close()
    pool.close()
    pool.init_process_state()  # as a forked process does
    with pytest.raises(RuntimeError):
        pool.submit(lambda: 1)
