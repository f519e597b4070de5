"""State of a running call: its batches in flight, and its cancellation."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from qwen3vl.engine.batches import BatchFailure, BatchResult
from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.timing import DeviceTimestamp
from qwen3vl.engine.worker import DeviceWorker

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class InFlightBatch:
    """A batch that was dispatched: its media are being decoded, it is queued at a device, or it runs there.

    Attributes:
        worker: The device's worker.
        num_tokens: Number of tokens of the batch.
        pixels: By media key, futures of the decoded media; earlier batches of the call may have the same ones.
        future: Future of its results and failures. A batch may be split, so there may be several.
    """

    worker: DeviceWorker
    num_tokens: int
    pixels: dict[Hashable, Future[Tensor]]
    future: Future[list[BatchResult | BatchFailure]]

    @property
    def done(self) -> bool:
        """Whether its outputs can be fetched without waiting."""
        if not self.future.done() or self.future.exception() is not None:
            return self.future.done()
        results = [outcome for outcome in self.future.result() if isinstance(outcome, BatchResult)]
        return all(result.device_result.ended.reached for result in results)


@dataclass(frozen=True, slots=True, eq=False)
class RunState:
    """State of one call of `Engine.run`. Only `abort` may be called by other threads than the caller's.

    Attributes:
        began: By worker, when the call began.
        in_flight: Its batches in flight, in the order of dispatch.
        stop: Set when nobody needs the results any more; devices then stop at their next layer.
        aborted: A future that is done when the engine is closed, so that the caller can wait for it, too.
        num_threads: Number of torch's threads that the caller's thread is set to.
    """

    began: dict[DeviceWorker, DeviceTimestamp]
    in_flight: list[InFlightBatch] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    aborted: Future[None] = field(default_factory=Future)
    num_threads: int = field(default_factory=torch.get_num_threads)

    @property
    def idle(self) -> bool:
        """Whether no batch is being decoded, queued or run."""
        return all(batch.done for batch in self.in_flight)

    @property
    def has_results(self) -> bool:
        """Whether the outputs of any batch can be fetched without waiting."""
        return any(batch.done for batch in self.in_flight)

    def wait_any(self) -> InFlightBatch:
        """Wait until a batch was run and remove it from those in flight.

        Returns:
            The first batch, in the order of dispatch, that is `done`; if there is none, the first whose future is. On
            CUDA, that one's kernels may still be running.

        Raises:
            Cancelled: The engine was closed.
        """
        batch = next((batch for batch in self.in_flight if batch.done), None)
        if batch is None:
            futures: list[Future[Any]] = [self.aborted, *(batch.future for batch in self.in_flight)]
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            if self.aborted.done():
                raise Cancelled
            batch = next(batch for batch in self.in_flight if batch.future in done)
        self._remove(batch)
        return batch

    def wait_for(self, future: Future[T]) -> T:
        """Wait for a future of this call's own work.

        Args:
            future: The future.

        Returns:
            Its result. Its exception is raised.

        Raises:
            Cancelled: The engine was closed.
        """
        futures: list[Future[Any]] = [self.aborted, future]
        wait(futures, return_when=FIRST_COMPLETED)
        if self.aborted.done():
            raise Cancelled
        return future.result()

    def cancel(self) -> None:
        """Stop the running batch at its next layer, and cancel what is queued. Media being decoded are not stopped."""
        self.stop.set()
        for batch in self.in_flight.copy():
            self._remove(batch)
            for pixels in batch.pixels.values():
                pixels.cancel()

    def abort(self) -> None:
        """Stop the running batches; waiting calls raise `Cancelled`. May be called by any thread."""
        self.stop.set()
        with suppress(InvalidStateError):  # aborted before
            self.aborted.set_result(None)

    def _remove(self, batch: InFlightBatch) -> None:
        self.in_flight.remove(batch)
        batch.worker.add_pending_tokens(-batch.num_tokens)
