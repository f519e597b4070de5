"""Thread pools and futures of the package."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from concurrent.futures import Future

import pytest

from qwen3vl.concurrency.futures import call_when_done
from qwen3vl.concurrency.pull_thread_pool import Job, PullThreadPool
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


class Jobs:
    """Jobs of a pool whose first one waits until it is told to go on."""

    def __init__(self, max_threads: int) -> None:
        self.started, self.go_on, self.all_done = threading.Event(), threading.Event(), threading.Event()
        self.jobs: deque[Job] = deque([self.wait])
        self.pool = PullThreadPool(max_threads, "qwen3vl-test", self.next_job)

    def next_job(self) -> Job | None:
        return self.jobs.popleft() if self.jobs else None

    def wait(self) -> None:
        self.started.set()
        assert self.go_on.wait(60)


def test_running_thread_takes_jobs_for_which_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    jobs = Jobs(max_threads=4)
    jobs.pool.wake()
    assert jobs.started.wait(60)
    jobs.jobs.append(jobs.all_done.set)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        jobs.pool.wake(2)
    jobs.go_on.set()
    assert jobs.all_done.wait(60)
    jobs.pool.close()
    with pytest.raises(RuntimeError):
        jobs.pool.wake()


def test_pool_without_a_running_thread_says_that_none_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    jobs = Jobs(max_threads=4)
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        jobs.pool.wake()


def test_closed_pool_takes_no_work_and_is_not_restarted() -> None:
    pool = ForkSafeThreadPool(1, "test")
    assert pool.submit(lambda: 1).result(10) == 1
    pool.close()
    pool.close()
    pool.init_process_state()  # as a forked process does
    with pytest.raises(RuntimeError):
        pool.submit(lambda: 1)
