"""A cache of vision tower outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from qwen3vl.concurrency.fork_safety import ForkSafeLock
from qwen3vl.model.vision import VisionFeatures

SCAN_THRESHOLD = 64
"""Evictions in a row of entries that were never read, after which the workload counts as a scan."""
MAX_GHOSTS = 1 << 16
"""Maximum number of keys that are remembered without their features."""


class VisionFeatureCache:
    """Byte-bounded LRU cache of vision tower outputs, with scan resistance.

    Indexing a collection shows every image once; a plain LRU would fill the memory with features that are never read
    again. After `SCAN_THRESHOLD` evictions in a row of entries without a hit, the cache drops all entries and admits a
    key only on its second appearance. Keys that were rejected are remembered as ghosts, without features. The first
    hit ends this mode. The ghosts, and admission on the second appearance, follow the 2Q algorithm (Johnson and
    Shasha, "2Q: A Low Overhead High Performance Buffer Management Replacement Algorithm", VLDB 1994).

    Thread-safe. All models that share a vision tower share its cache; the features stay on the tower's device.

    Args:
        max_bytes: Maximum size of the stored tensors, in bytes. 0 stores nothing.

    Attributes:
        max_bytes: As above. Engines raise it to the largest size that any of them is set to.
        size_bytes: Present size of the stored tensors, in bytes.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[Hashable, VisionFeatures] = OrderedDict()
        self._never_read: set[Hashable] = set()
        self._wasted_evictions = 0
        self._ghosts: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = ForkSafeLock()

    def get(self, key: Hashable) -> VisionFeatures | None:
        """Return the features of an image or video and mark them as recently used.

        Args:
            key: Content digest and size, as `VisionPart.key` has it.

        Returns:
            Features with tensors of shape (num_tokens, hidden_size), or None on a miss.
        """
        with self._lock:
            features = self._entries.get(key)
            if features is not None:
                self._entries.move_to_end(key)
                self._never_read.discard(key)
                self._wasted_evictions = 0
            return features

    def put(self, key: Hashable, features: VisionFeatures) -> None:
        """Store features, unless they are stored already or too large, or the cache resists a scan.

        Args:
            key: Content digest and size, as `VisionPart.key` has it.
            features: Features of one image or video. They are copied: usually they are views of a whole batch's
                tensors, which would stay in memory with them.
        """
        if _num_bytes(features) > self.max_bytes or not self._admit(key):
            return
        copy = VisionFeatures(features.tokens.clone(), tuple(layer.clone() for layer in features.deepstack))
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = copy
            self._never_read.add(key)
            self.size_bytes += _num_bytes(copy)
            while self.size_bytes > self.max_bytes:
                self._evict_oldest()

    def clear(self) -> None:
        """Remove all entries and ghosts."""
        with self._lock:
            self._drop_entries()
            self._wasted_evictions = 0
            self._ghosts.clear()

    def _admit(self, key: Hashable) -> bool:
        """Return whether to store a key now; during a scan, remember it as a ghost otherwise."""
        with self._lock:
            if key in self._entries:
                return False
            if self._wasted_evictions < SCAN_THRESHOLD or key in self._ghosts:
                return True
            self._ghosts[key] = None
            while len(self._ghosts) > MAX_GHOSTS:
                self._ghosts.popitem(last=False)
            return False

    def _evict_oldest(self) -> None:
        key, features = self._entries.popitem(last=False)
        self.size_bytes -= _num_bytes(features)
        if key in self._never_read:
            self._never_read.discard(key)
            self._wasted_evictions += 1
            if self._wasted_evictions == SCAN_THRESHOLD:
                self._drop_entries()

    def _drop_entries(self) -> None:
        self._entries.clear()
        self._never_read.clear()
        self.size_bytes = 0


def _num_bytes(features: VisionFeatures) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (features.tokens, *features.deepstack))
