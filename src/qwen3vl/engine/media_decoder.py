"""Decoding of the media of requests, each at most once at a time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future

from torch import Tensor

from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.engine.calls import QueuedRequest
from qwen3vl.engine.replica import Replica
from qwen3vl.model import VisionFeatures
from qwen3vl.processing.sizing import SizedMedia


def load_pixels(media: SizedMedia) -> Tensor:
    """Decode an image or video.

    Args:
        media: The image or video and its size.

    Returns:
        (num_frames, height, width, 3) uint8.
    """
    return media.load()


class MediaDecoder:
    """Decodes media whose features are not cached. Thread-safe.

    Args:
        replicas: The model on its devices; the list may become empty later.
        threads: Threads on which media are decoded.
        decode: Decodes an image or video: uint8 (num_frames, height, width, 3).
        use_cache: Whether the vision feature caches are used.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        threads: ForkSafeThreadPool,
        decode: Callable[[SizedMedia], Tensor],
        *,
        use_cache: bool,
    ) -> None:
        self._replicas = replicas
        self._threads = threads
        self._decode = decode
        self._use_cache = use_cache
        self._pin_memory = replicas[0].device.type == "cuda"
        self._decoding: weakref.WeakValueDictionary[Hashable, Future[Tensor]] = weakref.WeakValueDictionary()

    def start(self, queued: QueuedRequest) -> None:
        """Take the features of a request's media from the caches, and decode the media that a device has not cached.

        Args:
            queued: The request. Its `features` and `pixels` are set.
        """
        media = {item.vision.key: item for item in queued.prepared.fitted.media}
        if self._use_cache:
            queued.features = [_cached_features(replica, media) for replica in self._replicas]
        missing = [key for key in media if not all(key in features for features in queued.features or ({},))]
        queued.pixels = {key: self._submit(key, media[key]) for key in missing}

    def _submit(self, key: Hashable, media: SizedMedia) -> Future[Tensor]:
        """Decode an image or video, unless another request has it, or will have it, decoded."""
        future = self._decoding.get(key)
        if future is None or future.cancelled():
            future = self._threads.submit(self._load, media)
            self._decoding[key] = future
        return future

    def _load(self, media: SizedMedia) -> Tensor:
        pixels = self._decode(media)
        return pixels.pin_memory() if self._pin_memory else pixels


def _cached_features(replica: Replica, keys: Iterable[Hashable]) -> dict[Hashable, VisionFeatures]:
    features = {key: replica.vision_cache.get(key) for key in keys}
    return {key: hit for key, hit in features.items() if hit is not None}
