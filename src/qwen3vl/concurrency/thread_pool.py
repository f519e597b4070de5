"""A thread pool that works in forked processes and can be closed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from qwen3vl.concurrency.fork_safety import init_in_each_process

P = ParamSpec("P")
T = TypeVar("T")


class ForkSafeThreadPool:
    """A `ThreadPoolExecutor` that is replaced by a new one in each forked process, unless it was closed before.

    Args:
        max_workers: Maximum number of threads.
        name: Prefix of the threads' names.
    """

    def __init__(self, max_workers: int, name: str) -> None:
        self.max_workers = max_workers
        self.name = name
        self.closed = False
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Create the executor, unless the pool is closed. It starts its threads when work is submitted."""
        if not self.closed:
            self.executor = ThreadPoolExecutor(self.max_workers, self.name)

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function on one of the threads.

        Args:
            work: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The future of its result.

        Raises:
            RuntimeError: The pool is closed.
        """
        return self.executor.submit(work, *args, **kwargs)

    def close(self) -> None:
        """Cancel work that has not begun and let the threads end after their present work. Does not wait for them."""
        self.closed = True
        self.executor.shutdown(wait=False, cancel_futures=True)
