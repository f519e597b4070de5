"""Restart of threads in forked processes: threads do not survive a fork, so their owners create new ones there."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class ThreadOwner(Protocol):
    """An object that owns threads."""

    def start_threads(self) -> None:
        """Create the threads, and the queues and locks that only they use. Called again in each forked process."""


_owners: weakref.WeakSet[ThreadOwner] = weakref.WeakSet()


def register_thread_owner(owner: ThreadOwner) -> None:
    """Start an object's threads, now and in each process that is forked while the object is alive.

    Args:
        owner: The object. It is held by a weak reference.
    """
    owner.start_threads()
    _owners.add(owner)


def _restart_threads() -> None:
    for owner in list(_owners):
        owner.start_threads()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_restart_threads)


class ForkSafeLock:
    """A lock that is free in a forked process, whoever held it when the process forked."""

    def __init__(self) -> None:
        register_thread_owner(self)

    def start_threads(self) -> None:
        """Create the lock; called again in each forked process."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
