"""A device's thread: one piece of work after the other, whichever model and caller it is for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from typing import Any, TypeVar

import torch

from qwen3vl.concurrency.fork_safety import register_thread_owner

T = TypeVar("T")


class Cancelled(Exception):  # noqa: N818 (nobody's error)
    """The caller has gone: a Ctrl-C, or a stream that nobody reads on."""


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTimestamp:
    """A moment of a device: of the host's clock, or on CUDA an event in the queue of its work."""

    time: float
    event: torch.cuda.Event | None = None

    def since(self, earlier: DeviceTimestamp) -> float:
        """Seconds between two moments, once both have passed."""
        if self.event is None or earlier.event is None:
            return self.time - earlier.time
        earlier.event.synchronize()
        self.event.synchronize()
        return float(earlier.event.elapsed_time(self.event)) / 1000

    @property
    def passed(self) -> bool:
        try:
            return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]
        except RuntimeError:  # the device tells of an error late: whoever fetches the results is told
            return True


SMALL = 256
"""Tokens for which one later, smaller piece of work may go first: a query does not wait for all that is indexed."""
OVERTAKING = 8
"""Later ones that may overtake the largest."""


class DeviceWorker:
    """The thread of a device, what waits for it, and since when the device has had nothing to do."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ended = self.timestamp()
        self._number = 0
        register_thread_owner(self)

    def start_threads(self) -> None:
        self.tokens = 0
        """Of the packs that are on their way to the device, run there, or were not fetched yet."""
        self._thread = ThreadPoolExecutor(1, f"qwen3vl-{self.device}")
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._queued: DeviceTimestamp | None = None
        # Reentrant: a stream that nobody holds may be closed by the garbage collector, on any thread, anywhere.
        self._lock = threading.RLock()

    def add_pending_tokens(self, tokens: int) -> None:
        """Adds to what waits for the device; less than nothing where that is done."""
        with self._lock:
            self.tokens += tokens

    def submit(self, work: Callable[[], T], stop: threading.Event, tokens: int, threads: int) -> Future[T]:
        """The work on this thread, by so many threads of torch's.  Once `stop` is set, it ends with `Cancelled`: at the
        next `check`.

        First come, first served, but small ones a little earlier, the more so the fewer their `tokens`.
        """
        result: Future[T] = Future()

        def run() -> None:
            try:
                if torch.get_num_threads() != threads:  # a setting of torch's for each thread
                    torch.set_num_threads(threads)
                with _until(stop), torch.inference_mode(), _on(self.device):
                    raise_if_cancelled()
                    result.set_result(work())
            except BaseException as error:  # whatever it is, it is for whoever waits
                result.set_exception(error)

        with self._lock:
            self._number += 1
            heappush(self._waiting, (self._number + min(OVERTAKING, tokens / SMALL), self._number, run))
        self._thread.submit(self._run)
        return result

    def _run(self) -> None:
        """All that waits, one by one: also what a Ctrl-C kept from being announced."""
        while True:
            # One pack runs and one is queued behind it: what comes meanwhile may still go in front of others.
            if self._queued is not None and self._queued.event is not None:
                with suppress(RuntimeError):  # whoever fetches its results is told
                    self._queued.event.synchronize()
            with self._lock:
                if not self._waiting:
                    return
                _, _, run = heappop(self._waiting)
            self._queued = self.ended
            run()

    def timestamp(self) -> DeviceTimestamp:
        """Now, by the device."""
        if self.device.type != "cuda":
            return DeviceTimestamp(time.perf_counter())
        with _on(self.device):
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.default_stream(self.device))
        return DeviceTimestamp(time.perf_counter(), event)


@lru_cache(maxsize=64)
def _lane(device: torch.device, _number: int) -> DeviceWorker:
    return DeviceWorker(device)


_making = threading.Lock()


def device_workers(devices: Sequence[torch.device]) -> list[DeviceWorker]:
    """The worker of each device, the same for all models; a device that is named again has another."""
    with _making:
        return [_lane(device, devices[:number].count(device)) for number, device in enumerate(devices)]


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
    else:
        yield


_running = threading.local()


@contextmanager
def _until(stop: threading.Event) -> Iterator[None]:
    _running.stop = stop
    try:
        yield
    finally:
        _running.stop = None


def raise_if_cancelled(*_: Any) -> None:
    """Raises `Cancelled` on a worker whose work nobody waits for any more; elsewhere does nothing."""
    stop = getattr(_running, "stop", None)
    if stop is not None and stop.is_set():
        raise Cancelled
