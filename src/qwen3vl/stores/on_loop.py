"""An asynchronous store for code that runs in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from qwen3vl.stores.base import AsyncStore
from qwen3vl.stores.blocking import Store

T = TypeVar("T")


class StoreOnLoop(Store):
    """Blocking methods for an `AsyncStore`, for use in threads other than its event loop's.

    Args:
        store: The store.
        loop: The event loop that runs its client. It has to run while methods are called.
    """

    def __init__(self, store: AsyncStore, loop: asyncio.AbstractEventLoop) -> None:
        self.core = store.core
        self._loop = loop

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return run_on_loop(work, self._loop)


def run_on_loop(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Run a coroutine in an event loop, and wait for it in this thread.

    Args:
        work: The coroutine.
        loop: An event loop that runs in another thread.

    Returns:
        The coroutine's result.

    Raises:
        RuntimeError: The loop is closed.
    """
    try:
        future = asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()
        raise
    return future.result()
