"""Takes a call's inputs in chunks, several of which are under way at once, and yields their outputs in order."""

from __future__ import annotations

import asyncio
import reprlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeAlias

from qwen3vl.client.transport import Transport
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
    transport: Transport, inputs: Iterator[Input], send: SendChunk, max_items: int = CHUNK_ITEMS
) -> Generator[ItemOutput]:
    """Send inputs and yield their outputs.

    Args:
        transport: Runs `send`.
        inputs: Taken on the caller's thread, as they are needed.
        send: Sends a chunk, and returns an output for each of its inputs.
        max_items: Maximum number of inputs that `send` takes.

    Yields:
        The outputs, in the order of the inputs. Closing the generator cancels the requests.
    """
    under_way: deque[Future[list[ItemOutput]]] = deque()
    try:
        for chunk in _chunks(inputs, min(max_items, CHUNK_ITEMS)):
            under_way.append(transport.submit(send, chunk))
            while under_way and (len(under_way) >= CHUNKS_UNDER_WAY or under_way[0].done()):
                yield from transport.result_of(under_way[0])
                under_way.popleft()
        while under_way:
            yield from transport.result_of(under_way[0])
            under_way.popleft()
    finally:
        for future in under_way:
            future.cancel()


async def arun_chunks(
    transport: Transport, inputs: Iterator[Input], send: SendChunk, max_items: int = CHUNK_ITEMS
) -> AsyncGenerator[ItemOutput]:
    """Send inputs as `run_chunks` does, from an event loop. Waiting occupies no thread.

    Args:
        transport: Runs `send`.
        inputs: Taken on the event loop's thread, as they are needed.
        send: As for `run_chunks`.
        max_items: As for `run_chunks`.

    Yields:
        As for `run_chunks`.
    """
    under_way: deque[asyncio.Future[list[ItemOutput]]] = deque()
    try:
        async for chunk in _achunks(inputs, min(max_items, CHUNK_ITEMS)):
            under_way.append(asyncio.wrap_future(transport.submit(send, chunk)))
            await asyncio.sleep(0)  # others may run between two chunks
            while under_way and (len(under_way) >= CHUNKS_UNDER_WAY or under_way[0].done()):
                for output in await transport.aresult_of(under_way[0]):
                    yield output
                under_way.popleft()
        while under_way:
            for output in await transport.aresult_of(under_way[0]):
                yield output
            under_way.popleft()
    finally:
        for future in under_way:
            if not (future.cancel() or future.cancelled()):
                future.exception()  # asyncio would log an error that nobody has seen


def _chunks(inputs: Iterator[Input], max_items: int) -> Iterator[Chunk]:
    pending = _PendingChunk(max_items)
    for index, value in enumerate(inputs):
        if chunk := pending.add(index, _parse(index, value)):
            yield chunk
    if pending.items:
        yield pending.items


async def _achunks(inputs: Iterator[Input], max_items: int) -> AsyncGenerator[Chunk]:
    pending = _PendingChunk(max_items)
    for index, value in enumerate(inputs):
        if chunk := pending.add(index, await aparse(partial(_parse, index, value), value)):
            yield chunk
    if pending.items:
        yield pending.items


class _PendingChunk:
    """The chunk that is being filled.

    Args:
        max_items: Maximum number of its items.
    """

    def __init__(self, max_items: int) -> None:
        self.items: list[tuple[int, Item | ItemOutput]] = []
        self._max_items = max_items
        self._started_s = 0.0

    def add(self, index: int, item: Item | ItemOutput) -> Chunk | None:
        """Add an item, and return the chunk if it is to be sent now."""
        now_s = time.monotonic()
        if not self.items:
            self._started_s = now_s
        self.items.append((index, item))
        if len(self.items) < self._max_items and now_s - self._started_s <= MAX_CHUNK_DELAY_S:
            return None
        chunk, self.items = self.items, []
        return chunk


def _parse(index: int, value: Any) -> Item | ItemOutput:
    try:
        return as_item(value)
    except Exception as error:  # objects of the caller may raise anything
        return failed_output(index, getattr(error, "source", None) or reprlib.repr(value), error)
