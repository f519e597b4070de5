"""Cancellation of a forward pass between its layers, and of a preparation between its media."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Cancelled(Exception):  # noqa: N818 (a control signal, which users never see)
    """Raised on a thread of the engine when all calls that need the work were interrupted, dropped or closed."""


_current = threading.local()


@contextmanager
def cancellation_scope(cancelled: Callable[[], bool]) -> Iterator[None]:
    """Make `raise_if_cancelled` on this thread check a function while the context is entered. Do not nest scopes.

    Args:
        cancelled: Returns whether the result is no longer needed.
    """
    _current.cancelled = cancelled
    try:
        yield
    finally:
        _current.cancelled = None


def raise_if_cancelled(*_: Any) -> None:
    """Raise `Cancelled` if the result of this thread's `cancellation_scope` is no longer needed.

    Registered as a forward pre-hook on every layer; therefore it accepts a hook's arguments, which it ignores.

    Raises:
        Cancelled: It is not needed.
    """
    cancelled = getattr(_current, "cancelled", None)
    if cancelled is not None and cancelled():
        raise Cancelled
