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

from qwen3vl.engine.jobs import Job
from qwen3vl.engine.lane import Lane, Mark
from qwen3vl.engine.replica import Ran
from qwen3vl.packing import Pack, common_prefix
from qwen3vl.planning import Planning

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A job whose prompt is planned."""

    job: Job
    planning: Planning


class Window:
    """Prompts that wait to be packed together."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.held = 0
        """Bytes of files in memory."""
        self.tokens = 0
        """About how many tokens the prompts do not share: each beyond what it has in common with the one before."""
        self._since = 0.0

    @property
    def age(self) -> float:
        """Seconds since the first prompt came."""
        return time.perf_counter() - self._since if self.prompts else 0.0

    def add(self, prompt: Prompt) -> None:
        ids = prompt.planning.prompt.ids
        if self.prompts:
            self.tokens -= common_prefix(ids, self.prompts[-1].planning.prompt.ids)
        else:
            self._since = time.perf_counter()
        self.tokens += len(ids)
        self.held += sum(each.held for each in prompt.planning.media)
        self.prompts.append(prompt)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A pack and its prompts, in the order of its members."""

    pack: Pack
    prompts: list[Prompt]


@dataclass(frozen=True, slots=True, eq=False)
class Landing:
    """Prompts that were run together, or why they were not; `source` names what is to blame."""

    prompts: list[Prompt]
    ran: Ran | Exception
    source: str | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """A pack on its way: its pixels are being made, it waits for its device, or it runs there."""

    lane: Lane
    tokens: int
    pixels: dict[Hashable, Future[Tensor]]
    future: Future[list[Landing]]

    @property
    def done(self) -> bool:
        if not self.future.done() or self.future.exception() is not None:
            return self.future.done()
        return all(each.ran.ended.passed for each in self.future.result() if isinstance(each.ran, Ran))


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call's packs on their way, in the order in which they were started, and when it began on each device.

    threads: those of torch's that the caller's thread is set to.
    """

    began: dict[Lane, Mark]
    flights: list[Flight] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    threads: int = field(default_factory=torch.get_num_threads)

    @property
    def idle(self) -> bool:
        return all(flight.done for flight in self.flights)

    @property
    def landed(self) -> bool:
        return any(flight.done for flight in self.flights)

    def land(self) -> Flight:
        """A pack that is done, or else the first to be; it is no longer on its way."""
        flight = next((flight for flight in self.flights if flight.done), None)
        if flight is None:
            done, _ = wait([flight.future for flight in self.flights], return_when=FIRST_COMPLETED)
            flight = next(flight for flight in self.flights if flight.future in done)
        self._forget(flight)
        return flight

    def leave(self) -> None:
        """Stops what runs and what waits."""
        self.stop.set()
        for flight in self.flights.copy():
            self._forget(flight)
            for pixel in flight.pixels.values():
                pixel.cancel()

    def _forget(self, flight: Flight) -> None:
        self.flights.remove(flight)
        flight.lane.expect(-flight.tokens)


def after(futures: Iterable[Future[Any]], start: Callable[[], Future[T]]) -> Future[T]:
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
