"""What a vision tower has encoded lately, kept for those who show it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from qwen3vl.model.vision import VisionFeatures

SCAN_THRESHOLD = 64
"""Features that nobody asked for again, in a row, after which none are kept for those who show a picture once."""
MAX_GHOSTS = 1 << 16
"""Pictures that were not kept and are known again by their keys."""


class VisionFeatureCache:
    """Features by what they show and the size at which it is seen, the least recently used going first.

    Where pictures do not come again, as while a collection is indexed, keeping does not pay: after SCAN_THRESHOLD features
    in a row that made room unused, all are let go, and only what is shown a second time is kept, until that pays.

    Of a tower, whichever models use it.  They stay on the tower's device.  Any number of threads may use one object.
    """

    def __init__(self) -> None:
        self.max_bytes = 0
        """Bytes that are kept, at most: the most that any engine asked for."""
        self.size = 0
        self._entries: OrderedDict[Hashable, VisionFeatures] = OrderedDict()
        self._unused: set[Hashable] = set()
        self._wasted = 0
        self._ghosts: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> VisionFeatures | None:
        """The features, which then count as used last."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                self._unused.discard(key)
                self._wasted = 0
            return found

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._drop()
            self._wasted = 0
            self._ghosts.clear()

    def put(self, key: Hashable, features: VisionFeatures) -> None:
        """Keeps a copy: features are cut from those of a whole pack, which would stay with them."""
        if _bytes(features) > self.max_bytes or not self._admitted(key):
            return
        copied = VisionFeatures(features.tokens.clone(), tuple(layer.clone() for layer in features.deepstack))
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = copied
            self._unused.add(key)
            self.size += _bytes(copied)
            while self.size > self.max_bytes:
                oldest, gone = self._entries.popitem(last=False)
                self.size -= _bytes(gone)
                if oldest in self._unused:
                    self._unused.discard(oldest)
                    self._wasted += 1
                    if self._wasted == SCAN_THRESHOLD:
                        self._drop()

    def _admitted(self, key: Hashable) -> bool:
        with self._lock:
            if key in self._entries:
                return False
            if self._wasted < SCAN_THRESHOLD or key in self._ghosts:
                return True
            self._ghosts[key] = None
            while len(self._ghosts) > MAX_GHOSTS:
                self._ghosts.popitem(last=False)
            return False

    def _drop(self) -> None:
        self._entries.clear()
        self._unused.clear()
        self.size = 0


def _bytes(features: VisionFeatures) -> int:
    return sum(_tensor_bytes(each) for each in (features.tokens, *features.deepstack))


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def split_features(features: VisionFeatures, lengths: Sequence[int]) -> list[VisionFeatures]:
    """Features of pictures that were encoded together, one by one."""
    layers = [torch.split(layer, list(lengths)) for layer in (features.tokens, *features.deepstack)]
    return [VisionFeatures(first, tuple(rest)) for first, *rest in zip(*layers, strict=True)]


def concat_features(features: Sequence[VisionFeatures]) -> VisionFeatures:
    """Features in one row, in this order."""
    tokens, *deepstack = (
        torch.cat(layer) for layer in zip(*([one.tokens, *one.deepstack] for one in features), strict=True)
    )
    return VisionFeatures(tokens, tuple(deepstack))
