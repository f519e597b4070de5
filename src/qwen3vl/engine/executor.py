"""Execution of a batch on a replica, with recovery from lack of memory and from requests that fail."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from qwen3vl.engine.batches import BatchFailure, BatchResult, ScheduledBatch, form_batches
from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.memory import TokenBudget
from qwen3vl.engine.packing import Pack
from qwen3vl.engine.replica import DeviceResult, Replica
from qwen3vl.model import VisionFeatures
from qwen3vl.results import without_traceback

log = logging.getLogger(__name__)

_UNLIMITED = 1 << 60
"""Tokens that no batch reaches."""
_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory")
"""What the messages of torch's allocators for CPUs and Apple's GPUs say; for CUDA there is an error class."""


class Forward(Protocol):
    """A function that runs a forward pass; by default `Replica.execute`, which documents its arguments."""

    def __call__(
        self,
        replica: Replica,
        pack: Pack,
        pixels: Mapping[Hashable, Tensor],
        cached_features: Mapping[Hashable, VisionFeatures],
        /,
        *,
        use_cache: bool,
    ) -> DeviceResult:
        """Run a forward pass on the replica.

        Args:
            replica: The model on its device.
            pack: What to run.
            pixels: By media key, the decoded media.
            cached_features: By media key, features from the cache.
            use_cache: Whether to use the replica's vision feature cache.

        Returns:
            Hidden states of each prompt's last token, in the order of the pack, and measurements.
        """
        ...


class BatchExecutor:
    """Runs batches on replicas, on the threads of their workers, and confines errors to the requests they concern.

    Args:
        budget: Token budget, which learns from successes and from lack of memory.
        use_cache: Whether to use the vision feature caches.
        forward: Runs a forward pass.
    """

    def __init__(self, budget: TokenBudget, *, use_cache: bool, forward: Forward = Replica.execute) -> None:
        self.budget = budget
        self.use_cache = use_cache
        self._forward = forward

    def run(self, batch: ScheduledBatch, replica: Replica, replica_number: int) -> list[BatchResult | BatchFailure]:
        """Run a batch. An error in one request does not fail the others.

        Args:
            batch: What to run. The media of its requests are decoded.
            replica: Where to run it. Call this method on the thread of its worker.
            replica_number: Its number in `QueuedRequest.features`.

        Returns:
            Results and failures that together contain each request of the batch once.

        Raises:
            Cancelled: Nobody needs the results any more.
        """
        pixels: dict[Hashable, Tensor] = {}
        features: dict[Hashable, VisionFeatures] = {}
        for queued in batch.requests:
            pixels |= {key: future.result() for key, future in queued.pixels.items()}
            if queued.features:
                features |= queued.features[replica_number]
        return self._run_forward(batch, replica, pixels, features, use_cache=self.use_cache)

    def _run_forward(
        self,
        batch: ScheduledBatch,
        replica: Replica,
        pixels: Mapping[Hashable, Tensor],
        cached_features: Mapping[Hashable, VisionFeatures],
        *,
        use_cache: bool,
    ) -> list[BatchResult | BatchFailure]:
        """Run a batch that has all its pixels.

        When memory runs out, first clear the vision feature cache and try again without it; if that does not help,
        shrink the budget and run the batch in halves, down to single requests. A batch that fails in another way is
        run in halves, too: it may contain requests of several callers, and only one may have caused the error.
        """
        try:
            device_result = self._forward(replica, batch.pack, pixels, cached_features, use_cache=use_cache)
        except Cancelled:
            raise
        except Exception as raised:
            error = without_traceback(raised)
        else:
            self.budget.record_success(batch.pack.num_tokens)
            return [BatchResult(batch, device_result)]
        # Outside of the except clause: it would keep the failed pass's activations in memory.
        if _is_out_of_memory(error):
            cache_was_used = use_cache and replica.vision_cache.size_bytes > 0
            replica.vision_cache.clear()
            if replica.device.type == "cuda":
                torch.cuda.empty_cache()
            if cache_was_used:
                return self._run_forward(batch, replica, pixels, cached_features, use_cache=False)
            if len(batch.requests) > 1:
                self.budget.shrink(batch.pack.num_tokens)
        if len(batch.requests) == 1:
            return [BatchFailure(batch.requests, error)]
        log.warning(
            "a batch of %d requests with %d tokens failed (%s); running it in halves",
            len(batch.requests),
            batch.pack.num_tokens,
            error,
        )
        middle = len(batch.requests) // 2
        outcomes: list[BatchResult | BatchFailure] = []
        for half in (batch.requests[:middle], batch.requests[middle:]):
            for smaller in form_batches(half, _UNLIMITED):
                outcomes += self._run_forward(smaller, replica, pixels, cached_features, use_cache=use_cache)
        return outcomes


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS
    )
