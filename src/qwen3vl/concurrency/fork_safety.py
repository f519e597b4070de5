"""Threads do not survive a fork: what owns some makes new ones in the child, instead of waiting for ever."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Owner(Protocol):
    def start_threads(self) -> None:
        """Makes the threads, and what is theirs alone: their queue, their lock."""


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def register_thread_owner(owner: Owner) -> None:
    """Starts the threads of an object, now and in each process that is forked off while it lives."""
    owner.start_threads()
    _owners.add(owner)


def _restart() -> None:
    for owner in list(_owners):
        owner.start_threads()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_restart)
