"""Takes a call's inputs in chunks, several of which are under way at once, and yields their outputs in order."""

from __future__ import annotations

import asyncio
import reprlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

from qwen3vl.client.background import BackgroundCalls
from qwen3vl.inputs import Input, Item, aparse, as_item
from qwen3vl.results import ItemOutput, failed_output

CHUNK_ITEMS = 64
"""Maximum number of inputs of a chunk."""
CHUNKS_UNDER_WAY = 4
"""Maximum number of chunks of a call that are encoded, sent or answered at once."""
MAX_CHUNK_DELAY_S = 0.1
"""Seconds after which a chunk is sent though it is not full, because inputs come slowly."""

Chunk: TypeAlias = Sequence[tuple[int, Item | ItemOutput]]
"""Inputs with their indices; in place of one that cannot be parsed, its error."""
SendChunk: TypeAlias = Callable[[Chunk], Coroutine[Any, Any, list[ItemOutput]]]


def run_chunks(
    calls: BackgroundCalls, inputs: Iterator[Input], send: SendChunk, max_items: int = CHUNK_ITEMS
) -> Generator[ItemOutput]:
    """Send inputs and yield their outputs.

    Args:
        calls: Runs `send`.
        inputs: Taken on the caller's thread, as they are needed.
        send: Sends a chunk, and returns an output for each of its inputs.
        max_items: Maximum number of inputs that `send` takes.

    Yields:
        The outputs, in the order of the inputs. Closing the generator cancels the requests.
    """
    under_way: deque[Future[list[ItemOutput]]] = deque()
    try:
        for chunk in _chunks(inputs, min(max_items, CHUNK_ITEMS)):
            under_way.append(calls.submit(send, chunk))
            while under_way and (len(under_way) >= CHUNKS_UNDER_WAY or under_way[0].done()):
                yield from calls.result_of(under_way[0])
                under_way.popleft()
        while under_way:
            yield from calls.result_of(under_way[0])
            under_way.popleft()
    finally:
        for future in under_way:
            future.cancel()


async def arun_chunks(
    calls: BackgroundCalls, inputs: Iterator[Input], send: SendChunk, max_items: int = CHUNK_ITEMS
) -> AsyncGenerator[ItemOutput]:
    """Send inputs as `run_chunks` does, from an event loop. Waiting occupies no thread.

    Args:
        calls: Runs `send`.
        inputs: Taken on the event loop's thread, as they are needed.
        send: As for `run_chunks`.
        max_items: As for `run_chunks`.

    Yields:
        As for `run_chunks`.
    """
    under_way: deque[asyncio.Future[list[ItemOutput]]] = deque()
    try:
        async with aclosing(_achunks(inputs, min(max_items, CHUNK_ITEMS))) as chunks:
            async for chunk in chunks:
                under_way.append(asyncio.wrap_future(calls.submit(send, chunk)))
                await asyncio.sleep(0)  # others may run between two chunks
                while under_way and (len(under_way) >= CHUNKS_UNDER_WAY or under_way[0].done()):
                    for output in await calls.aresult_of(under_way[0]):
                        yield output
                    under_way.popleft()
        while under_way:
            for output in await calls.aresult_of(under_way[0]):
                yield output
            under_way.popleft()
    finally:
        for future in under_way:
            if not (future.cancel() or future.cancelled()):
                future.exception()  # asyncio would log an error that nobody has seen


def _chunks(inputs: Iterator[Input], max_items: int) -> Iterator[Chunk]:
    chunk = _GrowingChunk(max_items)
    for index, value in enumerate(inputs):
        chunk.add(index, _parse(index, value))
        if chunk.complete:
            yield chunk.items
            chunk = _GrowingChunk(max_items)
    if chunk.items:
        yield chunk.items


async def _achunks(inputs: Iterator[Input], max_items: int) -> AsyncGenerator[Chunk]:
    """Yield chunks as `_chunks` does. Media are not copied or decoded on the event loop's thread."""
    chunk = _GrowingChunk(max_items)
    for index, value in enumerate(inputs):
        chunk.add(index, await aparse(partial(_parse, index, value), value))
        if chunk.complete:
            yield chunk.items
            chunk = _GrowingChunk(max_items)
    if chunk.items:
        yield chunk.items


class _GrowingChunk:
    """A chunk that is not complete."""

    def __init__(self, max_items: int) -> None:
        self.items: list[tuple[int, Item | ItemOutput]] = []
        self._max_items = max_items
        self._started_s = 0.0

    def add(self, index: int, item: Item | ItemOutput) -> None:
        self._started_s = self._started_s if self.items else time.monotonic()
        self.items.append((index, item))

    @property
    def complete(self) -> bool:
        """Whether it is full, or has waited for long enough."""
        return len(self.items) == self._max_items or time.monotonic() - self._started_s > MAX_CHUNK_DELAY_S


def _parse(index: int, value: Any) -> Item | ItemOutput:
    try:
        return as_item(value)
    except Exception as error:  # objects of the caller may raise anything
        return failed_output(index, getattr(error, "source", None) or reprlib.repr(value), error)
