"""An event loop in a thread, for connections that threads and other event loops share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from qwen3vl.concurrency.fork_safety import init_in_each_process

T = TypeVar("T")


class BackgroundLoop:
    """An event loop that runs in a daemon thread, which is started on first use, in each process."""

    def __init__(self) -> None:
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Forget the loop of the process that forked."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine.

        Args:
            work: The coroutine.

        Returns:
            The future of its result. Cancelling it cancels the coroutine.
        """
        return asyncio.run_coroutine_threadsafe(work, self._running_loop())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="qwen3vl-connections", daemon=True).start()
            return self._loop


BACKGROUND_LOOP = BackgroundLoop()
"""The loop of this process."""
