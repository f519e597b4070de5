"""Hands events of threads to an event loop, a few in each iteration of the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, ref

T = TypeVar("T")

MAX_EVENTS = 16
"""Maximum number of events that one iteration of a loop receives: when a batch ends, hundreds of its callers may wait
in one loop, and everything else there would stand still until all have gone on."""


class LoopDelivery(Generic[T]):
    """Calls functions on the thread of an event loop, in order. Any thread may deliver.

    Args:
        loop: The event loop. It is not kept alive, but by events that it has not received yet.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._lock = threading.Lock()
        self._events: deque[tuple[Callable[[T], None], T]] = deque()
        self._scheduled = False

    def deliver(self, receive: Callable[[T], None], event: T) -> None:
        """Call a function on the loop's thread, soon. Does not wait for it.

        Args:
            receive: The function. It must not raise.
            event: Its argument.

        Raises:
            RuntimeError: The loop is closed.
        """
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise RuntimeError("the event loop is closed")
        with self._lock:
            self._events.append((receive, event))
            if self._scheduled:
                return
            self._scheduled = True
        loop.call_soon_threadsafe(self._receive_some, loop)

    def _receive_some(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for _ in range(min(MAX_EVENTS, len(self._events))):
                receive, event = self._events.popleft()
                receive(event)
        finally:  # Ctrl-C may end any callback, and the loop may go on
            with self._lock:
                self._scheduled = has_more = bool(self._events)
            if has_more:  # not `_scheduled`, which another thread may have set since
                loop.call_soon(self._receive_some, loop)


class LoopDeliveries(Generic[T]):
    """The `LoopDelivery` of each event loop, until that is closed or dropped."""

    def __init__(self) -> None:
        self._deliveries: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopDelivery[T]] = WeakKeyDictionary()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopDelivery[T]:
        """Return the delivery of a loop. Called on its thread.

        Args:
            loop: The event loop.

        Returns:
            The same object for each call, until the loop is closed.
        """
        delivery = self._deliveries.get(loop)
        if delivery is None:
            # Queues refer to their loops: events that were not received would keep a closed loop in memory.
            for reference in self._deliveries.keyrefs():  # a copy: loops of other threads come and go
                other = reference()
                if other is not None and other.is_closed():
                    self._deliveries.pop(other, None)
            delivery = self._deliveries[loop] = LoopDelivery(loop)
        return delivery
