"""The thread of a device, and the queue of the work that waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar

import torch

from qwen3vl.concurrency.fork_safety import register_thread_owner
from qwen3vl.engine.cancellation import Cancelled, cancellation_scope, raise_if_cancelled
from qwen3vl.engine.timing import DeviceTimestamp, use_device

T = TypeVar("T")

TOKENS_PER_POSITION = 256
"""Tokens for which work is moved back by one position in the queue, so that a query passes an indexing run."""
MAX_OVERTAKING = 8
"""Maximum number of smaller, later submissions that may overtake the largest one."""


@dataclass(frozen=True, slots=True, order=True)
class _QueuedWork:
    """Work in a device's queue, ordered by position and then by the order of submission."""

    position: float
    number: int
    stop: threading.Event = field(compare=False)
    num_threads: int = field(compare=False)
    work: Callable[[], Any] = field(compare=False)
    result: Future[Any] = field(compare=False)

    def run(self, device: torch.device) -> None:
        try:
            if torch.get_num_threads() != self.num_threads:  # torch keeps this setting for each thread
                torch.set_num_threads(self.num_threads)
            with cancellation_scope(self.stop), torch.inference_mode(), use_device(device):
                raise_if_cancelled()
                self.result.set_result(self.work())
        except Cancelled:
            # Without the traceback, whose frames refer to the model: it would stay alive with the future.
            self.result.set_exception(Cancelled())
        except BaseException as error:  # whoever waits for the result handles it
            self.result.set_exception(error)


class DeviceWorker:
    """Runs work on a device, on one thread, for all models and callers.

    Args:
        device: The device.

    Attributes:
        device: The device.
        idle_since: End of the last work on the device. On CUDA it may lie in the future, behind queued kernels.
        pending_tokens: Tokens of the batches that are on their way to the device, that run on it, or whose results
            were not fetched yet.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.idle_since = DeviceTimestamp.now(device)
        self._num_submitted = 0
        register_thread_owner(self)

    def start_threads(self) -> None:
        """Create the thread's executor, the queue and its lock. Called again in each forked process."""
        self.pending_tokens = 0
        self._thread = ThreadPoolExecutor(1, f"qwen3vl-{self.device}")
        self._queue: list[_QueuedWork] = []
        self._running: tuple[threading.Event, threading.Event] | None = None  # (stop, ended) of the present work
        self._previous_end: DeviceTimestamp | None = None
        # Reentrant: the garbage collector may close an abandoned stream, which takes this lock, on any thread and at
        # any time, also while that thread has the lock.
        self._lock = threading.RLock()

    def add_pending_tokens(self, num_tokens: int) -> None:
        """Change the number of pending tokens.

        Args:
            num_tokens: Tokens of a batch; negative when it is done.
        """
        with self._lock:
            self.pending_tokens += num_tokens

    def submit(self, work: Callable[[], T], *, stop: threading.Event, num_tokens: int, num_threads: int) -> Future[T]:
        """Queue work for the device's thread.

        The queue is first in, first out, except that work moves back by a position for every `TOKENS_PER_POSITION`
        tokens, up to `MAX_OVERTAKING` positions.

        Args:
            work: Called in inference mode, with the device as the current one.
            stop: Once it is set, the work ends with `Cancelled`: before it begins, or at its next layer.
            num_tokens: Size of the work.
            num_threads: Number of torch's threads for operations on the CPU.

        Returns:
            The future of the result.
        """
        result: Future[T] = Future()
        with self._lock:
            self._num_submitted += 1
            position = self._num_submitted + min(MAX_OVERTAKING, num_tokens / TOKENS_PER_POSITION)
            heappush(self._queue, _QueuedWork(position, self._num_submitted, stop, num_threads, work, result))
        self._thread.submit(self._run_queue)
        return result

    def flush_cancelled(self, timeout_s: float) -> None:
        """Drop queued work whose stop event is set, and wait for the end of the running work if it is stopped, too.

        Args:
            timeout_s: Maximum seconds to wait.
        """
        with self._lock:
            cancelled = [queued for queued in self._queue if queued.stop.is_set()]
            self._queue = [queued for queued in self._queue if not queued.stop.is_set()]
            heapify(self._queue)
            running = self._running
        for queued in cancelled:
            queued.result.set_exception(Cancelled())
        if running is not None:
            stop, ended = running
            if stop.is_set():
                ended.wait(timeout_s)

    def _run_queue(self) -> None:
        """Run all queued work, including work whose own call of this method was prevented by a Ctrl-C."""
        while True:
            # At most two batches are in the device's stream: later but smaller work can still overtake the others.
            if self._previous_end is not None:
                with suppress(RuntimeError):  # whoever fetches the results gets the error
                    self._previous_end.wait()
            with self._lock:
                if not self._queue:
                    return
                queued = heappop(self._queue)
                ended = threading.Event()
                self._running = (queued.stop, ended)
            self._previous_end = self.idle_since
            queued.run(self.device)
            del queued  # it refers to a model; after `flush_cancelled` nothing may refer to it
            self._running = None
            ended.set()


_workers: dict[tuple[torch.device, int], DeviceWorker] = {}
_workers_lock = threading.Lock()


def device_workers(devices: Sequence[torch.device]) -> list[DeviceWorker]:
    """Return the worker of each device. All models of a process use the same ones.

    Args:
        devices: The devices. One that is named again gets a further worker.

    Returns:
        One worker for each entry of `devices`.
    """
    workers = []
    with _workers_lock:
        for position, device in enumerate(devices):
            key = (device, devices[:position].count(device))
            if key not in _workers:
                _workers[key] = DeviceWorker(device)
            workers.append(_workers[key])
    return workers
