"""The thread of a device, which takes its work from the queues of the models that are on it."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from qwen3vl.concurrency.fork_safety import ForkSafeLock, init_in_each_process
from qwen3vl.engine.cancellation import Cancelled, cancellation_scope, raise_if_cancelled
from qwen3vl.engine.fairness import Turn
from qwen3vl.engine.timing import DeviceTimestamp, use_device

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceWork:
    """Work for a device's thread.

    Attributes:
        run: Called in inference mode, with the device as the current one.
        finish: Called on the worker's second thread, with the result of `run`, or with what it raised; `Cancelled` if
            the result is not needed any more.
        cancelled: Returns whether the result is not needed any more. The work then ends with `Cancelled`: before it
            begins, or at its next layer.
        num_threads: Number of torch's threads for operations on the CPU.
    """

    run: Callable[[], Any]
    finish: Callable[[Any], None]
    cancelled: Callable[[], bool]
    num_threads: int


class WorkSource(Protocol):
    """A model's queue, as a device's worker sees it."""

    def next_turn(self) -> tuple[Turn, float] | None:
        """Return the turn of the next work, and seconds to wait before taking it; None if there is no work."""
        ...

    def take_work(self, worker: DeviceWorker) -> DeviceWork | None:
        """Take the next work for a worker's device; None if it was cancelled, or another worker took it."""
        ...


class DeviceWorker:
    """Runs work on a device, on one thread, for all models and callers.

    A second thread hands out the results, so that the device can begin with the next work.

    Args:
        device: The device.

    Attributes:
        device: The device.
        active_since: Since when calls use the device: the begin of the first one after there were none.
        idle_since: End of the last work on the device. On CUDA it may lie in the future, behind queued kernels.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.idle_since = DeviceTimestamp.now(device)
        self._sources: tuple[weakref.ref[WorkSource], ...] = ()
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Create the executors of the threads, without calls or work."""
        self.active_since: DeviceTimestamp | None = None
        self._calls: set[int] = set()
        self._thread = ThreadPoolExecutor(1, f"qwen3vl-{self.device}")
        self._results_thread = ThreadPoolExecutor(1, f"qwen3vl-{self.device}-results")
        self._condition = threading.Condition()
        self._num_notified = 0
        self._active = False
        self._taking = False  # whether work was perhaps taken that `_running` does not show yet
        self._running: tuple[Callable[[], bool], threading.Event] | None = None  # (cancelled, ended) of present work
        self._previous_end: DeviceTimestamp | None = None

    def attach(self, source: WorkSource) -> None:
        """Take work from a queue from now on, until it is garbage collected.

        Args:
            source: The queue. It is held by a weak reference.
        """
        with self._condition:  # threads that create models at once would overwrite each other's entry
            alive = tuple(reference for reference in self._sources if reference() is not None)
            self._sources = (*alive, weakref.ref(source))

    def add_call(self, call: int) -> None:
        """Note that a call began that uses the device.

        Args:
            call: Number of the call.
        """
        if not self._calls:
            self.active_since = DeviceTimestamp.now(self.device)
        self._calls.add(call)

    def remove_call(self, call: int) -> None:
        """Note that a call has ended.

        Args:
            call: Number of the call.
        """
        self._calls.discard(call)

    def notify(self) -> None:
        """Note that a queue has work.

        Raises:
            RuntimeError: The interpreter is shutting down.
        """
        with self._condition:
            self._num_notified += 1
            self._condition.notify()
            active = self._active
        if not active:
            self._thread.submit(self._run_all)

    def wait_for_cancelled(self, timeout_s: float) -> None:
        """Wait for the end of the running work if it is cancelled.

        Args:
            timeout_s: Maximum seconds to wait.
        """
        while self._taking:  # for microseconds
            time.sleep(0.001)
        running = self._running
        if running is not None:
            cancelled, ended = running
            if cancelled():
                ended.wait(timeout_s)

    def _run_all(self) -> None:
        """Run work until there is none."""
        try:
            while self._run_next():
                pass
        except BaseException:
            with self._condition:
                self._active = False
            log.exception("the worker of %s stopped; it goes on with the next request", self.device)

    def _run_next(self) -> bool:
        """Run the next work, or wait until it is due. Afterwards nothing refers to the work, hence to its model.

        Returns:
            Whether there may be more work.
        """
        # At most two batches are in the device's stream: later but smaller work can still overtake the others.
        if self._previous_end is not None:
            with suppress(RuntimeError):  # whoever fetches the results gets the error
                self._previous_end.wait()
        with self._condition:
            self._active = True
            num_notified = self._num_notified
        work, wait_s = self._take()
        if work is not None:
            self._previous_end = self.idle_since
            self._run(work)
            return True
        with self._condition:
            if self._num_notified != num_notified:
                return True
            if wait_s is None:
                self._active = False
                return False
            self._condition.wait(wait_s)
            return True

    def _take(self) -> tuple[DeviceWork | None, float | None]:
        """Take the next work that is due, or return how many seconds to wait; None if there is nothing to wait for."""
        sources = [source for reference in self._sources if (source := reference()) is not None]
        turns = [(turn, number) for number, source in enumerate(sources) if (turn := source.next_turn()) is not None]
        if not turns:
            return None, None
        due = [(turn, number) for (turn, wait_s), number in turns if wait_s <= 0]
        if not due:
            return None, min(wait_s for (_, wait_s), _ in turns)
        _, number = min(due)
        self._taking = True
        try:
            work = sources[number].take_work(self)
            if work is not None:
                self._running = (work.cancelled, threading.Event())
        finally:
            self._taking = False
        return work, 0.0

    def _run(self, work: DeviceWork) -> None:
        result: Any
        try:
            if torch.get_num_threads() != work.num_threads:  # torch keeps this setting for each thread
                torch.set_num_threads(work.num_threads)
            with cancellation_scope(work.cancelled), torch.inference_mode(), use_device(self.device):
                raise_if_cancelled()
                result = work.run()
        except Cancelled:
            # Without the traceback, whose frames refer to the model: it would stay alive with the exception.
            result = Cancelled()
        except BaseException as error:  # whoever waits for the result handles it
            result = error.with_traceback(None)
        running, self._running = self._running, None
        if running is not None:
            running[1].set()
        try:
            self._results_thread.submit(work.finish, result)
        except RuntimeError:  # the interpreter is shutting down
            work.finish(result)


_workers: dict[tuple[torch.device, int], DeviceWorker] = {}
_workers_lock = ForkSafeLock()


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
