"""The loop that both models run: plan, prefetch, pack, forward.

    jobs -> windows -> headers read on threads -> prompts that fit -> packs by token budget
         -> pixels decoded on threads, one pack ahead -> one forward a pack -> outcomes

Every job ends in an `Outcome`; none can take another with it.
"""

from __future__ import annotations

import logging
import os
import reprlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3vl.accounts import Accounts, Stats
from qwen3vl.errors import InputError, ItemError
from qwen3vl.geometry import Limits, tokens_of
from qwen3vl.hub import Checkpoint
from qwen3vl.inputs import Item, as_item
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.model import Qwen3VL
from qwen3vl.model.flops import text_flops, vision_flops
from qwen3vl.model.sight import Sight, join, split
from qwen3vl.model.vision import VisionFeatures
from qwen3vl.model.weights import fingerprint, load_model
from qwen3vl.packing import Pack, plan
from qwen3vl.pixels import patches
from qwen3vl.planning import Draft, Planned, Planning, draft, fit
from qwen3vl.prompt import Content, Control, Text, Tokenizer

log = logging.getLogger(__name__)

WINDOW = 256
"""Items whose headers are read and whose prompts are sorted together."""
CHUNK = 32
"""Items whose headers are read at a time."""
HELD = 256 * 2**20
"""Bytes of fetched files at which a window ends before it is full."""
AHEAD = 2
"""Packs whose pixels are made while another runs."""


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt to run: its caller's index, its name in errors, and how to write it.

    `write` may read headers and raise `InputError`.
    """

    index: int
    source: str
    write: Callable[[], Sequence[Control | Text | Draft]]


def job_of(index: int, value: Any, write: Callable[[Item], Sequence[Control | Text | Draft]]) -> Job:
    """The job of one input.  An input that cannot be read is an error like every other: when the job runs."""
    try:
        item = as_item(value)
    except Exception as error:  # a caller's object may raise anything
        return Job(index, reprlib.repr(value), partial(_raise, error))
    return Job(index, item.name, partial(write, item))


def _raise(error: Exception) -> Sequence[Control | Text | Draft]:
    raise error


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a job: the last token's hidden state (hidden,) float32, or an error; a notice if cut to fit."""

    index: int
    state: NDArray[np.float32] | None
    error: ItemError | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine runs; None chooses by the device."""

    device: str = "auto"
    dtype: str = "auto"
    batch_tokens: int | None = None
    threads: int | None = None
    exif: bool = False
    vision_cache: int | None = None


class Engine:
    """A model on a device, its tokenizer, and the threads that feed it.  Any number of threads may use it."""

    def __init__(self, checkpoint: Checkpoint, limits: Limits, policy: MediaPolicy, options: EngineOptions) -> None:
        self.checkpoint = checkpoint
        self.limits = limits
        self.policy = policy
        self.options = options
        self.device = choose_device(options.device)
        self.dtype = choose_dtype(options.dtype, self.device)
        self.fingerprint = fingerprint(checkpoint.folder)
        self._shared = _share(checkpoint.folder, self.fingerprint, self.device, self.dtype)
        self.batch_tokens = options.batch_tokens or (16384 if self.device.type == "cuda" else 4096)
        kept = options.vision_cache
        if kept is None:
            kept = 1 << 30 if self.device.type == "cuda" else 1 << 28
        self._sight = self._shared.sight if kept else None
        self._shared.sight.limit = max(self._shared.sight.limit, kept)
        self._accounts = Accounts()
        self._threads = ThreadPoolExecutor(options.threads or min(8, os.cpu_count() or 1), "qwen3vl")

    def __deepcopy__(self, memo: Any) -> Engine:
        """Itself: frameworks copy what holds it, and a model is not to be loaded twice for that."""
        return self

    @property
    def stats(self) -> Stats:
        """What this engine did so far."""
        return self._accounts.total

    @property
    def model(self) -> Qwen3VL:
        return self._shared.model

    @property
    def tokenizer(self) -> Tokenizer:
        return self._shared.tokenizer

    def draft(self, item: Item) -> Content[Draft]:
        """The item with its media's headers read."""
        return draft(item, self.limits, self.policy, exif=self.options.exif)

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Runs all jobs; outcomes come as packs end, in no promised order."""
        waiting: deque[_Step | Outcome] = deque()
        steps = self._steps(iter(jobs), waiting)
        try:
            while (step := self._next(steps)) is not None:
                waiting.append(step)
                if len(waiting) > AHEAD:
                    yield from self._finish(waiting.popleft())
            while waiting:
                yield from self._finish(waiting.popleft())
        finally:
            for step in waiting:
                if isinstance(step, _Step):
                    step.cancel()

    def _next(self, steps: Iterator[_Step | Outcome]) -> _Step | Outcome | None:
        began = time.perf_counter()
        step = next(steps, None)
        self._accounts.add(seconds_waiting=time.perf_counter() - began)
        return step

    def _steps(self, jobs: Iterator[Job], waiting: Iterable[_Step | Outcome]) -> Iterator[_Step | Outcome]:
        prompts: list[_Prompt] = []
        held = 0
        while some := list(islice(jobs, CHUNK)):
            for made in self._threads.map(self._plan, some):
                if isinstance(made, Outcome):
                    yield made
                else:
                    prompts.append(made)
                    held += sum(each.held for each in made.planning.media)
            if len(prompts) >= WINDOW or held >= HELD:
                yield from self._window(prompts, waiting)
                prompts, held = [], 0
        yield from self._window(prompts, waiting)

    def _window(self, prompts: Sequence[_Prompt], waiting: Iterable[_Step | Outcome]) -> Iterator[_Step]:
        for pack in self._packs(prompts):
            yield self._step(pack, prompts, waiting)

    def _plan(self, job: Job) -> _Prompt | Outcome:
        try:
            planning = fit(job.write(), self.tokenizer, self.limits.max_length)
        except Exception as error:  # one item's surprise is not the others'
            return _failed(job, error, getattr(error, "source", None))
        if planning.notice:
            log.warning("item %d (%s): %s", job.index, job.source, planning.notice)
        return _Prompt(job, planning)

    def _packs(self, prompts: Sequence[_Prompt], budget: int | None = None) -> Iterator[Pack]:
        return plan([prompt.planning.prompt for prompt in prompts], budget or self.batch_tokens)

    def _step(self, pack: Pack, prompts: Sequence[_Prompt], waiting: Iterable[_Step | Outcome]) -> _Step:
        """The pack, with what was seen before; the rest of its media are decoded, once for all packs that wait."""
        media: dict[Hashable, Planned] = {}
        for member in pack.members:
            media.update({each.vision.key: each for each in prompts[member].planning.media})
        seen: dict[Hashable, VisionFeatures] = {}
        pixels: dict[Hashable, Future[Tensor]] = {}
        decoding = {key: future for step in waiting if isinstance(step, _Step) for key, future in step.pixels.items()}
        for key in pack.media:
            features = self._sight.get(key) if self._sight else None
            if features is not None:
                seen[key] = features
            else:
                pixels[key] = decoding.get(key) or self._threads.submit(media[key].load)
        return _Step(pack, prompts, pixels, seen)

    def _finish(self, step: _Step | Outcome) -> Iterator[Outcome]:
        if isinstance(step, Outcome):
            yield step
            return
        pixels: dict[Hashable, Tensor] = {}
        broken: dict[Hashable, Exception] = {}
        began = time.perf_counter()
        for key, future in step.pixels.items():
            try:
                pixels[key] = future.result()
            except Exception as error:  # whatever a decoder raises is the error of the items that show it
                broken[key] = error
        self._accounts.add(seconds_waiting=time.perf_counter() - began)
        media = _Media(pixels, step.seen)
        if not broken:
            yield from self._forward(step.pack, step.prompts, media)
            return
        whole: list[_Prompt] = []
        for member in step.pack.members:
            prompt = step.prompts[member]
            failed = [each for each in prompt.planning.media if each.vision.key in broken]
            if failed:
                yield _failed(prompt.job, broken[failed[0].vision.key], failed[0].name)
            else:
                whole.append(prompt)
        for pack in self._packs(whole):
            yield from self._forward(pack, whole, media)

    def _forward(self, pack: Pack, prompts: Sequence[_Prompt], media: _Media) -> Iterator[Outcome]:
        members = [prompts[member] for member in pack.members]
        states, error = self._tried(pack, media)
        if states is not None:
            self._accounts.add(
                items=len(members),
                tokens_asked=sum(len(prompt.planning.prompt) for prompt in members),
                pictures_asked=sum(len(prompt.planning.media) for prompt in members),
            )
            for prompt, state in zip(members, states, strict=True):
                if np.isfinite(state).all():
                    yield Outcome(prompt.job.index, state, notice=prompt.planning.notice)
                else:
                    yield _failed(prompt.job, InputError("the model gives values for it that are not finite"), None)
        elif len(members) == 1 or not _out_of_memory(error):
            for prompt in members:
                yield _failed(prompt.job, error, None)
        else:
            log.warning("out of memory at %d tokens in one pack; going on with halves", pack.tokens)
            middle = len(members) // 2
            for half in (members[:middle], members[middle:]):
                for smaller in self._packs(half, 1 << 60):
                    yield from self._forward(smaller, half, media)

    def _tried(self, pack: Pack, media: _Media) -> tuple[NDArray[np.float32], Exception] | tuple[None, Exception]:
        """The states of a pack, or what kept it from them, rid of the frames that hold its tensors."""
        try:
            return self._states(pack, media), _NO_ERROR
        except Exception as error:  # the pack's items fail, not the call
            return None, _bare(error)

    def _states(self, pack: Pack, media: _Media) -> NDArray[np.float32]:
        """One forward pass: the hidden states of each member's last token, (members, hidden) float32."""
        with self._shared.lock, torch.inference_mode():
            began = time.perf_counter()
            features = self._see(pack, media).take(self._move(pack.rows)) if pack.media else None
            states = self.model(
                self._move(pack.ids),
                self._move(pack.positions),
                pack.layout,
                self._move(pack.wanted),
                self._move(pack.visual),
                features,
            )
            found: NDArray[np.float32] = states.float().cpu().numpy()
            self._accounts.add(
                packs=1,
                tokens_computed=pack.tokens,
                seconds_running=time.perf_counter() - began,
                flops=text_flops(self.model.config, pack.layout, len(pack.wanted)),
            )
            return found

    def _see(self, pack: Pack, media: _Media) -> VisionFeatures:
        """The features of a pack's pictures and clips, in its order; what was not seen before is encoded."""
        grids = dict(zip(pack.media, pack.grids, strict=True))
        seen = {key: media.seen[key] for key in pack.media if key in media.seen}
        if self._sight:
            # Also what a pack in front has encoded since this one was made.
            later = {key: self._sight.get(key) for key in pack.media if key not in seen}
            seen |= {key: features for key, features in later.items() if features is not None}
        fresh = [key for key in pack.media if key not in seen]
        self._accounts.add(
            pictures_encoded=len(fresh),
            pictures_kept=len(seen),
            flops=vision_flops(self.model.config, [grids[key] for key in fresh]),
        )
        if fresh:
            rows = [patches(media.pixels[key].to(self.device, non_blocking=True)) for key in fresh]
            encoded = self.model.see(torch.cat(rows), [grids[key] for key in fresh])
            if not seen and not self._sight:
                return encoded
            for key, features in zip(fresh, split(encoded, [tokens_of(grids[key]) for key in fresh]), strict=True):
                seen[key] = features
                if self._sight:
                    self._sight.put(key, features)
        return join([seen[key] for key in pack.media])

    def _move(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Prompt:
    job: Job
    planning: Planning


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A pack whose pixels are being made."""

    pack: Pack
    prompts: Sequence[_Prompt]
    pixels: dict[Hashable, Future[Tensor]]
    seen: dict[Hashable, VisionFeatures]

    def cancel(self) -> None:
        for future in self.pixels.values():
            future.cancel()


@dataclass(frozen=True, slots=True, eq=False)
class _Media:
    """What a pack shows, by key: uint8 pixels, or features where it was seen before."""

    pixels: dict[Hashable, Tensor]
    seen: dict[Hashable, VisionFeatures]


_NO_ERROR = Exception()


def _out_of_memory(error: Exception) -> bool:
    """CUDA has an error class for it; the CPU and Apple's GPU only say so."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory")
    )


