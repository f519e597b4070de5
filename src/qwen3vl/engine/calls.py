"""The state of a call of `Engine.run` or `Engine.arun`: its requests that are not done."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from qwen3vl.engine.fairness import FairShare
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.requests import Request
from qwen3vl.model import VisionFeatures
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.results import ItemOutput

CallEvent: TypeAlias = "Sequence[ItemOutput] | Exception"
"""What a caller is notified of: outputs (none if it may submit more requests), or the error that ends the call."""

_call_numbers = itertools.count()


def next_call_number() -> int:
    """Return the number of a new call of this process."""
    return next(_call_numbers)


@dataclass(slots=True, eq=False)
class Call:
    """A call that is running. What changes is guarded by the lock of the `RequestQueue`, except `cancelled`.

    Attributes:
        number: Number of the call, in the order in which calls began; see `next_call_number`.
        notify: Tells the caller of outputs. Called on any thread; must not block or raise.
        share: The call's share of the devices.
        epoch: `RequestQueue.epoch` when the call began.
        num_threads: Number of torch's threads that the caller's thread is set to.
        cancelled: Whether nobody needs its outputs any more. Devices then stop at their next layer.
        submitted: Requests that wait until they are prepared.
        undecoded: Prepared requests that wait until their media are decoded.
        ready: Requests that wait until they are run, sorted by index.
        num_preparing: Number of requests that are being prepared.
        num_decoding: Number of requests whose media are being decoded.
        num_prepared: Number of prepared requests that are not done.
        num_tokens: Tokens of its prepared requests that are not done.
        awaits_admission: Whether the call is in the queue for the admission of its next request.
        wants_requests: Whether the caller waits until it may submit further requests.
        source_ended: Whether the caller has submitted all its requests.
        last_prompt: The prompt that was prepared last.
    """

    number: int
    notify: Callable[[CallEvent], None]
    share: FairShare
    epoch: object
    num_threads: int = field(default_factory=torch.get_num_threads)
    cancelled: bool = False
    submitted: deque[Request] = field(default_factory=deque)
    undecoded: deque[QueuedRequest] = field(default_factory=deque)
    ready: list[QueuedRequest] = field(default_factory=list)
    num_preparing: int = 0
    num_decoding: int = 0
    num_prepared: int = 0
    num_tokens: int = 0
    awaits_admission: bool = False
    wants_requests: bool = False
    source_ended: bool = False
    last_prompt: EncodedPrompt | None = None


class Admission(NamedTuple):
    """A request that is to be prepared.

    Attributes:
        call: The call that it belongs to.
        request: The request.
        ask_for_more: Whether to ask the caller for further requests: it waited, and may submit them now.
        next_has_media: Whether the call's next request has media; None if there is no next request.
    """

    call: Call
    request: Request
    ask_for_more: bool
    next_has_media: bool | None


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A prepared request.

    Attributes:
        call: The call that it belongs to.
        prepared: The request and its prompt.
        num_tokens: Estimate of the tokens to compute: the prefix in common with the call's request before is not
            counted.
        window_tokens: Tokens of the windows that it occupies: `num_tokens`, but at most a full batch.
        decoding: Whether its media are being decoded, or were.
        pixels: By media key, futures of its decoded media. All of them have results when the request is ready.
        features: For each replica, by media key, features of its media that were in the cache.
        ready_at: Reading of `time.perf_counter` when it was ready to run, in seconds.
        retried: Whether media that failed to be decoded from another request's files were decoded from its own ones.
    """

    call: Call
    prepared: PreparedRequest
    num_tokens: int
    window_tokens: int
    decoding: bool = False
    pixels: dict[Hashable, Future[Tensor]] = field(default_factory=dict)
    features: list[dict[Hashable, VisionFeatures]] = field(default_factory=list)
    ready_at: float = 0.0
    retried: bool = False

    @property
    def index(self) -> int:
        """The item's index in the caller's input."""
        return self.prepared.request.index

    @property
    def has_media(self) -> bool:
        """Whether it has images or videos."""
        return bool(self.prepared.fitted.media)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of encoded media files that it has in memory."""
        return sum(media.buffered_bytes for media in self.prepared.fitted.media)
