"""Scheduling: how requests become batches, where these run, and how their outputs come back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import numpy as np
from torch import Tensor

from qwen3vl.concurrency.futures import when_all
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.engine.batches import BatchFailure, BatchResult, PendingBatch, ScheduledBatch, form_batches
from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.executor import BatchExecutor
from qwen3vl.engine.inflight import InFlightBatch, RunState
from qwen3vl.engine.preparation import PreparedRequest, RequestPreparer
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.requests import Request, RequestOutput, failed_output, without_traceback
from qwen3vl.engine.stats import Stats, StatsAccumulator
from qwen3vl.engine.timing import DeviceTimestamp
from qwen3vl.errors import InputError
from qwen3vl.model import VisionFeatures
from qwen3vl.processing.sizing import SizedMedia

PREPARE_CHUNK = 32
"""Maximum number of a call's requests that are prepared at once."""
PREFETCH_BATCHES = 2
"""Batches per device whose media are decoded while another batch runs."""
MAX_BATCH_WAIT_S = 1.0
"""Seconds that prepared requests wait for further ones to share a batch with, while no batch of their call runs."""
MAX_DECODE_THREADS = 8
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

    The steps of a call, which overlap:

    1. Requests are taken on the caller's thread and prepared on media threads: headers are read, prompts tokenized.
    2. Prepared requests wait in a `PendingBatch`, and are packed by token budget when there are enough.
    3. A batch is dispatched to the replica with the fewest pending tokens. Media whose features are not cached are
       decoded on media threads, `PREFETCH_BATCHES` batches ahead of the devices.
    4. The replica's worker runs the forward pass; see `BatchExecutor`.
    5. Results are collected on the caller's thread, as they are done.

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
        self._preparer = preparer
        self._executor = executor
        self._decode = decode
        self._pin_memory = self._replicas[0].device.type == "cuda"
        max_threads = max_threads or min(MAX_DECODE_THREADS, os.cpu_count() or 1)
        self._threads = ForkSafeThreadPool(max_threads, "qwen3vl")
        self._closed = False
        self._runs: set[RunState] = set()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Abort running calls, stop the media threads and drop the replicas. Closing again does nothing.

        Waits until running layers have ended, up to `CLOSE_TIMEOUT_S` seconds for each device.
        """
        # No lock, since a lock may be taken while a process forks. `run` registers itself before it reads `_closed`,
        # and this sets `_closed` before it reads `_runs`: no call escapes.
        self._closed = True
        for run_state in list(self._runs):
            run_state.abort()
        self._threads.close()
        for replica in self._replicas:
            replica.worker.flush_cancelled(CLOSE_TIMEOUT_S)
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
        run_state = RunState({replica.worker: DeviceTimestamp.now(replica.device) for replica in self._replicas})
        self._runs.add(run_state)
        try:
            if self._closed:
                raise Cancelled
            yield from self._run(iter(requests), run_state)
        except Exception as error:
            if self._closed:
                raise RuntimeError(CLOSED) from without_traceback(error)
            raise
        finally:
            run_state.cancel()
            self._runs.discard(run_state)

    def _run(self, requests: Iterator[Request], run_state: RunState) -> Iterator[RequestOutput]:
        num_workers = len(run_state.began)
        for step in self._schedule(requests, run_state):
            if isinstance(step, RequestOutput):
                yield step
            elif step is not None:
                self._dispatch(step, run_state)
            while len(run_state.in_flight) > (PREFETCH_BATCHES + 1) * num_workers or run_state.has_results:
                yield from self._collect(run_state)
        while run_state.in_flight:
            yield from self._collect(run_state)

    def _schedule(
        self, requests: Iterator[Request], run_state: RunState
    ) -> Iterator[ScheduledBatch | RequestOutput | None]:
        """Prepare requests and pack them, while batches dispatched before are running.

        Args:
            requests: Requests of one call.
            run_state: The call's state.

        Yields:
            Batches; outputs of requests that could not be prepared; and None from time to time, when results of
            earlier batches may be there.
        """
        pending = PendingBatch()
        while chunk := _take_chunk(requests):
            for prepared in self._prepare(chunk, run_state):
                if isinstance(prepared, RequestOutput):
                    yield prepared
                else:
                    pending.add(prepared)
            yield None
            max_tokens = self._executor.budget.tokens
            enough = pending.num_tokens >= 2 * max_tokens * len(run_state.began) or pending.age_s >= MAX_BATCH_WAIT_S
            if pending.full or (enough and run_state.idle):
                yield from form_batches(pending.requests, max_tokens)
                pending = PendingBatch()
        yield from form_batches(pending.requests, self._executor.budget.tokens)

    def _prepare(self, requests: Sequence[Request], run_state: RunState) -> Iterator[PreparedRequest | RequestOutput]:
        futures = [self._threads.submit(self._preparer.prepare, request) for request in requests]
        try:
            for future in futures:
                yield run_state.wait_for(future)
        finally:
            for future in futures:
                future.cancel()

    def _dispatch(self, batch: ScheduledBatch, run_state: RunState) -> None:
        """Send a batch to the device with the fewest pending tokens, and have its media decoded."""
        replica = min(self._replicas, key=lambda replica: replica.worker.pending_tokens)
        media = {item.vision.key: item for request in batch.requests for item in request.fitted.media}
        cached_features: dict[Hashable, VisionFeatures] = {}
        pixels: dict[Hashable, Future[Tensor]] = {}
        # Media that an earlier batch of this call has decoded, or will have, are not decoded again.
        decoding = {key: future for in_flight in run_state.in_flight for key, future in in_flight.pixels.items()}
        for key in batch.pack.media_keys:
            features = replica.vision_cache.get(key) if self._executor.use_cache else None
            if features is not None:
                cached_features[key] = features
            else:
                pixels[key] = decoding.get(key) or self._threads.submit(self._load, media[key])

        num_tokens = batch.pack.num_tokens

        def submit() -> Future[list[BatchResult | BatchFailure]]:
            if run_state.stop.is_set():
                raise Cancelled
            return replica.worker.submit(
                partial(self._executor.run, batch, replica, pixels, cached_features),
                stop=run_state.stop,
                num_tokens=num_tokens,
                num_threads=run_state.num_threads,
            )

        future = when_all(pixels.values(), submit)
        run_state.in_flight.append(InFlightBatch(replica.worker, num_tokens, pixels, future))
        replica.worker.add_pending_tokens(num_tokens)

    def _load(self, media: SizedMedia) -> Tensor:
        pixels = self._decode(media)
        return pixels.pin_memory() if self._pin_memory else pixels

    def _collect(self, run_state: RunState) -> Iterator[RequestOutput]:
        """Wait for a batch and yield the outputs of its requests."""
        in_flight = run_state.wait_any()
        for outcome in in_flight.future.result():
            if isinstance(outcome, BatchResult):
                yield from self._to_outputs(outcome, run_state.began[in_flight.worker])
            else:
                for prepared in outcome.requests:
                    yield failed_output(prepared.request, outcome.error, outcome.source)

    def _to_outputs(self, result: BatchResult, began: DeviceTimestamp) -> Iterator[RequestOutput]:
        """Fetch the states of a batch, count it and yield the outputs of its requests: errors for values not finite."""
        requests, device_result = result.batch.requests, result.device_result
        try:
            states = device_result.fetch()
        except Exception as error:  # CUDA reports a failed kernel only here
            for prepared in requests:
                yield failed_output(prepared.request, error)
            return
        self.stats.add(_batch_stats(result, began))
        for prepared, state in zip(requests, states, strict=True):
            if np.isfinite(state).all():
                yield RequestOutput(prepared.request.index, state, notice=prepared.fitted.notice)
            else:
                yield failed_output(prepared.request, InputError("the model gives values for it that are not finite"))


def _batch_stats(result: BatchResult, began: DeviceTimestamp) -> Stats:
    """Return the counts of a forward pass of a call that began at a given time."""
    requests, device_result = result.batch.requests, result.device_result
    # The device may have been idle since before the call; that is not the call's waiting time.
    waited_s = min(
        device_result.began.seconds_since(began), device_result.began.seconds_since(device_result.idle_since)
    )
    return Stats(
        items=len(requests),
        packs=1,
        tokens_requested=sum(len(prepared.fitted.prompt) for prepared in requests),
        tokens_computed=result.batch.pack.num_tokens,
        media_requested=sum(len(prepared.fitted.media) for prepared in requests),
        media_encoded=device_result.media_encoded,
        media_cached=device_result.media_cached,
        seconds_waiting=max(0.0, waited_s),
        seconds_running=device_result.ended.seconds_since(device_result.began),
        flops=device_result.flops,
    )


def _take_chunk(requests: Iterator[Request]) -> list[Request]:
    """Return the next requests: up to `PREPARE_CHUNK`, or fewer once `MAX_BATCH_WAIT_S` seconds have passed.

    Waits for the first one, and for one that is being made, however long that takes. Empty at the end.
    """
    chunk: list[Request] = []
    began = time.perf_counter()
    while len(chunk) < PREPARE_CHUNK and not (chunk and time.perf_counter() - began >= MAX_BATCH_WAIT_S):
        request = next(requests, None)
        if request is None:
            break
        chunk.append(request)
    return chunk
