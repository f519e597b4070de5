"""Scheduling: how the requests of all callers of a model become batches, and how outputs come back."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from qwen3vl.concurrency.futures import call_when_done
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.engine.accounting import batch_stats
from qwen3vl.engine.batches import BatchFailure, BatchResult, form_batches
from qwen3vl.engine.calls import AdmittedRequest, Call, CallEvent, QueuedRequest, next_call_number
from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.executor import BatchExecutor
from qwen3vl.engine.fairness import FairShare, Turn
from qwen3vl.engine.preparation import PreparedRequest, RequestPreparer
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.request_queue import RequestQueue
from qwen3vl.engine.requests import Request, RequestOutput, failed_output, without_traceback
from qwen3vl.engine.stats import Stats, StatsAccumulator
from qwen3vl.engine.timing import DeviceTimestamp
from qwen3vl.engine.worker import DeviceWork, DeviceWorker
from qwen3vl.errors import InputError
from qwen3vl.model import VisionFeatures
from qwen3vl.processing.sizing import SizedMedia

T = TypeVar("T")

MAX_MEDIA_THREADS = 8
"""Maximum number of media threads where the settings do not name one."""
CLOSE_TIMEOUT_S = 10.0
"""Seconds that `close` waits for a running layer to end."""

CLOSED = "this model was closed and cannot be used any more; create a new Embedder or Reranker"


def load_pixels(media: SizedMedia) -> Tensor:
    """Decode an image or video.

    Args:
        media: The image or video and its size.

    Returns:
        (num_frames, height, width, 3) uint8.
    """
    return media.load()


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
        self._preparer = preparer
        self._executor = executor
        self._decode = decode
        self._pin_memory = replicas[0].device.type == "cuda"
        max_threads = max_threads or min(MAX_MEDIA_THREADS, os.cpu_count() or 1)
        self._media_threads = ForkSafeThreadPool(max_threads, "qwen3vl-media")
        self._text_threads = ForkSafeThreadPool(min(max_threads, os.cpu_count() or 1), "qwen3vl-text")
        self._queue = RequestQueue(executor.budget, len(replicas), max_threads)
        self._decoding: weakref.WeakValueDictionary[Hashable, Future[Tensor]] = weakref.WeakValueDictionary()
        self._closed = False
        self._calls: set[Call] = set()
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
        # No lock, since a lock may be taken while a process forks. `_begin` registers a call before it reads
        # `_closed`, and this sets `_closed` before it reads `_calls`: no call escapes.
        self._closed = True
        self._abort_calls(Cancelled())
        self._media_threads.close()
        self._text_threads.close()
        for worker in self._workers:
            worker.wait_for_cancelled(CLOSE_TIMEOUT_S)
        # In place: the frame of a suspended generator refers to this object.
        self._replicas.clear()

    def run(self, requests: Iterable[Request]) -> Generator[RequestOutput]:
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
            source: Iterator[Request] | None = iter(requests)
            num_missing = 0
            while True:
                source, num_submitted = self._submit_some(call, source, events.empty)
                num_missing += num_submitted
                if source is None and not num_missing:
                    return
                outputs = _outputs(events.get())
                num_missing -= len(outputs)
                yield from outputs
        except Exception as error:
            if self._closed:
                raise RuntimeError(CLOSED) from without_traceback(error)
            raise
        finally:
            self._end(call)

    async def arun(self, requests: Iterable[Request]) -> AsyncGenerator[RequestOutput]:
        """Run requests without occupying a thread while they wait.

        Args:
            requests: Taken on the event loop's thread, as they are needed.

        Yields:
            One output per request, in the order in which batches are done.

        Raises:
            RuntimeError: The scheduler is closed, or was closed meanwhile.
        """
        events: asyncio.Queue[CallEvent] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def notify(event: CallEvent) -> None:
            try:
                loop.call_soon_threadsafe(events.put_nowait, event)
            except RuntimeError:  # the loop is closed
                self._queue.cancel(call)

        call = self._new_call(notify)
        try:
            self._begin(call)
            source: Iterator[Request] | None = iter(requests)
            num_missing = 0
            while True:
                source, num_submitted = self._submit_some(call, source, events.empty)
                num_missing += num_submitted
                if source is None and not num_missing:
                    return
                outputs = _outputs(await events.get())
                num_missing -= len(outputs)
                for output in outputs:
                    yield output
        except Exception as error:
            if self._closed:
                raise RuntimeError(CLOSED) from without_traceback(error)
            raise
        finally:
            self._end(call)

    def submit_to_media_thread(self, work: Callable[[], T]) -> Future[T]:
        """Run a function that reads media on one of the media threads.

        Args:
            work: The function.

        Returns:
            The future of its result.

        Raises:
            RuntimeError: The scheduler is closed.
        """
        if self._closed:
            raise RuntimeError(CLOSED)
        return self._media_threads.submit(work)

    def next_turn(self) -> tuple[Turn, float] | None:
        """Return the turn of the next request, and seconds to wait before it; see `WorkSource`."""
        return None if self._closed else self._queue.next_turn()

    def take_work(self, worker: DeviceWorker) -> DeviceWork | None:
        """Take the requests whose turn it is as a batch for a worker's device; see `WorkSource`."""
        requests = self._queue.take()
        if not requests:
            return None
        number = self._workers.index(worker)
        calls = {queued.call for queued in requests}
        return DeviceWork(
            run=partial(self._run_batches, requests, number),
            finish=partial(self._finish, requests, worker, worker.clock.active_since),
            cancelled=partial(_all_cancelled, calls),
            num_threads=requests[0].call.num_threads,
        )

    def _run_batches(self, requests: Sequence[QueuedRequest], number: int) -> list[BatchResult | BatchFailure]:
        """Pack requests and run them on a replica: nearly always in one batch, since they were chosen to fill one."""
        if self._closed:
            raise Cancelled
        replica = self._replicas[number]
        outcomes: list[BatchResult | BatchFailure] = []
        for batch in form_batches(requests, self._executor.budget.tokens):
            outcomes += self._executor.run(batch, replica, number)
        return outcomes

    def _finish(
        self, requests: list[QueuedRequest], worker: DeviceWorker, active_since: DeviceTimestamp | None, result: Any
    ) -> None:
        """Hand the outputs of requests to their calls.

        Args:
            requests: What was run.
            worker: Where it was run.
            active_since: When the device got work after it had none.
            result: Results and failures of batches, or what was raised.
        """
        outcomes: list[BatchResult | BatchFailure]
        if isinstance(result, BaseException):
            outcomes = [] if isinstance(result, Cancelled) else [BatchFailure(requests, _as_exception(result))]
        else:
            outcomes = result
        outputs: defaultdict[Call, list[RequestOutput]] = defaultdict(list)
        for outcome in outcomes:
            for queued, output in zip(outcome.requests, self._to_outputs(outcome, worker, active_since), strict=True):
                outputs[queued.call].append(output)
        self._queue.done(requests)
        self._advance()
        for call, call_outputs in outputs.items():
            call.notify(call_outputs)

    def _to_outputs(
        self, outcome: BatchResult | BatchFailure, worker: DeviceWorker, active_since: DeviceTimestamp | None
    ) -> list[RequestOutput]:
        """Return an output for each request of a batch, and count it. States that are not finite are errors."""
        if isinstance(outcome, BatchFailure):
            return [failed_output(queued.prepared.request, outcome.error) for queued in outcome.requests]
        try:
            states = outcome.device_result.fetch()
            worker.clock.advance(outcome.batch.pack.num_tokens)
            self.stats.add(batch_stats(outcome, active_since))
            finite = np.isfinite(states).all(axis=1)
        except Exception as error:  # CUDA reports a failed kernel only here
            return [failed_output(queued.prepared.request, error) for queued in outcome.requests]
        return [
            RequestOutput(queued.prepared.request.index, state, notice=queued.prepared.fitted.notice)
            if is_finite
            else failed_output(queued.prepared.request, InputError("the model gives values for it that are not finite"))
            for queued, state, is_finite in zip(outcome.requests, states, finite, strict=True)
        ]

    def _new_call(self, notify: Callable[[CallEvent], None]) -> Call:
        number = next_call_number()
        return Call(number, notify, FairShare(self._workers[0].clock, number))

    def _begin(self, call: Call) -> None:
        """Register a call.

        Raises:
            Cancelled: The scheduler is closed.
        """
        self._calls.add(call)
        if self._closed:
            raise Cancelled
        for worker in self._workers:
            if worker.clock.idle:
                worker.clock.active_since = DeviceTimestamp.now(worker.device)
            worker.clock.enter(call.number)
        self.stats.add(Stats(calls=1))

    def _end(self, call: Call) -> None:
        """Stop what is left of a call. Media that are being decoded are not stopped."""
        self._queue.cancel(call)
        self._calls.discard(call)
        for worker in self._workers:
            worker.clock.leave(call.number)

    def _abort_calls(self, error: Exception) -> None:
        for call in list(self._calls):
            self._queue.cancel(call)
            call.notify(error)

    def _submit_some(
        self, call: Call, source: Iterator[Request] | None, no_event: Callable[[], bool]
    ) -> tuple[Iterator[Request] | None, int]:
        """Submit requests of a call, as long as the queue accepts them and the caller has nothing else to do.

        Args:
            call: The call.
            source: Its further requests; None if there are none.
            no_event: Returns whether the caller has nothing to do.

        Returns:
            The source, or None if it has ended, and the number of requests submitted.
        """
        num_submitted = 0
        while source is not None and self._queue.accepts(call):
            request = next(source, None)
            if request is None:
                return None, num_submitted
            self._queue.submit(call, request)
            num_submitted += 1
            self._advance()
            if not no_event():
                break
        return source, num_submitted

    def _advance(self) -> None:
        """Start the next steps of all requests for which there is room."""
        try:
            while steps := self._queue.next_steps():
                for admitted in steps.prepare:
                    threads = self._media_threads if admitted.request.has_media else self._text_threads
                    threads.submit(self._prepare, admitted)
                for queued in steps.decode:
                    self._start_decoding(queued)
                for call in steps.ask:
                    call.notify(())
        except (
            Exception
        ) as error:  # usually that the threads are closed: by `close`, or since the interpreter shuts down
            self._abort_calls(error)

    def _notify_workers(self) -> None:
        try:
            for worker in self._workers:
                worker.notify()
        except RuntimeError as error:  # the interpreter is shutting down
            self._abort_calls(error)

    def _prepare(self, admitted: AdmittedRequest) -> None:
        call, request = admitted.call, admitted.request
        outcome: PreparedRequest | RequestOutput | None = None
        try:
            if not call.cancelled:
                outcome = self._preparer.prepare(request)
        except BaseException as error:  # of a caller's object; `prepare` returns all that are no programming error
            outcome = failed_output(request, _as_exception(error))
        if isinstance(outcome, PreparedRequest):
            self._queue.prepared(admitted, outcome)
            if not outcome.fitted.media:
                self._notify_workers()
        else:
            self._queue.preparation_failed(admitted)
            if outcome is not None:
                call.notify((outcome,))
        self._advance()

    def _start_decoding(self, queued: QueuedRequest) -> None:
        """Have those media of a request decoded whose features are not cached on every device."""
        media = {item.vision.key: item for item in queued.prepared.fitted.media}
        if self._executor.use_cache:
            queued.features = [_cached_features(replica, media) for replica in self._replicas]
        missing = [key for key in media if not all(key in features for features in queued.features or ({},))]
        queued.pixels = {key: self._submit_decoding(key, media[key]) for key in missing}
        if all(future.done() for future in queued.pixels.values()):
            self._decoded(queued)
        else:
            call_when_done(queued.pixels.values(), partial(self._decoded_later, queued))

    def _submit_decoding(self, key: Hashable, media: SizedMedia) -> Future[Tensor]:
        """Decode an image or video, unless another request has it, or will have it, decoded."""
        future = self._decoding.get(key)
        if future is None or future.cancelled():
            future = self._media_threads.submit(self._load, media)
            self._decoding[key] = future
        return future

    def _load(self, media: SizedMedia) -> Tensor:
        pixels = self._decode(media)
        return pixels.pin_memory() if self._pin_memory else pixels

    def _decoded(self, queued: QueuedRequest) -> None:
        """Make a request ready whose media are decoded, or fail it if one is broken."""
        for media in queued.prepared.fitted.media:
            future = queued.pixels.get(media.vision.key)
            if future is None:
                continue
            error = RuntimeError("decoding was cancelled") if future.cancelled() else future.exception()
            if error is not None:
                self._queue.decoding_failed(queued)
                output = failed_output(queued.prepared.request, _as_exception(error), media.name)
                queued.call.notify((output,))
                break
        else:
            self._queue.decoded(queued)
            self._notify_workers()

    def _decoded_later(self, queued: QueuedRequest) -> None:
        self._decoded(queued)
        self._advance()


def _outputs(event: CallEvent) -> Sequence[RequestOutput]:
    if isinstance(event, Exception):
        raise event
    return event


def _all_cancelled(calls: Iterable[Call]) -> bool:
    return all(call.cancelled for call in calls)


def _cached_features(replica: Replica, keys: Iterable[Hashable]) -> dict[Hashable, VisionFeatures]:
    features = {key: replica.vision_cache.get(key) for key in keys}
    return {key: hit for key, hit in features.items() if hit is not None}


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(f"it ended with {type(error).__name__}")
