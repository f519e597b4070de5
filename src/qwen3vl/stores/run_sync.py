"""Running the coroutines of a core that has a blocking client."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without an event loop.

    Args:
        work: The coroutine.

    Returns:
        Its result.

    Raises:
        RuntimeError: The coroutine waits for something.
    """
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("a coroutine of a blocking store waits for something: its core must not use asyncio")
