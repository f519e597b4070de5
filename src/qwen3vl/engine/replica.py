"""A model on one device: its weights, loaded once, and one pack through them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3vl.engine.lane import Lane, Mark, check, lanes
from qwen3vl.geometry import tokens_of
from qwen3vl.model import Grid, Qwen3VL, VisionFeatures
from qwen3vl.model.elementwise import compile_elementwise
from qwen3vl.model.flops import text_flops, vision_flops
from qwen3vl.model.layout import move
from qwen3vl.model.onednn import reorder
from qwen3vl.model.quantized import Bits
from qwen3vl.model.sight import Sight, join, split
from qwen3vl.model.weights import load_model
from qwen3vl.packing import Pack
from qwen3vl.pixels import patches
from qwen3vl.prompt import Tokenizer


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


@dataclass(frozen=True, slots=True)
class Build:
    """How the weights of a folder are loaded; `compiled`: with elementwise work fused."""

    folder: Path
    digest: str
    dtype: torch.dtype
    bits: Bits | None = None
    compiled: bool = False


class Replica:
    """The weights and vocabulary of a checkpoint on a device, what its vision tower has seen, and the device's lane."""

    def __init__(self, build: Build, model: Qwen3VL, tokenizer: Tokenizer, sight: Sight, lane: Lane) -> None:
        self.build = build
        self.model = model
        self.tokenizer = tokenizer
        self.sight = sight
        self.lane = lane
        self.device = lane.device

    def run(
        self, pack: Pack, pixels: Mapping[Hashable, Tensor], seen: Mapping[Hashable, VisionFeatures], *, keep: bool
    ) -> Ran:
        """One forward pass; what it shows is in `seen` already or in `pixels`, uint8, and kept for others if `keep`.

        On the lane's thread.  On CUDA the pass is only queued, so that the next one follows without a gap.
        """
        waited, began = self.lane.ended, self.lane.mark()
        try:
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
                pinned = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
                states = pinned.copy_(states, non_blocking=True)
            else:
                states = states.cpu()
        finally:
            self.lane.ended = self.lane.mark()
        flops += text_flops(self.model.config, pack.layout, len(pack.wanted))
        return Ran(states, waited, began, self.lane.ended, encoded, len(pack.media) - encoded, flops)

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


_in_use: weakref.WeakValueDictionary[Hashable, Replica] = weakref.WeakValueDictionary()
_in_use_lock = threading.Lock()
_loading: dict[Hashable, threading.Lock] = {}


def replicas(build: Build, devices: Sequence[torch.device]) -> list[Replica]:
    """A replica for each device, loaded once per process while anything uses it.

    A device that is named again gets another lane, on the same weights.
    """
    weights = (build.digest, build.dtype, build.bits, build.compiled)
    with _in_use_lock:
        loading = _loading.setdefault(weights, threading.Lock())
    made: list[Replica] = []
    with loading:  # others load other models meanwhile
        for lane in lanes(devices):
            key = (weights, lane)
            replica = _in_use.get(key)
            if replica is None:
                twin = next((one for one in made if one.device == lane.device), None)
                if twin is None:
                    replica = _loaded(build, lane)
                    with _in_use_lock:
                        _share_tower(replica, list(_in_use.values()))
                    reorder(replica.model)
                else:
                    replica = Replica(build, twin.model, twin.tokenizer, twin.sight, lane)
                with _in_use_lock:
                    _in_use[key] = replica
            made.append(replica)
    return made


def _loaded(build: Build, lane: Lane) -> Replica:
    model = load_model(build.folder, lane.device, build.dtype, build.bits)
    if build.compiled:
        compile_elementwise(model)
    for layer in (*model.language_model.layers, *model.visual.blocks):
        layer.register_forward_pre_hook(check)
    return Replica(build, model, Tokenizer(build.folder / "tokenizer.json"), Sight(), lane)


def _share_tower(replica: Replica, others: Iterable[Replica]) -> None:
    """Where another model has the same vision weights, as an embedding model and a reranker may, both use one tower."""
    own = replica.model.visual.state_dict()
    for other in others:
        theirs = other.model.visual.state_dict()
        alike = replica.model.config.vision == other.model.config.vision
        if (
            alike
            and replica.build.compiled == other.build.compiled
            and all(
                name in theirs
                and weight.device == theirs[name].device
                and weight.dtype == theirs[name].dtype
                and torch.equal(weight, _plain(theirs[name]))
                for name, weight in own.items()
            )
        ):
            replica.model.visual, replica.sight = other.model.visual, other.sight
            return


def _plain(weight: Tensor) -> Tensor:
    return weight.to_dense() if weight.is_mkldnn else weight
