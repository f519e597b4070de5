"""Keeps decoder processes for further items, so that an item seldom waits for one to start."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qwen3vl.concurrency.fork_safety import init_in_each_process
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
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Begin without processes, and release those of the parent process."""
        for process in getattr(self, "_processes", ()):
            process.disown()  # else they would not notice that the parent has ended
        self._processes: set[DecoderProcess] = set()
        self._idle: list[DecoderProcess] = []
        self._slots = threading.BoundedSemaphore(self.max_processes)

    @contextmanager
    def lease(self) -> Iterator[DecoderProcess]:
        """Lend a process for the block, started if none is idle. It is ended afterwards if it is not usable any more.

        Yields:
            The process.

        Raises:
            MediaError: It cannot be started.
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
