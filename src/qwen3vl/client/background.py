"""Calls that run in the process's background loop, whoever makes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, ParamSpec, TypeVar

from qwen3vl.concurrency.background_loop import BACKGROUND_LOOP
from qwen3vl.concurrency.fork_safety import init_in_each_process
from qwen3vl.errors import CLOSED

P = ParamSpec("P")
T = TypeVar("T")


class BackgroundCalls:
    """Runs asynchronous functions in the background loop. Any number of threads and event loops may use one object.

    Attributes:
        closed: Whether `close` was called.
    """

    def __init__(self) -> None:
        self.closed = False
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Forget the calls of the process that forked."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def submit(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call an asynchronous function in the background loop.

        Args:
            work: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The future of its result, for `result_of`. Cancelling it cancels the function's requests.

        Raises:
            RuntimeError: This object is closed.
        """
        if self.closed:
            raise RuntimeError(CLOSED)
        return BACKGROUND_LOOP.submit(self._run(work, *args, **kwargs))

    def result_of(self, future: Future[T]) -> T:
        """Wait for the result of a future of `submit`.

        Args:
            future: The future.

        Returns:
            Its result.

        Raises:
            RuntimeError: This object was closed meanwhile.
        """
        try:
            return future.result()
        except CancelledError as error:
            if self.closed:
                raise RuntimeError(CLOSED) from error
            raise

    async def aresult_of(self, future: asyncio.Future[T]) -> T:
        """Wait for the result of a wrapped future of `submit`, from another event loop.

        Args:
            future: What `asyncio.wrap_future` has made of it.

        Returns:
            Its result.

        Raises:
            RuntimeError: This object was closed meanwhile.
        """
        try:
            return await future
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self.closed and not (task and task.cancelling()):
                raise RuntimeError(CLOSED) from error
            raise

    def close(self) -> None:
        """Cancel all work and close the connections. Closing again does nothing."""
        if not self.closed:
            self.closed = True
            BACKGROUND_LOOP.submit(self._close()).result()

    async def release(self) -> None:
        """Release what calls have in common; `close` calls this in the background loop."""

    async def _run(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (for mypy: a coroutine runs in a task)
        self._tasks.add(task)
        try:
            return await work(*args, **kwargs)
        except asyncio.CancelledError:
            if self.closed:
                raise RuntimeError(CLOSED) from None
            raise
        finally:
            self._tasks.discard(task)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.release()
