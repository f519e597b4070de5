"""A combinator of futures that blocks no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any


def call_when_done(futures: Iterable[Future[Any]], function: Callable[[], None]) -> None:
    """Call a function once all given futures are done, failed or cancelled.

    No thread waits: the function is called on the thread that completes the last future, or on the caller's thread if
    all are done already.

    Args:
        futures: The futures to wait for. Their results and errors are not looked at.
        function: Called once. It should not raise.
    """
    pending = list(futures)
    countdown = _Countdown(len(pending) + 1, function)
    for future in pending:
        future.add_done_callback(countdown.count_down)
    countdown.count_down()


class _Countdown:
    """Counts completed futures and calls a function after the last one.

    `function` is dropped when it is called. A done future keeps its callbacks, hence this object; if that kept
    `function` and what it refers to, often the futures themselves, decoded pixels would live until the next garbage
    collection.
    """

    def __init__(self, count: int, function: Callable[[], None]) -> None:
        self._count = count
        self._function: Callable[[], None] | None = function
        self._lock = threading.Lock()

    def count_down(self, _: Future[Any] | None = None) -> None:
        with self._lock:
            self._count -= 1
            if self._count or self._function is None:
                return
            function, self._function = self._function, None
        function()
