"""A model on one device, and the thread that runs it: one pack after the other, whoever asks."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3vl.geometry import tokens_of
from qwen3vl.model import Grid, Qwen3VL, VisionFeatures
from qwen3vl.model.attention import move
from qwen3vl.model.flops import text_flops, vision_flops
from qwen3vl.model.fused import compile_elementwise
from qwen3vl.model.quantized import Bits
from qwen3vl.model.sight import Sight, join, split
from qwen3vl.model.weights import load_model
from qwen3vl.packing import Pack
from qwen3vl.pixels import patches
from qwen3vl.prompt import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 (nobody's error)
    """The caller has gone: a Ctrl-C, or a stream that nobody reads on."""


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A moment of a device: of the host's clock, or on CUDA an event in the queue of its work."""

    time: float
    event: torch.cuda.Event | None = None

    def since(self, earlier: Mark) -> float:
        """Seconds between two moments, once both have passed."""
        if self.event is None or earlier.event is None:
            return self.time - earlier.time
        self.event.synchronize()
        return float(earlier.event.elapsed_time(self.event)) / 1000

    @property
    def passed(self) -> bool:
        return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """A pack that was run: its hidden states on their way to the host, and what that took.

    `waited` marks since when the device had nothing to do.
    """

    states: Tensor
    waited: Mark
    began: Mark
    ended: Mark
    encoded: int
    kept: int
    flops: int

    def fetch(self) -> NDArray[np.float32]:
        """(members, hidden) float32, once they are there; errors that the device tells late come here."""
        if self.ended.event is not None:
            self.ended.event.synchronize()
        found: NDArray[np.float32] = self.states.float().numpy()
        return found


class Replica:
    """The weights and vocabulary of a checkpoint on a device, what its vision tower has seen, and its thread."""

    def __init__(self, model: Qwen3VL, tokenizer: Tokenizer, sight: Sight, device: torch.device) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.sight = sight
        self.device = device
        self._lane = ThreadPoolExecutor(1, f"qwen3vl-{device}")
        self._ended = self.mark()

    def submit(self, work: Callable[[], T], stop: threading.Event) -> Future[T]:
        """The work on this replica's thread.  Once `stop` is set, it ends with `Stopped`: at the next layer."""

        def run() -> T:
            with _until(stop), torch.inference_mode(), _on(self.device):
                _check()
                return work()

        return self._lane.submit(run)

    def mark(self) -> Mark:
        """Now, by the device."""
        if self.device.type != "cuda":
            return Mark(time.perf_counter())
        with _on(self.device):
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
        return Mark(time.perf_counter(), event)

    def run(
        self, pack: Pack, pixels: Mapping[Hashable, Tensor], seen: Mapping[Hashable, VisionFeatures], *, keep: bool
    ) -> Ran:
        """One forward pass; what it shows is in `seen` already or in `pixels`, uint8, and kept for others if `keep`.

        On CUDA the pass is only queued, so that the next one follows without a gap.
        """
        began = self.mark()
        features, encoded, flops = self._see(pack, pixels, seen, keep=keep)
        states = self.model(
            self._move(pack.ids),
            self._move(pack.positions),
            pack.layout,
            self._move(pack.wanted),
            self._move(pack.visual),
            features.take(self._move(pack.rows)) if features else None,
        )
        if self.device.type == "cuda":
            states = torch.empty(states.shape, dtype=states.dtype, pin_memory=True).copy_(states, non_blocking=True)
        else:
            states = states.cpu()
        waited, self._ended = self._ended, self.mark()
        flops += text_flops(self.model.config, pack.layout, len(pack.wanted))
        return Ran(states, waited, began, self._ended, encoded, len(pack.media) - encoded, flops)

    def _see(
        self, pack: Pack, pixels: Mapping[Hashable, Tensor], seen: Mapping[Hashable, VisionFeatures], *, keep: bool
    ) -> tuple[VisionFeatures | None, int, int]:
        """Features of a pack's media in its order, how many were encoded for that, and the operations of it."""
        if not pack.media:
            return None, 0, 0
        found = {key: seen[key] for key in pack.media if key in seen}
        if keep:
            # Also what a pack in front has encoded since this one was made.
            later = {key: self.sight.get(key) for key in pack.media if key not in found}
            found |= {key: features for key, features in later.items() if features is not None}
        grids = dict(zip(pack.media, pack.grids, strict=True))
        fresh = [key for key in pack.media if key not in found]
        if fresh:
            encoded = self._encode([pixels[key] for key in fresh], [grids[key] for key in fresh])
            for key, features in zip(fresh, split(encoded, [tokens_of(grids[key]) for key in fresh]), strict=True):
                found[key] = features
                if keep:
                    self.sight.put(key, features)
        flops = vision_flops(self.model.config, [grids[key] for key in fresh])
        return join([found[key] for key in pack.media]), len(fresh), flops

    def _encode(self, pixels: Iterable[Tensor], grids: Sequence[Grid]) -> VisionFeatures:
        rows = [patches(each.to(self.device, non_blocking=True)) for each in pixels]
        return self.model.see(torch.cat(rows), grids)

    def _move(self, values: NDArray[np.int64]) -> Tensor:
        return move(torch.from_numpy(values), self.device)


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


def _check(*_: Any) -> None:
    stop = getattr(_running, "stop", None)
    if stop is not None and stop.is_set():
        raise Stopped


_in_use: weakref.WeakValueDictionary[Hashable, Replica] = weakref.WeakValueDictionary()
_in_use_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Build:
    """How the weights of a folder are loaded; `compiled`: with elementwise work fused, on CUDA."""

    folder: Path
    digest: str
    dtype: torch.dtype
    bits: Bits | None = None
    compiled: bool = False


def replicas(build: Build, devices: Sequence[torch.device]) -> list[Replica]:
    """A replica for each device, loaded once per process while anything uses it.

    A device that is named again gets another thread, on the same weights.
    """
    made: list[Replica] = []
    with _in_use_lock:
        for number, device in enumerate(devices):
            key = (build.digest, build.dtype, build.bits, build.compiled, str(device), devices[:number].count(device))
            replica = _in_use.get(key)
            if replica is None:
                twin = next((one for one in made if one.device == device), None)
                replica = _in_use[key] = _loaded(build, device) if twin is None else _twin(twin)
                if twin is None:
                    _share_tower(replica, [other for other in _in_use.values() if other is not replica])
            made.append(replica)
    return made


def _loaded(build: Build, device: torch.device) -> Replica:
    model = load_model(build.folder, device, build.dtype, build.bits)
    if build.compiled:
        compile_elementwise(model)
    for layer in (*model.language_model.layers, *model.visual.blocks):
        layer.register_forward_pre_hook(_check)
    return Replica(model, Tokenizer(build.folder / "tokenizer.json"), Sight(), device)


def _twin(one: Replica) -> Replica:
    return Replica(one.model, one.tokenizer, one.sight, one.device)


def _share_tower(replica: Replica, others: Iterable[Replica]) -> None:
    """Where another model has the same vision weights, as an embedding model and a reranker may, both use one tower."""
    own = replica.model.visual.state_dict()
    for other in others:
        theirs = other.model.visual.state_dict()
        if replica.model.config.vision == other.model.config.vision and all(
            name in theirs
            and weight.device == theirs[name].device
            and weight.dtype == theirs[name].dtype
            and torch.equal(weight, theirs[name])
            for name, weight in own.items()
        ):
            replica.model.visual, replica.sight = other.model.visual, other.sight
            return
