"""The loop that both models run: plan, prefetch, pack, forward.

    requests -> windows -> headers read on threads -> prompts that fit -> packs by token budget
         -> pixels decoded on threads, some packs ahead -> a forward pass on the device with least to do -> outcomes

The caller's thread plans while the devices' threads run.  Every request ends in an `RequestOutput`; none can take another
with it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen3vl.concurrency.fork_safety import register_thread_owner
from qwen3vl.engine.devices import choose_devices, choose_dtype
from qwen3vl.engine.inflight import (
    BatchResult,
    InFlightBatch,
    PendingBatch,
    PreparedRequest,
    RunState,
    ScheduledBatch,
    when_all,
)
from qwen3vl.engine.memory import Budget, token_budget, vision_bytes
from qwen3vl.engine.packing import plan
from qwen3vl.engine.replica import DeviceResult, LoadSpec, Replica, replicas
from qwen3vl.engine.requests import Request, RequestOutput, bare, failed
from qwen3vl.engine.stats import Stats, StatsAccumulator
from qwen3vl.engine.worker import Cancelled, DeviceTimestamp
from qwen3vl.errors import InputError
from qwen3vl.inputs import Item
from qwen3vl.model import Qwen3VL, VisionFeatures
from qwen3vl.model.fingerprint import fingerprint
from qwen3vl.model.hub import Checkpoint
from qwen3vl.processing.fitting import fit
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import SizedMedia, UnsizedMedia, read_headers
from qwen3vl.processing.templates import PromptContent
from qwen3vl.processing.tokenizer import Tokenizer
from qwen3vl.settings import EngineSettings

log = logging.getLogger(__name__)

MAX_PENDING_REQUESTS = 256
"""Items whose headers are read and whose prompts are sorted together, at most."""
PREPARE_CHUNK = 32
"""Items whose headers are read at a time."""
MAX_BUFFERED_BYTES = 256 * 2**20
"""Bytes of fetched files at which a pending ends before it is full."""
PREFETCH_BATCHES = 2
"""Packs of a device whose pixels are made while another runs."""
MAX_BATCH_WAIT_S = 1.0
"""Seconds that planned prompts wait for others to share a pack with while no device has anything to do."""


class Engine:
    """A model on its devices, its tokenizer, and the threads that feed it.  Any number of threads may use it."""

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings, limits: Limits) -> None:
        self.checkpoint = checkpoint
        self.limits = limits
        self.settings = settings
        devices = choose_devices(settings.device)
        dtype, bits = choose_dtype(settings.dtype, devices[0])
        self.fingerprint = fingerprint(checkpoint.folder)
        load_spec = LoadSpec(checkpoint.folder, self.fingerprint, dtype, bits, settings.compiled)
        self.replicas = replicas(load_spec, devices)
        kept = settings.vision_cache
        if kept is None:
            kept = min(vision_bytes(device) for device in devices)
        self._keep = kept > 0
        for replica in self.replicas:
            replica.vision_cache.max_bytes = max(replica.vision_cache.max_bytes, kept)
        self.budget = Budget(
            settings.batch_tokens or min(token_budget(self.model.config, device, dtype, kept) for device in devices)
        )
        on_cuda = devices[0].type == "cuda"
        self._pin = on_cuda
        self._stats = StatsAccumulator()
        self.closed = False
        register_thread_owner(self)

    def start_threads(self) -> None:
        self._threads = ThreadPoolExecutor(self.settings.threads or min(8, os.cpu_count() or 1), "qwen3vl")

    def close(self) -> None:
        """Release the device memory, unless other engines use the same weights. The engine cannot be used again."""
        self.closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.replicas = []

    def __deepcopy__(self, memo: Any) -> Engine:
        """Itself: frameworks copy what holds it, and a model is not to be loaded twice for that."""
        return self

    @property
    def stats(self) -> Stats:
        """What this engine did so far."""
        return self._stats.total

    @property
    def model(self) -> Qwen3VL:
        """The first device's."""
        return self.replicas[0].model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.replicas[0].tokenizer

    def read_headers(self, item: Item) -> PromptContent[UnsizedMedia]:
        """The item with its media's headers read."""
        return read_headers(item, self.limits, self.settings.policy, exif=self.settings.exif)

    def forget(self) -> None:
        """Drops what is kept of pictures and clips that were encoded."""
        for replica in self.replicas:
            replica.vision_cache.clear()

    def run(self, requests: Iterable[Request]) -> Generator[RequestOutput]:
        """Runs all requests; outcomes come as packs end, in no promised order.  Jobs are taken on the caller's thread."""
        device_workers = [replica.worker for replica in self.replicas]
        run_state = RunState({worker: worker.timestamp() for worker in device_workers})
        try:
            for step in self._steps(iter(requests), run_state):
                if isinstance(step, RequestOutput):
                    yield step
                elif step is not None:
                    self._dispatch(step, run_state)
                while len(run_state.in_flight) > (PREFETCH_BATCHES + 1) * len(device_workers) or run_state.landed:
                    yield from self._collect(run_state)
            while run_state.in_flight:
                yield from self._collect(run_state)
        finally:
            run_state.cancel()

    def _steps(
        self, requests: Iterator[Request], run_state: RunState
    ) -> Iterator[ScheduledBatch | RequestOutput | None]:
        """Packs, what cannot be planned, and None now and then, when results may be there.

        A pending is planned while the packs of the one in front run.
        """
        pending = PendingBatch()
        while some := _some(requests):
            for made in self._threads.map(self._plan, some):
                if isinstance(made, RequestOutput):
                    yield made
                else:
                    pending.add(made)
            yield None
            full = len(pending.prompts) >= MAX_PENDING_REQUESTS or pending.held >= MAX_BUFFERED_BYTES
            enough = pending.tokens >= 2 * self.budget.tokens * len(self.replicas) or pending.age >= MAX_BATCH_WAIT_S
            if full or (enough and run_state.idle):
                yield from self._packs(pending.prompts)
                pending = PendingBatch()
        yield from self._packs(pending.prompts)

    def _plan(self, request: Request) -> PreparedRequest | RequestOutput:
        try:
            fitted = fit(request.write(), self.tokenizer, self.limits.max_length)
        except Exception as error:  # one item's surprise is not the others'
            return failed(request, error, getattr(error, "source", None))
        if fitted.notice:
            log.warning("item %d (%s): %s", request.index, request.source, fitted.notice)
        return PreparedRequest(request, fitted)

    def _packs(self, prompts: Sequence[PreparedRequest], budget: int | None = None) -> Iterator[ScheduledBatch]:
        for pack in plan([prompt.fitted.prompt for prompt in prompts], budget or self.budget.tokens):
            yield ScheduledBatch(pack, [prompts[member] for member in pack.members])

    def _dispatch(self, step: ScheduledBatch, run_state: RunState) -> None:
        """Gives the pack to the device with least to do; what was not seen before is decoded, once for all packs."""
        replica = min(self.replicas, key=lambda replica: replica.worker.tokens)
        media = {each.vision.key: each for prompt in step.prompts for each in prompt.fitted.media}
        seen: dict[Hashable, VisionFeatures] = {}
        pixels: dict[Hashable, Future[Tensor]] = {}
        decoding = {
            key: pixel for batch_in_flight in run_state.in_flight for key, pixel in batch_in_flight.pixels.items()
        }
        for key in step.pack.media:
            features = replica.vision_cache.get(key) if self._keep else None
            if features is not None:
                seen[key] = features
            else:
                pixels[key] = decoding.get(key) or self._threads.submit(self._decode, media[key])

        tokens = step.pack.tokens

        def submit() -> Future[list[BatchResult]]:
            if run_state.stop.is_set():
                raise Cancelled
            return replica.worker.submit(
                lambda: self._execute(step, replica, pixels, seen), run_state.stop, tokens, run_state.threads
            )

        run_state.in_flight.append(InFlightBatch(replica.worker, tokens, pixels, when_all(pixels.values(), submit)))
        replica.worker.add_pending_tokens(tokens)

    def _decode(self, media: SizedMedia) -> Tensor:
        pixels = media.load()
        return pixels.pin_memory() if self._pin else pixels

    def _execute(
        self,
        step: ScheduledBatch,
        replica: Replica,
        decoding: dict[Hashable, Future[Tensor]],
        seen: dict[Hashable, VisionFeatures],
    ) -> list[BatchResult]:
        """On the device's thread, its pixels made: the pack, without the items whose media turn out to be broken."""
        broken = {key: error for key, future in decoding.items() if (error := future.exception()) is not None}
        pixels = {key: future.result() for key, future in decoding.items() if key not in broken}
        if not broken:
            return list(self._forward(step, replica, pixels, seen))
        landed: list[BatchResult] = []
        whole: list[PreparedRequest] = []
        for prompt in step.prompts:
            missing = [each for each in prompt.fitted.media if each.vision.key in broken]
            if missing:
                error = broken[missing[0].vision.key]
                landed.append(BatchResult([prompt], _exception(error), missing[0].name))
            else:
                whole.append(prompt)
        for smaller in self._packs(whole):
            landed += self._forward(smaller, replica, pixels, seen)
        return landed

    def _forward(
        self,
        step: ScheduledBatch,
        replica: Replica,
        pixels: dict[Hashable, Tensor],
        seen: dict[Hashable, VisionFeatures],
        *,
        kept: bool = True,
    ) -> Iterator[BatchResult]:
        """One pass; on out-of-memory without what is kept of pictures, then in halves.

        Another error is that of the pack's items, not of the run_state.
        """
        try:
            ran = replica.execute(step.pack, pixels, seen, keep=self._keep and kept)
        except Cancelled:
            raise
        except Exception as error:
            reason = bare(error)
        else:
            self.budget.fitted(step.pack.tokens)
            yield BatchResult(step.prompts, ran, tokens=step.pack.tokens)
            return
        if not _out_of_memory(reason):
            yield BatchResult(step.prompts, reason)
            return
        freed = kept and replica.vision_cache.size > 0
        replica.vision_cache.clear()
        if replica.device.type == "cuda":
            torch.cuda.empty_cache()
        if freed:
            yield from self._forward(step, replica, pixels, seen, kept=False)
            return
        if len(step.prompts) == 1:
            yield BatchResult(step.prompts, reason)
            return
        log.warning("out of memory at %d tokens in one pack; going on with halves", step.pack.tokens)
        self.budget.shrink(step.pack.tokens)
        middle = len(step.prompts) // 2
        for half in (step.prompts[:middle], step.prompts[middle:]):
            for smaller in self._packs(half, 1 << 60):
                yield from self._forward(smaller, replica, pixels, seen, kept=kept)

    def _collect(self, run_state: RunState) -> Iterator[RequestOutput]:
        batch_in_flight = run_state.wait_any()
        for batch_result in batch_in_flight.future.result():
            yield from self._to_outputs(batch_result, run_state.began[batch_in_flight.worker])

    def _to_outputs(self, batch_result: BatchResult, began: DeviceTimestamp) -> Iterator[RequestOutput]:
        prompts, ran = batch_result.prompts, batch_result.ran
        if isinstance(ran, DeviceResult):
            try:
                states = ran.fetch()
            except Exception as error:  # what a device tells late
                ran = bare(error)
        if not isinstance(ran, DeviceResult):
            for prompt in prompts:
                yield failed(prompt.request, ran, batch_result.source)
            return
        self._stats.add(
            items=len(prompts),
            packs=1,
            tokens_requested=sum(len(prompt.fitted.prompt) for prompt in prompts),
            tokens_computed=batch_result.tokens,
            media_requested=sum(len(prompt.fitted.media) for prompt in prompts),
            media_encoded=ran.encoded,
            media_cached=ran.kept,
            seconds_waiting=max(0.0, min(ran.began.since(began), ran.began.since(ran.waited))),
            seconds_running=ran.ended.since(ran.began),
            flops=ran.flops,
        )
        for prompt, state in zip(prompts, states, strict=True):
            if np.isfinite(state).all():
                yield RequestOutput(prompt.request.index, state, notice=prompt.fitted.notice)
            else:
                yield failed(prompt.request, InputError("the model gives values for it that are not finite"))


def _some(requests: Iterator[Request]) -> list[Request]:
    """Up to PREPARE_CHUNK requests, or fewer that took MAX_BATCH_WAIT_S seconds to come."""
    some: list[Request] = []
    began = time.perf_counter()
    while len(some) < PREPARE_CHUNK and not (some and time.perf_counter() - began >= MAX_BATCH_WAIT_S):
        request = next(requests, None)
        if request is None:
            break
        some.append(request)
    return some


def _exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(f"decoding ended with {type(error).__name__}")


def _out_of_memory(error: Exception) -> bool:
    """CUDA has an error class for it; the CPU and Apple's GPU only say so."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory")
    )
