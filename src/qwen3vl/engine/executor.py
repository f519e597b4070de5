"""Execution of a batch on a replica, with recovery from broken media and from lack of memory."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from concurrent.futures import Future
from typing import Protocol

import torch
from torch import Tensor

from qwen3vl.engine.batches import BatchFailure, BatchResult, ScheduledBatch, form_batches
from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.memory import TokenBudget
from qwen3vl.engine.packing import Pack
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.replica import DeviceResult, Replica
from qwen3vl.engine.requests import without_traceback
from qwen3vl.model import VisionFeatures

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
            Hidden states of each prompt's last token, in the order of the pack.
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

    def run(
        self,
        batch: ScheduledBatch,
        replica: Replica,
        decoding: Mapping[Hashable, Future[Tensor]],
        cached_features: Mapping[Hashable, VisionFeatures],
    ) -> list[BatchResult | BatchFailure]:
        """Run a batch. Requests with broken media fail; the others are packed anew and run.

        Args:
            batch: What to run.
            replica: Where to run it. Call this method on the thread of its worker.
            decoding: By media key, futures of the decoded media; all are done.
            cached_features: By media key, features that need no decoding.

        Returns:
            Results and failures that together contain each request of the batch once.

        Raises:
            Cancelled: Nobody needs the results any more.
        """
        errors = {key: error for key, future in decoding.items() if (error := future.exception()) is not None}
        pixels = {key: future.result() for key, future in decoding.items() if key not in errors}
        if not errors:
            return self._run_forward(batch, replica, pixels, cached_features, use_cache=self.use_cache)
        outcomes: list[BatchResult | BatchFailure] = []
        intact: list[PreparedRequest] = []
        for request in batch.requests:
            broken = next((media for media in request.fitted.media if media.vision.key in errors), None)
            if broken is None:
                intact.append(request)
            else:
                error = _as_exception(errors[broken.vision.key])
                outcomes.append(BatchFailure([request], error, broken.name))
        for smaller in form_batches(intact, self.budget.tokens):
            outcomes += self._run_forward(smaller, replica, pixels, cached_features, use_cache=self.use_cache)
        return outcomes

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
        shrink the budget and run the batch in halves, down to single requests. Other errors fail the requests of this
        batch only.
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
        if not _is_out_of_memory(error):
            return [BatchFailure(batch.requests, error)]
        cache_was_used = use_cache and replica.vision_cache.size_bytes > 0
        replica.vision_cache.clear()
        if replica.device.type == "cuda":
            torch.cuda.empty_cache()
        if cache_was_used:
            return self._run_forward(batch, replica, pixels, cached_features, use_cache=False)
        if len(batch.requests) == 1:
            return [BatchFailure(batch.requests, error)]
        log.warning("out of memory at %d tokens in one batch; running it in halves", batch.pack.num_tokens)
        self.budget.shrink(batch.pack.num_tokens)
        middle = len(batch.requests) // 2
        outcomes: list[BatchResult | BatchFailure] = []
        for half in (batch.requests[:middle], batch.requests[middle:]):
            for smaller in form_batches(half, _UNLIMITED):
                outcomes += self._run_forward(smaller, replica, pixels, cached_features, use_cache=use_cache)
        return outcomes


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(f"decoding ended with {type(error).__name__}")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS
    )
