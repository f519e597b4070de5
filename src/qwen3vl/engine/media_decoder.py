"""Decoding of the media of requests."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial

import torch
from torch import Tensor

from qwen3vl.concurrency.fork_safety import init_in_each_process
from qwen3vl.concurrency.pull_thread_pool import Job
from qwen3vl.engine.calls import QueuedRequest
from qwen3vl.engine.replica import Replica
from qwen3vl.errors import MediaError
from qwen3vl.model import VisionFeatures
from qwen3vl.processing.sizing import SizedMedia


def load_pixels(media: SizedMedia) -> Tensor:
    """Decode an image or video.

    Args:
        media: The image or video and its size.

    Returns:
        (num_frames, height, width, 3) uint8.
    """
    return torch.from_numpy(media.load())


class _Decoding(Future[Tensor]):
    """The future of a decoded image or video.

    Args:
        source: Name of the file that it is decoded from; others with the same content share it.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source


class MediaDecoder:
    """Decodes media whose features are not cached. Media that several requests share are decoded once. Thread-safe.

    Args:
        replicas: The model on its devices; the list may become empty later.
        decode: Decodes an image or video: uint8 (num_frames, height, width, 3).
        use_cache: Whether the vision feature caches are used.
    """

    def __init__(self, replicas: Sequence[Replica], decode: Callable[[SizedMedia], Tensor], *, use_cache: bool) -> None:
        self._replicas = replicas
        self._decode = decode
        self._use_cache = use_cache
        self._pin_memory = replicas[0].device.type == "cuda"
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Begin without media: in a forked process, nobody completes its parent's futures."""
        self._lock = threading.Lock()
        self._futures: weakref.WeakValueDictionary[Hashable, _Decoding] = weakref.WeakValueDictionary()
        self._waiting: deque[tuple[_Decoding, SizedMedia]] = deque()

    def start(self, queued: QueuedRequest) -> None:
        """Take the features of a request's media from the caches, and queue the other media for `next_job`.

        Args:
            queued: The request. Its `features` and `pixels` are set.
        """
        media = {item.vision.key: item for item in queued.prepared.fitted.media}
        if self._use_cache:
            queued.features = [_cached_features(replica, media) for replica in self._replicas]
        missing = [key for key in media if not all(key in features for features in queued.features or ({},))]
        with self._lock:
            queued.pixels = {key: self._future(key, media[key]) for key in missing}

    def next_job(self) -> Job | None:
        """Return a function that decodes the next image or video; None if there is none."""
        try:
            future, media = self._waiting.popleft()
        except IndexError:
            return None
        return partial(self._run, future, media)

    def retry(self, queued: QueuedRequest) -> int:
        """Queue media again that failed to be decoded from files of the same content, which may be gone since then.

        Args:
            queued: A request whose media are decoded. Its `pixels` are set anew for those that are decoded again, from
                its own files; that happens once.

        Returns:
            Number of media that are decoded again.
        """
        if queued.retried:
            return 0
        queued.retried = True
        num_again = 0
        with self._lock:
            for media in queued.prepared.fitted.media:
                key = media.vision.key
                future = queued.pixels.get(key)
                if not isinstance(future, _Decoding) or not future.done() or future.source == media.name:
                    continue
                if isinstance(future.exception(), MediaError):
                    queued.pixels[key] = self._start_future(key, media)
                    num_again += 1
        return num_again

    def _future(self, key: Hashable, media: SizedMedia) -> Future[Tensor]:
        return self._futures.get(key) or self._start_future(key, media)

    def _start_future(self, key: Hashable, media: SizedMedia) -> Future[Tensor]:
        future = self._futures[key] = _Decoding(media.name)
        self._waiting.append((future, media))
        return future

    def _run(self, future: Future[Tensor], media: SizedMedia) -> None:
        try:
            pixels = self._decode(media)
            if self._pin_memory:
                pixels = pixels.pin_memory()
        except BaseException as error:  # it is the error of the requests that need it
            future.set_exception(error)
        else:
            future.set_result(pixels)


def _cached_features(replica: Replica, keys: Iterable[Hashable]) -> dict[Hashable, VisionFeatures]:
    features = {key: replica.vision_cache.get(key) for key in keys}
    return {key: hit for key, hit in features.items() if hit is not None}
