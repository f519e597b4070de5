"""The engine: a model on its devices, with everything that runs requests on it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qwen3vl.engine.cancellation import raise_if_cancelled
from qwen3vl.engine.devices import choose_devices, choose_dtype
from qwen3vl.engine.executor import BatchExecutor, Forward
from qwen3vl.engine.media_decoder import load_pixels
from qwen3vl.engine.memory import TokenBudget, default_cache_bytes, graph_bytes, token_budget
from qwen3vl.engine.preparation import RequestPreparer
from qwen3vl.engine.replica import LoadSpec, Replica
from qwen3vl.engine.replica_pool import REPLICAS
from qwen3vl.engine.requests import PromptParts, UnparsedRequest
from qwen3vl.engine.scheduler import Scheduler
from qwen3vl.engine.stats import Stats
from qwen3vl.errors import CLOSED
from qwen3vl.inputs import Item
from qwen3vl.media.isolation import MAX_PROCESSES
from qwen3vl.model import Qwen3VL
from qwen3vl.model.fingerprint import fingerprint
from qwen3vl.model.hub import Checkpoint
from qwen3vl.processing.fitting import FittedPrompt, fit
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import SizedMedia, UnsizedMedia, read_headers
from qwen3vl.processing.templates import PromptContent
from qwen3vl.processing.tokenizer import Tokenizer
from qwen3vl.results import ItemOutput
from qwen3vl.settings import EngineSettings

MAX_MEDIA_QUERIES = 32
"""Maximum number of awaited rerankings whose queries have images or videos, for each event loop; others wait."""


class Engine:
    """Runs prompts through a model. Any number of threads may use one object at once.

    Engines whose checkpoint, adapter, dtype and `compiled` are equal share the weights on each device; see
    `ReplicaPool`.

    Args:
        checkpoint: The model's folder and name.
        settings: Devices, dtype, media policy, caches.
        limits: Limits of prompts and media.
        fit: Shrinks media and truncates text so that a prompt fits.
        decode: Decodes an image or video: uint8 (num_frames, height, width, 3).
        forward: Runs a forward pass on a replica.

    Attributes:
        checkpoint: As above.
        settings: As above.
        limits: As above.
        fingerprint: Digest of the checkpoint's files, and of the adapter's.
        dtype: Name of the dtype of weights, as in `settings`, with what `"auto"` means on the first device.
        replicas: The model on each device; empty after `close`.
        budget: Maximum number of tokens of a batch. It shrinks when memory runs out, and recovers.

    Raises:
        ModelError: The checkpoint is incomplete, damaged or of another architecture, or the adapter does not fit it.
        ValueError: A device or dtype cannot be used.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: EngineSettings,
        limits: Limits,
        *,
        fit: Callable[[PromptParts, Tokenizer, int], FittedPrompt] = fit,
        decode: Callable[[SizedMedia], Tensor] = load_pixels,
        forward: Forward = Replica.execute,
    ) -> None:
        self.checkpoint = checkpoint
        self.settings = settings
        self.limits = limits
        self.fingerprint = fingerprint(checkpoint.folder, checkpoint.adapter_folder)
        devices = choose_devices(settings.device)
        dtype, weight_format = choose_dtype(settings.dtype, devices[0])
        self.dtype = weight_format or str(dtype).removeprefix("torch.")
        load_spec = LoadSpec(
            checkpoint.folder,
            self.fingerprint,
            dtype,
            weight_format,
            compiled=settings.compiled,
            cuda_graphs=settings.cuda_graphs,
            adapter=checkpoint.adapter_folder,
        )
        self.replicas = REPLICAS.get(load_spec, devices)
        cache_bytes = settings.vision_cache
        if cache_bytes is None:
            cache_bytes = min(default_cache_bytes(device) for device in devices)
        for replica in self.replicas:
            replica.vision_cache.max_bytes = max(replica.vision_cache.max_bytes, cache_bytes)
        config, reserved_bytes = self.model.config, cache_bytes
        if settings.cuda_graphs:
            reserved_bytes += graph_bytes(config, dtype, weight_format)
        self.budget = TokenBudget(
            settings.batch_tokens
            or min(token_budget(config, device, dtype, reserved_bytes, weight_format) for device in devices)
        )
        self._query_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )
        self._scheduler = Scheduler(
            self.replicas,
            RequestPreparer(self.tokenizer, limits.max_length, fit),
            BatchExecutor(self.budget, use_cache=cache_bytes > 0, forward=forward),
            # Threads that wait for decoder processes cost no core.
            max_threads=settings.threads or (MAX_PROCESSES if settings.policy.isolated else None),
            decode=decode,
        )

    def __deepcopy__(self, memo: Any) -> Engine:
        """Return the engine itself: frameworks copy objects that hold it, and the model must not be loaded twice."""
        return self

    @property
    def stats(self) -> Stats:
        """Counts of this engine's work so far."""
        return self._scheduler.stats.total

    @property
    def model(self) -> Qwen3VL:
        """The model on the first device.

        Raises:
            RuntimeError: The engine is closed.
        """
        return self._first_replica().model

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            RuntimeError: The engine is closed.
        """
        return self._first_replica().tokenizer

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._scheduler.closed

    def close(self) -> None:
        """Release the weights, unless other engines use them, and stop the engine's media threads.

        Calls that are running end with a `RuntimeError`, as do later calls. Closing again does nothing.
        """
        on_cuda = any(replica.device.type == "cuda" for replica in self.replicas)
        self._scheduler.close()
        self.replicas = []
        if on_cuda:
            torch.cuda.empty_cache()

    def read_headers(self, item: Item) -> PromptContent[UnsizedMedia]:
        """Read the headers of an item's images and videos.

        Args:
            item: The parsed input.

        Returns:
            The item's content, with media whose natural size is known.

        Raises:
            InputError: An image or video cannot be read, or the media policy does not allow it.
        """
        return read_headers(
            item, self.limits, self.settings.policy, exif=self.settings.exif, before_each=raise_if_cancelled
        )

    def clear_vision_cache(self) -> None:
        """Drop the cached features of images and videos, for all engines that share the vision tower."""
        for replica in self.replicas:
            replica.vision_cache.clear()

    def run(self, requests: Iterable[UnparsedRequest]) -> Generator[ItemOutput]:
        """Run requests. Each ends in an output; none can make another one fail.

        Args:
            requests: Taken on the caller's thread, as they are needed. What the iterable itself raises ends the call.

        Returns:
            A generator of one output per request, in the order in which batches are done. Closing it cancels the
            requests that are left.

        Raises:
            RuntimeError: The engine is closed. The generator raises it, too, if the engine is closed meanwhile.
        """
        if self.closed:
            raise RuntimeError(CLOSED)
        return self._scheduler.run(requests)

    def arun(self, requests: Iterable[UnparsedRequest]) -> AsyncGenerator[ItemOutput]:
        """Run requests as `run` does, without occupying a thread while they wait.

        Args:
            requests: Taken on the event loop's thread, as they are needed.

        Returns:
            An asynchronous generator of one output per request. Closing it cancels the requests that are left.

        Raises:
            RuntimeError: The engine is closed. The generator raises it, too, if the engine is closed meanwhile.
        """
        if self.closed:
            raise RuntimeError(CLOSED)
        return self._scheduler.arun(requests)

    async def aread_headers(self, item: Item) -> PromptContent[UnsizedMedia]:
        """Read the headers of an item's images and videos as `read_headers` does, without blocking the event loop.

        Args:
            item: The parsed input.

        Returns:
            The item's content, with media whose natural size is known.

        Raises:
            InputError: An image or video cannot be read, or the media policy does not allow it.
        """
        if not (item.images or item.videos):
            return self.read_headers(item)
        return await self._scheduler.arun_blocking(partial(self.read_headers, item))

    def query_slot(self, item: Item) -> AbstractAsyncContextManager[Any]:
        """Return a context to enter before the media of a query are read, which limits how many are in memory.

        Args:
            item: The query. If it has media, entering waits while `MAX_MEDIA_QUERIES` others of the event loop are in
                such a context.

        Returns:
            The context.
        """
        if not (item.images or item.videos):
            return nullcontext()
        return self._query_slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_MEDIA_QUERIES))

    def _first_replica(self) -> Replica:
        if not self.replicas:
            raise RuntimeError(CLOSED)
        return self.replicas[0]