def _bare(error: Exception) -> Exception:
    """The error without tracebacks: their frames would keep pixels and activations alive with it."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _failed(job: Job, error: Exception, source: str | None) -> Outcome:
    reason = str(error) or type(error).__name__
    if not isinstance(error, InputError):
        reason = f"{type(error).__name__}: {reason}"
    failure = ItemError(job.index, source or job.source, reason)
    failure.__cause__ = _bare(error)
    return Outcome(job.index, None, failure)


def choose_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device, else Apple's GPU, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} cannot be used here: {error}") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 on CUDA and float32 elsewhere."""
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in names:
        raise ValueError(f"dtype is {name!r}; it may be auto, {', '.join(names)}")
    return names[name]


@dataclass(eq=False)
class _Shared:
    """What all engines of one checkpoint, device and dtype use together; `lock` lets one at a time run the model."""

    model: Qwen3VL
    tokenizer: Tokenizer
    lock: threading.Lock
    sight: Sight


_in_use: weakref.WeakValueDictionary[Hashable, _Shared] = weakref.WeakValueDictionary()
_in_use_lock = threading.Lock()


def _share(folder: Path, digest: str, device: torch.device, dtype: torch.dtype) -> _Shared:
    """Weights and vocabulary, loaded once per process while anything uses them."""
    key = (digest, str(device), dtype)
    with _in_use_lock:
        shared = _in_use.get(key)
        if shared is None:
            model = load_model(folder, device, dtype)
            shared = _in_use[key] = _Shared(model, Tokenizer(folder / "tokenizer.json"), threading.Lock(), Sight())
            _share_tower(shared, [other for other in _in_use.values() if other is not shared])
        return shared


def _share_tower(shared: _Shared, others: Sequence[_Shared]) -> None:
    """Where another model has the same vision weights, as an embedding model and a reranker may, both use one tower."""
    own = shared.model.visual.state_dict()
    for other in others:
        theirs = other.model.visual.state_dict()
        if shared.model.config.vision == other.model.config.vision and all(
            weight.device == theirs[name].device
            and weight.dtype == theirs[name].dtype
            and torch.equal(weight, theirs[name])
            for name, weight in own.items()
        ):
            shared.model.visual, shared.sight = other.model.visual, other.sight
            return
