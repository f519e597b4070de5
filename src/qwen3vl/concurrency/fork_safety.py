"""State that each process needs for itself: threads and locks do not survive a fork, so they are created anew there."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class ProcessStateOwner(Protocol):
    """An object with threads, locks or other state that is of use in one process only."""

    def init_process_state(self) -> None:
        """Create this state. `init_in_each_process` calls it, at once and in each forked process."""


_owners: weakref.WeakSet[ProcessStateOwner] = weakref.WeakSet()


def init_in_each_process(owner: ProcessStateOwner) -> None:
    """Create an object's process state, now and in each process that is forked while the object is alive.

    Args:
        owner: The object. It is held by a weak reference.
    """
    owner.init_process_state()
    _owners.add(owner)


def _init_forked_process() -> None:
    for owner in list(_owners):
        owner.init_process_state()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_init_forked_process)


class ForkSafeLock:
    """A lock that is free in a forked process, whoever held it when the process forked."""

    _lock: threading.Lock | threading.RLock

    def __init__(self) -> None:
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Create the lock."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class ForkSafeRLock(ForkSafeLock):
    """Such a lock that a thread may take several times."""

    def init_process_state(self) -> None:
        """Create the lock."""
        self._lock = threading.RLock()
