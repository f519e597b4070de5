"""Threads that call a function for their next job, so that it decides at the last moment what is done next."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TypeAlias

from qwen3vl.concurrency.fork_safety import init_in_each_process
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool

Job: TypeAlias = Callable[[], None]


class PullThreadPool:
    """Threads that call a function for jobs and run these, until it has none. A forked process starts its own threads.

    Args:
        max_threads: Maximum number of threads.
        name: Prefix of the threads' names.
        next_job: A method that returns the next job, or None. Called on the threads. Neither it nor a job may raise.
            Its object is held by a weak reference, because it usually owns these threads.

    Attributes:
        max_threads: As above.
    """

    def __init__(self, max_threads: int, name: str, next_job: Callable[[], Job | None]) -> None:
        self.max_threads = max_threads
        self._next_job = weakref.WeakMethod(next_job)
        self._pool = ForkSafeThreadPool(max_threads, name)
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Begin without running threads."""
        self._lock = threading.RLock()
        self._num_wakes = 0
        self._num_running = 0

    def wake(self, num_jobs: int = 1) -> None:
        """Start threads, up to the maximum number, since there may be new jobs.

        Args:
            num_jobs: Number of new jobs, or an upper bound of it.

        Raises:
            RuntimeError: No thread can be started, and none is running: the system has too many threads, or the
                interpreter is shutting down. Or the threads are closed.
        """
        with self._lock:
            self._num_wakes += 1
            num_new_threads = min(num_jobs, self.max_threads - self._num_running)
        for _ in range(num_new_threads):  # too many in a race are harmless: they find no job
            try:
                self._pool.submit(self._run_jobs)
            except RuntimeError:
                with self._lock:
                    # Running threads look for jobs again before they end, since there was a wake.
                    if self._num_running and not self._pool.closed:
                        return
                raise

    def close(self) -> None:
        """Let the threads end after their present job. Does not wait for them."""
        self._pool.close()

    def _run_jobs(self) -> None:
        with self._lock:
            self._num_running += 1
        while True:
            with self._lock:
                num_wakes = self._num_wakes
            if self._run_next_job():
                continue
            with self._lock:
                if self._num_wakes == num_wakes or self._pool.closed:
                    self._num_running -= 1
                    return

    def _run_next_job(self) -> bool:
        """Run a job, and return whether there was one. Afterwards nothing refers to its data or the method's object."""
        next_job = self._next_job()
        job = None if next_job is None or self._pool.closed else next_job()
        if job is None:
            return False
        job()
        return True
