"""Batches: requests that are packed together, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qwen3vl.engine.calls import QueuedRequest
from qwen3vl.engine.packing import Pack, pack_prompts
from qwen3vl.engine.replica import DeviceResult


@dataclass(frozen=True, slots=True, eq=False)
class ScheduledBatch:
    """A pack and its requests.

    Attributes:
        pack: The inputs of the forward pass.
        requests: The packed requests, in the order of `pack.prompt_indices`.
    """

    pack: Pack
    requests: list[QueuedRequest]


@dataclass(frozen=True, slots=True, eq=False)
class BatchResult:
    """Requests that were run in one forward pass.

    Attributes:
        batch: The requests and their pack.
        device_result: Hidden states in the order of the batch's requests, and measurements.
    """

    batch: ScheduledBatch
    device_result: DeviceResult

    @property
    def requests(self) -> list[QueuedRequest]:
        """The requests of the batch."""
        return self.batch.requests


@dataclass(frozen=True, slots=True, eq=False)
class BatchFailure:
    """Requests that failed together.

    Attributes:
        requests: The requests.
        error: Why they failed.
    """

    requests: list[QueuedRequest]
    error: Exception


def form_batches(requests: Sequence[QueuedRequest], max_tokens: int) -> Iterator[ScheduledBatch]:
    """Pack requests into batches.

    Args:
        requests: The requests.
        max_tokens: Maximum number of tokens of a batch. A single request that is longer gets a batch of its own.

    Yields:
        Batches that contain each request once.
    """
    for pack in pack_prompts([queued.prepared.fitted.prompt for queued in requests], max_tokens):
        yield ScheduledBatch(pack, [requests[index] for index in pack.prompt_indices])
