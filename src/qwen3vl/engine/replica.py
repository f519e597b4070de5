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

from qwen3vl.engine.packing import Pack
from qwen3vl.engine.vision_cache import VisionFeatureCache, concat_features, split_features
from qwen3vl.engine.worker import DeviceTimestamp, DeviceWorker, device_workers, raise_if_cancelled
from qwen3vl.model import Grid, Qwen3VL, VisionFeatures
from qwen3vl.model.flops import text_flops, vision_flops
from qwen3vl.model.layers.compilation import compile_elementwise
from qwen3vl.model.layers.onednn import use_onednn_linears
from qwen3vl.model.layers.quantized import WeightFormat
from qwen3vl.model.transfer import copy_to_device
from qwen3vl.model.weights import load_model
from qwen3vl.processing.geometry import num_tokens
from qwen3vl.processing.pixels import patches
from qwen3vl.processing.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class DeviceResult:
    """A pack that was run: its hidden states on their way to the host, and what that took.

    `waited` marks since when the device had nothing to do.
    """

    states: Tensor
    waited: DeviceTimestamp
    began: DeviceTimestamp
    ended: DeviceTimestamp
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
class LoadSpec:
    """How the weights of a folder are loaded; `compiled`: with elementwise work fused."""

    folder: Path
    digest: str
    dtype: torch.dtype
    bits: WeightFormat | None = None
    compiled: bool = False


class Replica:
    """The weights and vocabulary of a checkpoint on a device, what its vision tower has seen, and the device's worker."""

    def __init__(
        self,
        load_spec: LoadSpec,
        model: Qwen3VL,
        tokenizer: Tokenizer,
        vision_cache: VisionFeatureCache,
        worker: DeviceWorker,
    ) -> None:
        self.load_spec = load_spec
        self.model = model
        self.tokenizer = tokenizer
        self.vision_cache = vision_cache
        self.worker = worker
        self.device = worker.device

    def execute(
        self, pack: Pack, pixels: Mapping[Hashable, Tensor], seen: Mapping[Hashable, VisionFeatures], *, keep: bool
    ) -> DeviceResult:
        """One forward pass; what it shows is in `seen` already or in `pixels`, uint8, and kept for others if `keep`.

        On the worker's thread.  On CUDA the pass is only queued, so that the next one follows without a gap.
        """
        waited, began = self.worker.ended, self.worker.timestamp()
        try:
            features, encoded, flops = self._gather_vision_features(pack, pixels, seen, keep=keep)
            states = self.model(
                self._move(pack.ids),
                self._move(pack.positions),
                pack.layout,
                self._move(pack.output_indices),
                self._move(pack.vision_token_indices),
                features.take(self._move(pack.vision_feature_indices)) if features else None,
            )
            if self.device.type == "cuda":
                pinned = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
                states = pinned.copy_(states, non_blocking=True)
            else:
                states = states.cpu()
        finally:
            self.worker.ended = self.worker.timestamp()
        flops += text_flops(self.model.config, pack.layout, len(pack.output_indices))
        return DeviceResult(states, waited, began, self.worker.ended, encoded, len(pack.media) - encoded, flops)

    def _gather_vision_features(
        self, pack: Pack, pixels: Mapping[Hashable, Tensor], seen: Mapping[Hashable, VisionFeatures], *, keep: bool
    ) -> tuple[VisionFeatures | None, int, int]:
        """Features of a pack's media in its order, how many were encoded for that, and the operations of it."""
        if not pack.media:
            return None, 0, 0
        found = {key: seen[key] for key in pack.media if key in seen}
        if keep:
            # Also what a pack in front has encoded since this one was made.
            later = {key: self.vision_cache.get(key) for key in pack.media if key not in found}
            found |= {key: features for key, features in later.items() if features is not None}
        grids = dict(zip(pack.media, pack.grids, strict=True))
        fresh = [key for key in pack.media if key not in found]
        if fresh:
            encoded = self._encode([pixels[key] for key in fresh], [grids[key] for key in fresh])
            for key, features in zip(
                fresh, split_features(encoded, [num_tokens(grids[key]) for key in fresh]), strict=True
            ):
                found[key] = features
                if keep:
                    self.vision_cache.put(key, features)
        flops = vision_flops(self.model.config, [grids[key] for key in fresh])
        return concat_features([found[key] for key in pack.media]), len(fresh), flops

    def _encode(self, pixels: Iterable[Tensor], grids: Sequence[Grid]) -> VisionFeatures:
        rows = [patches(each.to(self.device, non_blocking=True)) for each in pixels]
        return self.model.encode_vision(torch.cat(rows), grids)

    def _move(self, values: NDArray[np.int64]) -> Tensor:
        return copy_to_device(torch.from_numpy(values), self.device)


_in_use: weakref.WeakValueDictionary[Hashable, Replica] = weakref.WeakValueDictionary()
_in_use_lock = threading.Lock()
_loading: dict[Hashable, threading.Lock] = {}


def replicas(load_spec: LoadSpec, devices: Sequence[torch.device]) -> list[Replica]:
    """A replica for each device, loaded once per process while anything uses it.

    A device that is named again gets another worker, on the same weights.
    """
    weights = (load_spec.digest, load_spec.dtype, load_spec.bits, load_spec.compiled)
    with _in_use_lock:
        loading = _loading.setdefault(weights, threading.Lock())
    made: list[Replica] = []
    with loading:  # others load other models meanwhile
        for worker in device_workers(devices):
            key = (weights, worker)
            replica = _in_use.get(key)
            if replica is None:
                twin = next((one for one in made if one.device == worker.device), None)
                if twin is None:
                    replica = _loaded(load_spec, worker)
                    with _in_use_lock:
                        _share_tower(replica, list(_in_use.values()))
                    use_onednn_linears(replica.model)
                else:
                    replica = Replica(load_spec, twin.model, twin.tokenizer, twin.vision_cache, worker)
                with _in_use_lock:
                    _in_use[key] = replica
            made.append(replica)
    return made


def _loaded(load_spec: LoadSpec, worker: DeviceWorker) -> Replica:
    model = load_model(load_spec.folder, worker.device, load_spec.dtype, load_spec.bits)
    if load_spec.compiled:
        compile_elementwise(model)
    for layer in (*model.language_model.layers, *model.visual.blocks):
        layer.register_forward_pre_hook(raise_if_cancelled)
    return Replica(load_spec, model, Tokenizer(load_spec.folder / "tokenizer.json"), VisionFeatureCache(), worker)


def _share_tower(replica: Replica, others: Iterable[Replica]) -> None:
    """Where another model has the same vision weights, as an embedding model and a reranker may, both use one tower."""
    own = replica.model.visual.state_dict()
    for other in others:
        theirs = other.model.visual.state_dict()
        alike = replica.model.config.vision == other.model.config.vision
        if (
            alike
            and replica.load_spec.compiled == other.load_spec.compiled
            and all(
                name in theirs
                and weight.device == theirs[name].device
                and weight.dtype == theirs[name].dtype
                and torch.equal(weight, _plain(theirs[name]))
                for name, weight in own.items()
            )
        ):
            replica.model.visual, replica.vision_cache = other.model.visual, other.vision_cache
            return


def _plain(weight: Tensor) -> Tensor:
    return weight.to_dense() if weight.is_mkldnn else weight
