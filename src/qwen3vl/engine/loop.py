"""The loop that both models run: plan, prefetch, pack, forward.

    jobs -> windows -> headers read on threads -> prompts that fit -> packs by token budget
         -> pixels decoded on threads, some packs ahead -> a forward pass on the device with least to do -> outcomes

The caller's thread plans while the devices' threads run.  Every job ends in an `Outcome`; none can take another
with it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen3vl.accounts import Accounts, Stats
from qwen3vl.engine.budget import Budget, token_budget, vision_bytes
from qwen3vl.engine.devices import choose_devices, choose_dtype
from qwen3vl.engine.flights import Call, Flight, Landing, Prompt, Step, Window, after
from qwen3vl.engine.jobs import Job, Outcome, bare, failed
from qwen3vl.engine.lane import Mark, Stopped
from qwen3vl.engine.replica import Build, Ran, Replica, replicas
from qwen3vl.errors import InputError
from qwen3vl.forks import own_threads
from qwen3vl.geometry import Limits
from qwen3vl.hub import Checkpoint
from qwen3vl.inputs import Item
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.model import Qwen3VL, VisionFeatures
from qwen3vl.model.weights import fingerprint
from qwen3vl.packing import plan
from qwen3vl.planning import Draft, Planned, draft, fit
from qwen3vl.prompt import Content, Tokenizer

log = logging.getLogger(__name__)

WINDOW = 256
"""Items whose headers are read and whose prompts are sorted together, at most."""
CHUNK = 32
"""Items whose headers are read at a time."""
HELD = 256 * 2**20
"""Bytes of fetched files at which a window ends before it is full."""
AHEAD = 2
"""Packs of a device whose pixels are made while another runs."""
LINGER = 1.0
"""Seconds that planned prompts wait for others to share a pack with while no device has anything to do."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs; None chooses by the device."""

    device: str = "auto"
    dtype: str = "auto"
    batch_tokens: int | None = None
    threads: int | None = None
    exif: bool = False
    vision_cache: int | None = None
    compiled: bool = False


