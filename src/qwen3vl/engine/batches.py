"""Batches: prepared requests that are packed together, pending, scheduled and done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwen3vl.engine.packing import Pack, pack_prompts
from qwen3vl.engine.prefix_tree import common_prefix_length
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.replica import DeviceResult

MAX_PENDING_REQUESTS = 256
"""Prepared requests at which they are packed in any case."""
MAX_BUFFERED_BYTES = 256 * 2**20
"""Bytes of encoded media files in memory at which pending requests are packed in any case."""


class PendingBatch:
    """Prepared requests that wait to be packed together.

    Attributes:
        requests: The requests, in the order in which they came.
        num_tokens: Estimate of the number of tokens to compute: prefixes in common with the preceding request count
            once, and all vision tokens count as equal.
        buffered_bytes: Bytes of encoded media files that the requests have in memory.
    """

    def __init__(self) -> None:
        self.requests: list[PreparedRequest] = []
        self.num_tokens = 0
        self.buffered_bytes = 0
        self._created_at = 0.0

    @property
    def age_s(self) -> float:
        """Seconds since the first request was added."""
        return time.perf_counter() - self._created_at if self.requests else 0.0

    @property
    def full(self) -> bool:
        """Whether the requests should be packed however busy the devices are."""
        return len(self.requests) >= MAX_PENDING_REQUESTS or self.buffered_bytes >= MAX_BUFFERED_BYTES

    def add(self, request: PreparedRequest) -> None:
        """Add a request.

        Args:
            request: The prepared request.
        """
        ids = request.fitted.prompt.ids
        if self.requests:
            self.num_tokens -= common_prefix_length(ids, self.requests[-1].fitted.prompt.ids)
        else:
            self._created_at = time.perf_counter()
        self.num_tokens += len(ids)
        self.buffered_bytes += sum(media.buffered_bytes for media in request.fitted.media)
        self.requests.append(request)


@dataclass(frozen=True, slots=True, eq=False)
class ScheduledBatch:
    """A pack and its requests.

    Attributes:
        pack: The inputs of the forward pass.
        requests: The packed requests, in the order of `pack.prompt_indices`.
    """

    pack: Pack
    requests: list[PreparedRequest]


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """Requests that were run in one forward pass.

    Attributes:
        batch: The requests and their pack.
        device_result: Hidden states in the order of the batch's requests, and measurements.
    """

    batch: ScheduledBatch
    device_result: DeviceResult


@dataclass(frozen=True, slots=True, eq=False)
class BatchFailure:
    """Requests that failed together.

    Attributes:
        requests: The requests.
        error: Why they failed.
        source: The image or video that caused the error; None if it is not about one.
    """

    requests: list[PreparedRequest]
    error: Exception
    source: str | None = None


def form_batches(requests: Sequence[PreparedRequest], max_tokens: int) -> Iterator[ScheduledBatch]:
    """Pack prepared requests into batches.

    Args:
        requests: The requests.
        max_tokens: Maximum number of tokens of a batch. A single request that is longer gets a batch of its own.

    Yields:
        Batches that contain each request once.
    """
    for pack in pack_prompts([request.fitted.prompt for request in requests], max_tokens):
        yield ScheduledBatch(pack, [requests[index] for index in pack.prompt_indices])
