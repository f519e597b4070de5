"""Packs on their way: prompts that wait to be packed, what was started, and what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from qwen3vl.engine.packing import Pack, common_prefix
from qwen3vl.engine.replica import DeviceResult
from qwen3vl.engine.requests import Request
from qwen3vl.engine.worker import DeviceTimestamp, DeviceWorker
from qwen3vl.processing.fitting import FittedPrompt

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRequest:
    """A request whose prompt is planned."""

    request: Request
    fitted: FittedPrompt


class PendingBatch:
    """Prompts that wait to be packed together."""

    def __init__(self) -> None:
        self.prompts: list[PreparedRequest] = []
        self.held = 0
        """Bytes of files in memory."""
        self.tokens = 0
        """About how many tokens the prompts do not share: each beyond what it has in common with the one before."""
        self._since = 0.0

    @property
    def age(self) -> float:
        """Seconds since the first prompt came."""
        return time.perf_counter() - self._since if self.prompts else 0.0

    def add(self, prompt: PreparedRequest) -> None:
        ids = prompt.fitted.prompt.ids
        if self.prompts:
            self.tokens -= common_prefix(ids, self.prompts[-1].fitted.prompt.ids)
        else:
            self._since = time.perf_counter()
        self.tokens += len(ids)
        self.held += sum(each.buffered_bytes for each in prompt.fitted.media)
        self.prompts.append(prompt)


@dataclass(frozen=True, slots=True, eq=False)
class ScheduledBatch:
    """A pack and its prompts, in the order of its members."""

    pack: Pack
    prompts: list[PreparedRequest]


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """Prompts that were run together, or why they were not; `source` names what is to blame."""

    prompts: list[PreparedRequest]
    ran: DeviceResult | Exception
    source: str | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class InFlightBatch:
    """A pack on its way: its pixels are being made, it waits for its device, or it runs there."""

    worker: DeviceWorker
    tokens: int
    pixels: dict[Hashable, Future[Tensor]]
    future: Future[list[BatchResult]]

    @property
    def done(self) -> bool:
        if not self.future.done() or self.future.exception() is not None:
            return self.future.done()
        return all(each.ran.ended.passed for each in self.future.result() if isinstance(each.ran, DeviceResult))


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """One call's packs on their way, in the order in which they were started, and when it began on each device.

    threads: those of torch's that the caller's thread is set to.
    """

    began: dict[DeviceWorker, DeviceTimestamp]
    in_flight: list[InFlightBatch] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def idle(self) -> bool:
        return all(batch_in_flight.done for batch_in_flight in self.in_flight)

    @property
    def landed(self) -> bool:
        return any(batch_in_flight.done for batch_in_flight in self.in_flight)

    def wait_any(self) -> InFlightBatch:
        """A pack that is done, or else the first to be; it is no longer on its way."""
        batch_in_flight = next((batch_in_flight for batch_in_flight in self.in_flight if batch_in_flight.done), None)
        if batch_in_flight is None:
            done, _ = wait([batch_in_flight.future for batch_in_flight in self.in_flight], return_when=FIRST_COMPLETED)
            batch_in_flight = next(
                batch_in_flight for batch_in_flight in self.in_flight if batch_in_flight.future in done
            )
        self._forget(batch_in_flight)
        return batch_in_flight

    def cancel(self) -> None:
        """Stops what runs and what waits."""
        self.stop.set()
        for batch_in_flight in self.in_flight.copy():
            self._forget(batch_in_flight)
            for pixel in batch_in_flight.pixels.values():
                pixel.cancel()

    def _forget(self, batch_in_flight: InFlightBatch) -> None:
        self.in_flight.remove(batch_in_flight)
        batch_in_flight.worker.add_pending_tokens(-batch_in_flight.tokens)


def when_all(futures: Iterable[Future[Any]], start: Callable[[], Future[T]]) -> Future[T]:
    """What `start` begins once all futures are done, by whichever thread ends the last: nobody waits for them."""
    result: Future[T] = Future()
    waiting = list(futures)
    left = len(waiting) + 1
    lock = threading.Lock()

    def finish(begun: Future[T]) -> None:
        try:
            result.set_result(begun.result())
        except BaseException as error:  # whatever it is, it is for whoever waits
            result.set_exception(error)

    def one(_: Future[Any] | None) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        try:
            start().add_done_callback(finish)
        except BaseException as error:  # the interpreter is ending, say
            result.set_exception(error)

    for future in waiting:
        future.add_done_callback(one)
    one(None)
    return result
