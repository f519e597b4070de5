"""Blocking work on behalf of event loops."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool

P = ParamSpec("P")
T = TypeVar("T")

_MAX_WORKERS = 4
"""Maximum number of functions at once. They load models, read files and decode images: more need more memory."""
_pool = ForkSafeThreadPool(_MAX_WORKERS, "qwen3vl-background")


async def run_in_executor(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function without blocking the event loop.

    For what really blocks: loading a model, files, a cache. A model that is loaded is awaited (`Embedder.aembed`).

    The threads belong to this package: calls that wait for a model to load do not occupy asyncio's default executor,
    which name lookups and other libraries need. If the awaiting task is cancelled while the function runs, the
    function runs to its end and its result is dropped.

    Args:
        work: The function. It sees the caller's context variables.
        *args: Its positional arguments.
        **kwargs: Its keyword arguments.

    Returns:
        What the function returns.
    """
    return await run_in_pool(_pool, work, *args, **kwargs)


async def run_in_pool(pool: ForkSafeThreadPool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function on a thread of a pool, as `run_in_executor` does on one of its own.

    Args:
        pool: The pool.
        work: The function. It sees the caller's context variables.
        *args: Its positional arguments.
        **kwargs: Its keyword arguments.

    Returns:
        What the function returns.
    """
    context = contextvars.copy_context()
    call = partial(context.run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(pool.executor, call)
