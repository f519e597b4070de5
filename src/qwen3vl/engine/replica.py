"""A model on one device, and its forward pass over a pack."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen3vl.engine.cancellation import raise_if_cancelled
from qwen3vl.engine.cuda_graphs import GraphCapturer, TextGraphs
from qwen3vl.engine.packing import Pack
from qwen3vl.engine.timing import DeviceTimestamp
from qwen3vl.engine.vision_cache import VisionFeatureCache
from qwen3vl.engine.vision_features import concat_features, split_features
from qwen3vl.engine.worker import DeviceWorker
from qwen3vl.model import Grid, Qwen3VL, VisionFeatures
from qwen3vl.model.flops import text_flops, vision_flops
from qwen3vl.model.layers.compilation import compile_elementwise
from qwen3vl.model.layers.fusion import fuse_text_layers
from qwen3vl.model.layers.quantized import WeightFormat
from qwen3vl.model.transfer import copy_to_device
from qwen3vl.model.weights import load_model
from qwen3vl.processing.geometry import num_tokens
from qwen3vl.processing.pixels import patches
from qwen3vl.processing.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class DeviceResult:
    """The result of a forward pass; on CUDA it may still be on its way to the host.

    Attributes:
        states: Hidden states, (num_prompts, hidden_size), in the model's dtype, on the host.
        idle_since: End of the device's previous work.
        began: Begin of the forward pass.
        ended: End of the forward pass and of the copy to the host.
        media_encoded: Number of images and videos that went through the vision tower.
        media_cached: Number of images and videos whose features were in the cache.
        flops: Floating point operations of the pass.
    """

    states: Tensor
    idle_since: DeviceTimestamp
    began: DeviceTimestamp
    ended: DeviceTimestamp
    media_encoded: int
    media_cached: int
    flops: int

    def fetch(self) -> NDArray[np.float32]:
        """Wait for the hidden states and return them.

        Returns:
            (num_prompts, hidden_size) float32.

        Raises:
            RuntimeError: A kernel failed. CUDA reports this only here.
        """
        self.ended.wait()
        states: NDArray[np.float32] = self.states.float().numpy()
        return states


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """How a checkpoint is loaded and run.

    Attributes:
        folder: The checkpoint's folder.
        digest: Digest of its files and of the adapter's; see `qwen3vl.model.fingerprint`.
        dtype: Dtype of weights and computations.
        weight_format: `"int8"` or `"fp8"` if weights are quantized, else None.
        compiled: Whether `torch.compile` fuses elementwise operations.
        cuda_graphs: Whether small packs of texts are run by CUDA graphs, on CUDA.
        adapter: Folder of the LoRA adapter that is merged into the weights, or None.
    """

    folder: Path
    digest: str
    dtype: torch.dtype
    weight_format: WeightFormat | None = None
    compiled: bool = False
    cuda_graphs: bool = False
    adapter: Path | None = None


class Replica:
    """A model's weights on a device, with its tokenizer, its vision feature cache and the device's worker.

    Args:
        load_spec: How the weights were loaded, and how they are run.
        model: The model. Several replicas may share it, or its vision tower.
        tokenizer: The checkpoint's tokenizer.
        vision_cache: Cache of the model's vision tower.
        worker: The worker of the device that the weights are on.
    """

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
        uses_graphs = load_spec.cuda_graphs and self.device.type == "cuda"
        self.text_graphs = TextGraphs(GraphCapturer(model)) if uses_graphs else None

    @classmethod
    def load(cls, load_spec: LoadSpec, worker: DeviceWorker) -> Replica:
        """Load a checkpoint onto a worker's device. Each layer of the model calls `raise_if_cancelled` first.

        Args:
            load_spec: What to load, and how.
            worker: The device's worker.

        Returns:
            A replica with a model of its own, and a vision feature cache of its own that stores nothing as yet.

        Raises:
            ModelError: The checkpoint is incomplete, damaged or of another architecture, or the adapter does not fit.
        """
        model = load_model(load_spec.folder, worker.device, load_spec.dtype, load_spec.weight_format, load_spec.adapter)
        if worker.device.type == "cuda":
            fuse_text_layers(model.language_model)
        if load_spec.compiled:
            compile_elementwise(model)
        for layer in (*model.language_model.layers, *model.visual.blocks):
            layer.register_forward_pre_hook(raise_if_cancelled)
        return cls(load_spec, model, Tokenizer(load_spec.folder / "tokenizer.json"), VisionFeatureCache(), worker)

    def execute(
        self,
        pack: Pack,
        pixels: Mapping[Hashable, Tensor],
        cached_features: Mapping[Hashable, VisionFeatures],
        *,
        use_cache: bool,
    ) -> DeviceResult:
        """Run a forward pass. Call it on the worker's thread, in inference mode.

        On CUDA the pass is only queued, so that the next one follows without a gap.

        Args:
            pack: What to run.
            pixels: By media key, uint8 (num_frames, height, width, 3) of all media without cached features.
            cached_features: By media key, features that were taken from the cache before.
            use_cache: Whether to look into the vision feature cache again and to store new features there.

        Returns:
            Hidden states of each prompt's last token, in the order of the pack, and measurements.

        Raises:
            Cancelled: The result is not needed any more; see `raise_if_cancelled`.
            RuntimeError: A kernel failed or memory ran out.
        """
        idle_since, began = self.worker.idle_since, DeviceTimestamp.now(self.device)
        try:
            features, media_encoded, flops = self._gather_vision_features(
                pack, pixels, cached_features, use_cache=use_cache
            )
            if features and not pack.shows_whole_media:
                features = features.take(self._move(pack.vision_feature_indices))
            states = self.text_graphs.run(pack) if self.text_graphs else None
            if states is None:
                states = self.model(
                    self._move(pack.input_ids),
                    self._move(pack.position_ids),
                    pack.layout,
                    self._move(pack.output_indices),
                    self._move(pack.vision_token_indices) if features else None,
                    features,
                )
            if self.device.type == "cuda":
                pinned = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
                states = pinned.copy_(states, non_blocking=True)
            else:
                states = states.cpu()
        finally:
            self.worker.idle_since = DeviceTimestamp.now(self.device)
        flops += text_flops(self.model.config, pack.layout, len(pack.output_indices))
        return DeviceResult(
            states=states,
            idle_since=idle_since,
            began=began,
            ended=self.worker.idle_since,
            media_encoded=media_encoded,
            media_cached=len(pack.media_keys) - media_encoded,
            flops=flops,
        )

    def _gather_vision_features(
        self,
        pack: Pack,
        pixels: Mapping[Hashable, Tensor],
        cached_features: Mapping[Hashable, VisionFeatures],
        *,
        use_cache: bool,
    ) -> tuple[VisionFeatures | None, int, int]:
        """Return the features of all media of a pack in its order, the number of media encoded, and their FLOPs."""
        if not pack.media_keys:
            return None, 0, 0
        features = {key: cached_features[key] for key in pack.media_keys if key in cached_features}
        if use_cache:
            # An earlier pack may have encoded some of these media since the cache was read for this one.
            lookups = {key: self.vision_cache.get(key) for key in pack.media_keys if key not in features}
            features |= {key: hit for key, hit in lookups.items() if hit is not None}
        grids = dict(zip(pack.media_keys, pack.grids, strict=True))
        missing = [key for key in pack.media_keys if key not in features]
        if missing:
            encoded = self._encode([pixels[key] for key in missing], [grids[key] for key in missing])
            split = split_features(encoded, [num_tokens(grids[key]) for key in missing])
            for key, media_features in zip(missing, split, strict=True):
                features[key] = media_features
                if use_cache:
                    self.vision_cache.put(key, media_features)
        flops = vision_flops(self.model.config, [grids[key] for key in missing])
        if len(missing) == len(pack.media_keys):  # then they are in the order of the pack already
            return encoded, len(missing), flops
        return concat_features([features[key] for key in pack.media_keys]), len(missing), flops

    def _encode(self, pixels: Iterable[Tensor], grids: Sequence[Grid]) -> VisionFeatures:
        dtype = self.model.dtype
        rows = torch.cat([patches(frames.to(self.device, non_blocking=True)).to(dtype) for frames in pixels])
        return self.model.encode_vision(rows, grids)

    def _move(self, values: NDArray[np.int64]) -> Tensor:
        return copy_to_device(torch.from_numpy(values), self.device)
