"""Keeps decoder processes for further items, so that an item seldom waits for one to start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qwen3vl.concurrency.fork_safety import register_thread_owner
from qwen3vl.media.isolation.decoding import MAX_PROCESSES
from qwen3vl.media.isolation.process import DecoderProcess


class DecoderPool:
    """Lends decoder processes. Any number of threads may use one object at once.

    A forked process begins without any: the processes belong to the one that has started them.

    Args:
        max_processes: Maximum number of processes; who needs another one waits for one that is done.
    """

    def __init__(self, max_processes: int) -> None:
        self.max_processes = max_processes
        register_thread_owner(self)

    def start_threads(self) -> None:
        """Begin without processes; called again in each forked process."""
        self._idle: list[DecoderProcess] = []
        self._slots = threading.BoundedSemaphore(self.max_processes)

    @contextmanager
    def lease(self) -> Iterator[DecoderProcess]:
        """Lend a process for the block, started if none is idle. It is ended afterwards if it is not usable any more.

        Raises:
            MediaError: It cannot be started.
        """
        with self._slots:
            process = self._take_idle() or DecoderProcess()
            try:
                yield process
            finally:
                if process.usable:
                    self._idle.append(process)
                else:
                    process.kill()

    def close(self) -> None:
        """End the idle processes. Later leases start new ones."""
        while self._idle:
            self._idle.pop().kill()

    def _take_idle(self) -> DecoderProcess | None:
        while True:
            try:
                process = self._idle.pop()
            except IndexError:
                return None
            if process.usable:
                return process
            process.kill()


POOL = DecoderPool(MAX_PROCESSES)
"""The processes of this program."""
