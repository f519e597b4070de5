"""Cancellation of a forward pass between its layers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Cancelled(Exception):  # noqa: N818 (a control signal, which users never see)
    """Raised on a device's thread when the call that requested the work was interrupted, dropped or closed."""


_current = threading.local()


@contextmanager
def cancellation_scope(stop: threading.Event) -> Iterator[None]:
    """Make `raise_if_cancelled` on this thread check a stop event while the context is entered. Do not nest scopes.

    Args:
        stop: Set when the result is no longer needed.
    """
    _current.stop = stop
    try:
        yield
    finally:
        _current.stop = None


def raise_if_cancelled(*_: Any) -> None:
    """Raise `Cancelled` if the stop event of this thread's `cancellation_scope` is set.

    Registered as a forward pre-hook on every layer; therefore it accepts a hook's arguments, which it ignores.

    Raises:
        Cancelled: The stop event is set.
    """
    stop = getattr(_current, "stop", None)
    if stop is not None and stop.is_set():
        raise Cancelled
