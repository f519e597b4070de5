"""The threads that clients read, decode and encode media on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = ForkSafeThreadPool(8, "qwen3vl-client")
"""They read files, fetch URLs and encode images. They wait for nothing that runs in the background loop."""


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that blocks.

    Args:
        function: The function.
        *args: Its positional arguments.
        **kwargs: Its keyword arguments.

    Returns:
        Its result.
    """
    return await asyncio.wrap_future(_THREADS.submit(function, *args, **kwargs))
