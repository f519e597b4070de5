"""How the caller of a write learns that the write builds an index, and ends that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[float], None]
_progress: ContextVar[Progress | None] = ContextVar("qwen3vl_indexing_progress", default=None)


class StopIndexing(Exception):  # noqa: N818 (not an error)
    """Raised by the function that `on_indexing` has set: no index is built, and the points stay written."""


@contextmanager
def on_indexing(progress: Progress) -> Iterator[None]:
    """Set what is called while a write of this thread or task builds an index, within a `with` block.

    It belongs to the caller and not to the store, because several ingestions may write into one store at once.

    Args:
        progress: Called several times a second with the seconds that have passed; it may raise `StopIndexing`.
    """
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def indexing_progress() -> Progress | None:
    """Return what to call while a write builds an index; None if nobody has set it."""
    return _progress.get()
