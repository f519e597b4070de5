"""Blocking work on behalf of event loops."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_THREADS = 4
"""One runs the model; the others prepare for it or wait.  More would only hold more pictures in memory."""
_pool = ThreadPoolExecutor(_THREADS, "qwen3vl-background")


async def in_background(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of blocking work, without blocking the event loop.

    The threads are this package's own: hundreds of calls that wait for a model keep nobody else's work (name
    lookups, other clients' files) from asyncio's default threads.  A call that is cancelled while it runs goes
    on to its end unseen.
    """
    context = contextvars.copy_context()
    call = partial(context.run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_pool, call)
