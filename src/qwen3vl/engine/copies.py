"""Parsing of inputs for event loops: what copies or decodes media has a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.inputs import is_cheap

T = TypeVar("T")

_copies = ForkSafeThreadPool(1, "qwen3vl-copies")
"""One thread for the process, since a Pillow image must not be decoded by two: callers may pass it several times."""


async def aparse(value: Any, parse: Callable[[], T]) -> T:
    """Parse an input without blocking the event loop.

    Args:
        value: The input.
        parse: Parses it.

    Returns:
        What `parse` returns.
    """
    if is_cheap(value):
        return parse()
    return await asyncio.wrap_future(_copies.submit(parse))