class Engine:
    """A model on its devices, its tokenizer, and the threads that feed it.  Any number of threads may use it."""

    def __init__(self, checkpoint: Checkpoint, limits: Limits, policy: MediaPolicy, options: EngineOptions) -> None:
        self.checkpoint = checkpoint
        self.limits = limits
        self.policy = policy
        self.options = options
        devices = choose_devices(options.device)
        dtype, bits = choose_dtype(options.dtype, devices[0])
        self.fingerprint = fingerprint(checkpoint.folder)
        build = Build(checkpoint.folder, self.fingerprint, dtype, bits, options.compiled)
        self.replicas = replicas(build, devices)
        kept = options.vision_cache
        if kept is None:
            kept = min(vision_bytes(device) for device in devices)
        self._keep = kept > 0
        for replica in self.replicas:
            replica.sight.limit = max(replica.sight.limit, kept)
        self.budget = Budget(
            options.batch_tokens or min(token_budget(self.model.config, device, dtype, kept) for device in devices)
        )
        on_cuda = devices[0].type == "cuda"
        self._pin = on_cuda
        self._accounts = Accounts()
        own_threads(self)

    def start_threads(self) -> None:
        self._threads = ThreadPoolExecutor(self.options.threads or min(8, os.cpu_count() or 1), "qwen3vl")

    def __deepcopy__(self, memo: Any) -> Engine:
        """Itself: frameworks copy what holds it, and a model is not to be loaded twice for that."""
        return self

    @property
    def stats(self) -> Stats:
        """What this engine did so far."""
        return self._accounts.total

    @property
    def model(self) -> Qwen3VL:
        """The first device's."""
        return self.replicas[0].model

    @property
    def tokenizer(self) -> Tokenizer:
        return self.replicas[0].tokenizer

    def draft(self, item: Item) -> Content[Draft]:
        """The item with its media's headers read."""
        return draft(item, self.limits, self.policy, exif=self.options.exif)

    def forget(self) -> None:
        """Drops what is kept of pictures and clips that were encoded."""
        for replica in self.replicas:
            replica.sight.clear()

    def run(self, jobs: Iterable[Job]) -> Generator[Outcome]:
        """Runs all jobs; outcomes come as packs end, in no promised order.  Jobs are taken on the caller's thread."""
        lanes = [replica.lane for replica in self.replicas]
        call = Call({lane: lane.mark() for lane in lanes})
        try:
            for step in self._steps(iter(jobs), call):
                if isinstance(step, Outcome):
                    yield step
                elif step is not None:
                    self._start(step, call)
                while len(call.flights) > (AHEAD + 1) * len(lanes) or call.landed:
                    yield from self._land(call)
            while call.flights:
                yield from self._land(call)
        finally:
            call.leave()

    def _steps(self, jobs: Iterator[Job], call: Call) -> Iterator[Step | Outcome | None]:
        """Packs, what cannot be planned, and None now and then, when results may be there.

        A window is planned while the packs of the one in front run.
        """
        window = Window()
        while some := _some(jobs):
            for made in self._threads.map(self._plan, some):
                if isinstance(made, Outcome):
                    yield made
                else:
                    window.add(made)
            yield None
            full = len(window.prompts) >= WINDOW or window.held >= HELD
            enough = window.tokens >= 2 * self.budget.tokens * len(self.replicas) or window.age >= LINGER
            if full or (enough and call.idle):
                yield from self._packs(window.prompts)
                window = Window()
        yield from self._packs(window.prompts)

    def _plan(self, job: Job) -> Prompt | Outcome:
        try:
            planning = fit(job.write(), self.tokenizer, self.limits.max_length)
        except Exception as error:  # one item's surprise is not the others'
            return failed(job, error, getattr(error, "source", None))
        if planning.notice:
            log.warning("item %d (%s): %s", job.index, job.source, planning.notice)
        return Prompt(job, planning)

    def _packs(self, prompts: Sequence[Prompt], budget: int | None = None) -> Iterator[Step]:
        for pack in plan([prompt.planning.prompt for prompt in prompts], budget or self.budget.tokens):
            yield Step(pack, [prompts[member] for member in pack.members])

    def _start(self, step: Step, call: Call) -> None:
        """Gives the pack to the device with least to do; what was not seen before is decoded, once for all packs."""
        replica = min(self.replicas, key=lambda replica: replica.lane.tokens)
        media = {each.vision.key: each for prompt in step.prompts for each in prompt.planning.media}
        seen: dict[Hashable, VisionFeatures] = {}
        pixels: dict[Hashable, Future[Tensor]] = {}
        decoding = {key: pixel for flight in call.flights for key, pixel in flight.pixels.items()}
        for key in step.pack.media:
            features = replica.sight.get(key) if self._keep else None
            if features is not None:
                seen[key] = features
            else:
                pixels[key] = decoding.get(key) or self._threads.submit(self._decode, media[key])

        tokens = step.pack.tokens

        def fly() -> Future[list[Landing]]:
            if call.stop.is_set():
                raise Stopped
            return replica.lane.submit(lambda: self._fly(step, replica, pixels, seen), call.stop, tokens, call.threads)

        call.flights.append(Flight(replica.lane, tokens, pixels, after(pixels.values(), fly)))
        replica.lane.expect(tokens)

    def _decode(self, media: Planned) -> Tensor:
        pixels = media.load()
        return pixels.pin_memory() if self._pin else pixels

    def _fly(
        self,
        step: Step,
        replica: Replica,
        decoding: dict[Hashable, Future[Tensor]],
        seen: dict[Hashable, VisionFeatures],
    ) -> list[Landing]:
        """On the device's thread, its pixels made: the pack, without the items whose media turn out to be broken."""
        broken = {key: error for key, future in decoding.items() if (error := future.exception()) is not None}
        pixels = {key: future.result() for key, future in decoding.items() if key not in broken}
        if not broken:
            return list(self._forward(step, replica, pixels, seen))
        landed: list[Landing] = []
        whole: list[Prompt] = []
        for prompt in step.prompts:
            missing = [each for each in prompt.planning.media if each.vision.key in broken]
            if missing:
                error = broken[missing[0].vision.key]
                landed.append(Landing([prompt], _exception(error), missing[0].name))
            else:
                whole.append(prompt)
        for smaller in self._packs(whole):
            landed += self._forward(smaller, replica, pixels, seen)
        return landed

    def _forward(
        self,
        step: Step,
        replica: Replica,
        pixels: dict[Hashable, Tensor],
        seen: dict[Hashable, VisionFeatures],
        *,
        kept: bool = True,
    ) -> Iterator[Landing]:
        """One pass; on out-of-memory without what is kept of pictures, then in halves.

        Another error is that of the pack's items, not of the call.
        """
        try:
            ran = replica.run(step.pack, pixels, seen, keep=self._keep and kept)
        except Stopped:
            raise
        except Exception as error:
            reason = bare(error)
        else:
            self.budget.fitted(step.pack.tokens)
            yield Landing(step.prompts, ran, tokens=step.pack.tokens)
            return
        if not _out_of_memory(reason):
            yield Landing(step.prompts, reason)
            return
        freed = kept and replica.sight.size > 0
        replica.sight.clear()
        if replica.device.type == "cuda":
            torch.cuda.empty_cache()
        if freed:
            yield from self._forward(step, replica, pixels, seen, kept=False)
            return
        if len(step.prompts) == 1:
            yield Landing(step.prompts, reason)
            return
        log.warning("out of memory at %d tokens in one pack; going on with halves", step.pack.tokens)
        self.budget.shrink(step.pack.tokens)
        middle = len(step.prompts) // 2
        for half in (step.prompts[:middle], step.prompts[middle:]):
            for smaller in self._packs(half, 1 << 60):
                yield from self._forward(smaller, replica, pixels, seen, kept=kept)

    def _land(self, call: Call) -> Iterator[Outcome]:
        flight = call.land()
        for landing in flight.future.result():
            yield from self._settle(landing, call.began[flight.lane])

    def _settle(self, landing: Landing, began: Mark) -> Iterator[Outcome]:
        prompts, ran = landing.prompts, landing.ran
        if isinstance(ran, Ran):
            try:
                states = ran.fetch()
            except Exception as error:  # what a device tells late
                ran = bare(error)
        if not isinstance(ran, Ran):
            for prompt in prompts:
                yield failed(prompt.job, ran, landing.source)
            return
        self._accounts.add(
            items=len(prompts),
            packs=1,
            tokens_asked=sum(len(prompt.planning.prompt) for prompt in prompts),
            tokens_computed=landing.tokens,
            pictures_asked=sum(len(prompt.planning.media) for prompt in prompts),
            pictures_encoded=ran.encoded,
            pictures_kept=ran.kept,
            seconds_waiting=max(0.0, min(ran.began.since(began), ran.began.since(ran.waited))),
            seconds_running=ran.ended.since(ran.began),
            flops=ran.flops,
        )
        for prompt, state in zip(prompts, states, strict=True):
            if np.isfinite(state).all():
                yield Outcome(prompt.job.index, state, notice=prompt.planning.notice)
            else:
                yield failed(prompt.job, InputError("the model gives values for it that are not finite"))


def _some(jobs: Iterator[Job]) -> list[Job]:
    """Up to CHUNK jobs, or fewer that took LINGER seconds to come."""
    some: list[Job] = []
    began = time.perf_counter()
    while len(some) < CHUNK and not (some and time.perf_counter() - began >= LINGER):
        job = next(jobs, None)
        if job is None:
            break
        some.append(job)
    return some


def _exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(f"decoding ended with {type(error).__name__}")


def _out_of_memory(error: Exception) -> bool:
    """CUDA has an error class for it; the CPU and Apple's GPU only say so."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory")
    )
