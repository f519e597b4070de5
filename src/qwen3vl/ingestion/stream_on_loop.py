"""An asynchronous stream for code that runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar

from qwen3vl.ingestion.buffer import PipelineStopped
from qwen3vl.stores.on_loop import run_on_loop

T = TypeVar("T")


class StreamOnLoop(Generic[T]):
    """Iterates in a thread over an asynchronous stream of an event loop.

    Args:
        stream: The stream. It is only used in the loop.
        loop: The loop, which runs in another thread.
    """

    def __init__(self, stream: AsyncIterable[T], loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._loop = loop
        self._is_stopped = False
        self._pending: asyncio.Task[Any] | None = None
        """The task that waits for the next item."""

    def __iter__(self) -> Iterator[T]:
        """Yield the items; raise `PipelineStopped` after `cancel`, or if the loop has ended."""
        iterator = aiter(self._stream)
        try:
            while items := run_on_loop(self._next_item(iterator), self._loop):
                yield from items
        except CancelledError:
            if not self._is_stopped:
                raise
            raise PipelineStopped from None
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # The loop ended while this thread waited for a slow stream.
            raise PipelineStopped from None

    def cancel(self) -> None:
        """Cancel the wait for the next item, and take no further one. Called in the loop."""
        self._is_stopped = True
        if self._pending is not None:
            self._pending.cancel()

    async def stop(self) -> None:
        """Cancel the wait for the next item, and wait until the stream has done what it does then."""
        self.cancel()
        while self._pending is not None:
            await asyncio.wait([self._pending])

    async def _next_item(self, iterator: AsyncIterator[T]) -> list[T]:
        if self._is_stopped:
            return []
        self._pending = asyncio.current_task()
        try:
            async for item in iterator:
                return [item]
            return []
        finally:
            self._pending = None
