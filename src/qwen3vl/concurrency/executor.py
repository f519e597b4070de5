"""Blocking work on behalf of event loops."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from qwen3vl.concurrency.fork_safety import register_thread_owner

P = ParamSpec("P")
T = TypeVar("T")
_THREADS = 4
"""Calls that plan for the devices or wait for them.  More would only hold more pictures in memory."""


class _Background:
    def __init__(self) -> None:
        register_thread_owner(self)

    def start_threads(self) -> None:
        self.pool = ThreadPoolExecutor(_THREADS, "qwen3vl-background")


_background = _Background()


async def run_in_executor(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of blocking work, without blocking the event loop.

    The threads are this package's own: hundreds of calls that wait for a model keep nobody else's work (name
    lookups, other clients' files) from asyncio's default threads.  A call that is cancelled while it runs goes
    on to its end unseen.
    """
    context = contextvars.copy_context()
    call = partial(context.run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_background.pool, call)
