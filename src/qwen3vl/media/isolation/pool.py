"""A pool of decoder processes, which are used again, so that an item seldom waits for one to start."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qwen3vl.concurrency.fork_safety import init_in_each_process
from qwen3vl.media.isolation.decoding import MAX_PROCESSES
from qwen3vl.media.isolation.process import DecoderProcess


class DecoderPool:
    """Lends decoder processes to threads. Thread-safe.

    A forked process has a pool without processes at first: those of its parent belong to the parent.

    Args:
        max_processes: Maximum number of processes. Further leases wait until one is free.
    """

    def __init__(self, max_processes: int) -> None:
        self.max_processes = max_processes
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Begin without processes, and release those of the parent process."""
        for process in getattr(self, "_processes", ()):
            process.disown()  # else their connections would stay open here after the parent has ended
        self._processes: set[DecoderProcess] = set()
        self._idle: list[DecoderProcess] = []
        self._slots = threading.BoundedSemaphore(self.max_processes)

    @contextmanager
    def lease(self) -> Iterator[DecoderProcess]:
        """Lend a process for the block; if none is idle, start one. If it is not usable afterwards, end it.

        Yields:
            The process.

        Raises:
            MediaError: No process can be started.
        """
        with self._slots:
            process = self._take_idle() or self._start()
            try:
                yield process
            finally:
                if process.usable:
                    self._idle.append(process)
                else:
                    self._end(process)

    def close(self) -> None:
        """End the idle processes. Later leases start new ones."""
        while self._idle:
            self._end(self._idle.pop())

    def _take_idle(self) -> DecoderProcess | None:
        while True:
            try:
                process = self._idle.pop()
            except IndexError:
                return None
            if process.usable:
                return process
            self._end(process)

    def _start(self) -> DecoderProcess:
        process = DecoderProcess()
        self._processes.add(process)
        return process

    def _end(self, process: DecoderProcess) -> None:
        process.kill()
        self._processes.discard(process)


POOL = DecoderPool(MAX_PROCESSES)
"""The processes of this program."""
atexit.register(POOL.close)
