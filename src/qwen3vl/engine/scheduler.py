"""Scheduling: how the requests of all callers of a model become batches, and how outputs come back."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from qwen3vl.concurrency.loop_delivery import LoopDeliveries
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.engine.accounting import batch_stats
from qwen3vl.engine.batches import BatchFailure, BatchResult, form_batches
from qwen3vl.engine.calls import Call, CallEvent, QueuedRequest, next_call_number
from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.executor import BatchExecutor
from qwen3vl.engine.fairness import CLOCK, FairShare, Turn
from qwen3vl.engine.input_pipeline import InputPipeline
from qwen3vl.engine.media_decoder import MediaDecoder, load_pixels
from qwen3vl.engine.preparation import RequestPreparer
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.request_queue import RequestQueue
from qwen3vl.engine.requests import UnparsedRequest, as_exception, failed_request
from qwen3vl.engine.stats import Stats, StatsAccumulator
from qwen3vl.engine.timing import DeviceTimestamp
from qwen3vl.engine.worker import DeviceWork, DeviceWorker
from qwen3vl.errors import CLOSED, InputError
from qwen3vl.processing.sizing import SizedMedia
from qwen3vl.results import ItemOutput, without_traceback

T = TypeVar("T")

MAX_MEDIA_THREADS = 8
"""Maximum number of media threads where the settings do not name one."""
CLOSE_TIMEOUT_S = 10.0
"""Seconds that `close` waits for a running layer to end."""


class Scheduler:
    """Turns the requests of any number of callers into batches and runs these on the replicas.

    The steps of a request:

    1. It is taken from the caller's iterable, on the caller's thread, and submitted to the `RequestQueue`.
    2. It is prepared on a thread: headers are read, the prompt is tokenized. Texts and media have their own threads.
    3. Media whose features are not cached are decoded on the media threads.
    4. A device that is free takes the requests whose turn it is, of all callers, packs them and runs them; see
       `DeviceWorker` and `BatchExecutor`.
    5. The outputs are handed to their callers, on the worker's second thread.

    Args:
        replicas: The model on its devices.
        preparer: Prepares requests.
        executor: Runs batches.
        max_threads: Number of media threads. None chooses by the number of cores.
        decode: Decodes an image or video on a media thread: uint8 (num_frames, height, width, 3).

    Attributes:
        stats: Counts of the work done.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        preparer: RequestPreparer,
        executor: BatchExecutor,
        *,
        max_threads: int | None = None,
        decode: Callable[[SizedMedia], Tensor] = load_pixels,
    ) -> None:
        self.stats = StatsAccumulator()
        self._replicas = list(replicas)
        self._workers = [replica.worker for replica in replicas]
        self._executor = executor
        num_cores = os.cpu_count() or 1
        max_threads = max_threads or min(MAX_MEDIA_THREADS, num_cores)
        self._queue = RequestQueue(executor.budget, len(replicas))
        self._calls: set[Call] = set()
        self._deliveries: LoopDeliveries[CallEvent] = LoopDeliveries()
        # These refer to what they need, and not to this object: a cycle would keep the model in memory.
        on_error = partial(_abort_calls, self._queue, self._calls)
        self._pipeline = InputPipeline(
            self._queue,
            preparer,
            MediaDecoder(self._replicas, decode, use_cache=executor.use_cache),
            num_text_threads=min(max_threads, num_cores),
            num_media_threads=max_threads,
            on_ready=partial(_notify_workers, self._workers, on_error),
            on_error=on_error,
        )
        self._query_threads = ForkSafeThreadPool(max_threads, "qwen3vl-queries")
        self._closed = False
        for worker in self._workers:
            worker.attach(self)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Abort running calls, stop the threads and drop the replicas. Closing again does nothing.

        Waits until running layers have ended, up to `CLOSE_TIMEOUT_S` seconds for each device.
        """
        # Without a lock: `_begin` registers a call before it reads `_closed`, and this sets `_closed` before it reads
        # `_calls`, so that no call escapes.
        self._closed = True
        _abort_calls(self._queue, self._calls, Cancelled())
        self._pipeline.close()
        self._query_threads.close()
        for worker in self._workers:
            worker.wait_for_cancelled(CLOSE_TIMEOUT_S)
        # In place: the frame of a suspended generator refers to this object.
        self._replicas.clear()

    def run(self, requests: Iterable[UnparsedRequest]) -> Generator[ItemOutput]:
        """Run requests.

        Args:
            requests: Taken on the caller's thread, as they are needed.

        Yields:
            One output per request, in the order in which batches are done.

        Raises:
            RuntimeError: The scheduler is closed, or was closed meanwhile.
        """
        events: SimpleQueue[CallEvent] = SimpleQueue()
        call = self._new_call(events.put)
        try:
            self._begin(call)
            source: Iterator[UnparsedRequest] | None = iter(requests)
            num_pending = 0
            while True:
                source, num_submitted = self._pipeline.submit_some(call, source, events.empty)
                num_pending += num_submitted
                if source is None and not num_pending:
                    return
                outputs = _outputs_or_raise(events.get())
                num_pending -= len(outputs)
                yield from outputs
        except Exception as error:
            if self._closed:
                raise RuntimeError(CLOSED) from without_traceback(error)
            raise
        finally:
            self._end(call)

    async def arun(self, requests: Iterable[UnparsedRequest]) -> AsyncGenerator[ItemOutput]:
        """Run requests without occupying a thread while they wait.

        Args:
            requests: Taken on the event loop's thread, as they are needed.

        Yields:
            One output per request, in the order in which batches are done.

        Raises:
            RuntimeError: The scheduler is closed, or was closed meanwhile.
        """
        events: asyncio.Queue[CallEvent] = asyncio.Queue()
        delivery = self._deliveries.of(asyncio.get_running_loop())

        def notify(event: CallEvent) -> None:
            try:
                delivery.deliver(events.put_nowait, event)
            except RuntimeError:  # the loop is closed
                self._end(call)

        call = self._new_call(notify)
        try:
            self._begin(call)
            source: Iterator[UnparsedRequest] | None = iter(requests)
            num_pending = 0
            while True:
                source, num_submitted = await self._pipeline.asubmit_next(call, source)
                num_pending += num_submitted
                if source is None and not num_pending:
                    return
                if num_submitted:
                    await asyncio.sleep(0)  # others may run between two requests
                    if source is not None and events.empty():
                        continue
                outputs = _outputs_or_raise(await events.get())
                num_pending -= len(outputs)
                for output in outputs:
                    yield output
        except Exception as error:
            if self._closed:
                raise RuntimeError(CLOSED) from without_traceback(error)
            raise
        finally:
            self._end(call)

    async def arun_blocking(self, work: Callable[[], T]) -> T:
        """Run a blocking function on a thread, without blocking the event loop.

        Args:
            work: The function. It reads the media of a query.

        Returns:
            Its result.

        Raises:
            RuntimeError: The scheduler is closed, or was closed meanwhile.
        """
        try:
            return await asyncio.wrap_future(self._query_threads.submit(work))
        except (RuntimeError, asyncio.CancelledError) as error:
            if self._closed:
                raise RuntimeError(CLOSED) from error
            raise

    def next_turn(self) -> tuple[Turn, float] | None:
        """Return the turn of the next request, and seconds to wait before it; see `WorkSource`."""
        if self._queue.drop_cancelled():
            self._pipeline.wake()
        return None if self._closed else self._queue.next_turn()

    def take_work(self, worker: DeviceWorker) -> DeviceWork | None:
        """Take the next requests for a worker's device, as many as fill a batch; see `WorkSource`."""
        requests = self._queue.take()
        if not requests:
            return None
        replica_number = self._workers.index(worker)
        calls = {queued.call for queued in requests}
        return DeviceWork(
            run=partial(self._run_batches, requests, replica_number),
            finish=partial(self._finish, requests, worker.active_since),
            cancelled=partial(_all_cancelled, calls),
            num_threads=requests[0].call.num_threads,
        )

    def _run_batches(self, requests: Sequence[QueuedRequest], replica_number: int) -> list[BatchResult | BatchFailure]:
        """Pack requests and run them on a replica: nearly always in one batch, since they were chosen to fill one."""
        if self._closed:
            raise Cancelled
        replica = self._replicas[replica_number]
        outcomes: list[BatchResult | BatchFailure] = []
        batches = list(form_batches(requests, self._executor.budget.tokens))
        for position, batch in enumerate(batches):
            try:
                outcomes += self._executor.run(batch, replica, replica_number)
            except Cancelled:
                if not outcomes:
                    raise
                break  # the batches before are done
            except Exception as error:
                outcomes += [BatchFailure(batch.requests, without_traceback(error)) for batch in batches[position:]]
                break
        return outcomes

    def _finish(self, requests: list[QueuedRequest], active_since: DeviceTimestamp | None, result: Any) -> None:
        """Hand the outputs of requests to their calls.

        Args:
            requests: What was run.
            active_since: Since when calls use the device.
            result: Results and failures of batches, or what was raised.
        """
        if isinstance(result, BaseException):
            result = [] if isinstance(result, Cancelled) else [BatchFailure(requests, as_exception(result))]
        outputs: defaultdict[Call, list[ItemOutput]] = defaultdict(list)
        for outcome in result:
            for queued, output in zip(outcome.requests, self._to_outputs(outcome, active_since), strict=True):
                outputs[queued.call].append(output)
        self._queue.mark_done(requests)
        self._pipeline.wake()
        for call, call_outputs in outputs.items():
            call.notify(call_outputs)

    def _to_outputs(
        self, outcome: BatchResult | BatchFailure, active_since: DeviceTimestamp | None
    ) -> list[ItemOutput]:
        """Return an output for each request of a batch, and count it. States that are not finite are errors."""
        if isinstance(outcome, BatchFailure):
            return [failed_request(queued.prepared.request, outcome.error) for queued in outcome.requests]
        try:
            states = outcome.device_result.fetch()
            CLOCK.advance(outcome.batch.pack.num_tokens)
            self.stats.add(batch_stats(outcome, active_since))
            finite: list[bool] = np.isfinite(states).all(axis=1).tolist()  # type: ignore[assignment]
        except Exception as error:  # CUDA reports a failed kernel only here
            return [failed_request(queued.prepared.request, error) for queued in outcome.requests]
        not_finite = InputError("the model gives values for it that are not finite")
        return [
            queued.prepared.to_output(state) if is_finite else failed_request(queued.prepared.request, not_finite)
            for queued, state, is_finite in zip(outcome.requests, states, finite, strict=True)
        ]

    def _new_call(self, notify: Callable[[CallEvent], None]) -> Call:
        number = next_call_number()
        return Call(number, notify, FairShare(CLOCK, number), self._queue.epoch)

    def _begin(self, call: Call) -> None:
        """Register a call.

        Args:
            call: The call.

        Raises:
            Cancelled: The scheduler is closed.
        """
        self._calls.add(call)
        if self._closed:
            raise Cancelled
        for worker in self._workers:
            worker.add_call(call.number)
        self.stats.add(Stats(calls=1))

    def _end(self, call: Call) -> None:
        """Cancel the requests of a call that are not done. Media that are being decoded are decoded to the end."""
        self._queue.cancel(call)
        self._calls.discard(call)
        for worker in self._workers:
            worker.remove_call(call.number)


def _outputs_or_raise(event: CallEvent) -> Sequence[ItemOutput]:
    if isinstance(event, Exception):
        raise event
    return event


def _all_cancelled(calls: Iterable[Call]) -> bool:
    return all(call.cancelled for call in calls)


def _abort_calls(queue: RequestQueue, calls: set[Call], error: Exception) -> None:
    """End calls with an error."""
    for call in list(calls):
        queue.cancel(call)
        call.notify(error)


def _notify_workers(workers: Iterable[DeviceWorker], on_error: Callable[[Exception], None]) -> None:
    """Wake the workers, since there is work."""
    try:
        for worker in workers:
            worker.notify()
    except RuntimeError as error:  # the interpreter is shutting down
        on_error(error)
