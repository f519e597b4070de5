"""A combinator of futures that blocks no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def when_all(futures: Iterable[Future[Any]], start: Callable[[], Future[T]]) -> Future[T]:
    """Return the future of `start()`, which is called once all given futures are done, failed or cancelled.

    No thread waits: `start` is called on the thread that completes the last future, or on the caller's thread if all
    are done already.

    Args:
        futures: The futures to wait for. Their results and errors are not looked at.
        start: Begins the work that needs them.

    Returns:
        A future with the result or the error of the future that `start` returns, or with the error that `start`
        raises.
    """
    pending = list(futures)
    join = _Join(len(pending) + 1, start)
    for future in pending:
        future.add_done_callback(join.count_down)
    join.count_down()
    return join.result


class _Join(Generic[T]):
    """Counts completed futures and starts the work after the last one.

    `start` is dropped when it is called. A done future keeps its callbacks, hence this object; if that kept `start`
    and what it refers to, often the futures themselves, decoded pixels would live until the next garbage collection.
    """

    def __init__(self, count: int, start: Callable[[], Future[T]]) -> None:
        self.result: Future[T] = Future()
        self._count = count
        self._start: Callable[[], Future[T]] | None = start
        self._lock = threading.Lock()

    def count_down(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._count -= 1
            if self._count or self._start is None:
                return
            start, self._start = self._start, None
        try:
            start().add_done_callback(self._finish)
        except BaseException as error:  # also at interpreter exit, when no thread can be started
            # Without the traceback, whose frames refer to `start`, hence to all that was just dropped.
            self.result.set_exception(error.with_traceback(None))

    def _finish(self, future: Future[T]) -> None:
        # Without raising the error here: its traceback would refer to this thread's frames and their variables.
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            self.result.set_result(future.result())
        else:
            self.result.set_exception(error)
