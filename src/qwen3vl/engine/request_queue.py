"""The queue of a model: requests of all calls, from their submission until a device has run them."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from qwen3vl.concurrency.fork_safety import register_thread_owner
from qwen3vl.engine.calls import Call
from qwen3vl.engine.memory import TokenBudget
from qwen3vl.engine.prefix_tree import common_prefix_length
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.requests import Request
from qwen3vl.model import VisionFeatures

MAX_SUBMITTED = 16
"""Maximum number of a call's requests that wait until they may be prepared. Its inputs are taken so far ahead."""
MAX_PREPARING = 32
"""Maximum number of a call's requests that are prepared at once; those of all calls are at most twice as many."""
WINDOW_BATCHES = 4
"""Full batches for each device that a call's prepared requests may fill, those that run included; twice for all."""
PREFETCH_BATCHES = 3
"""Full batches for each device whose media are being decoded or in memory, those that run included."""
MAX_BUFFERED_BYTES = 256 * 2**20
"""Bytes of encoded media files that prepared requests may have in memory before further ones are prepared."""
GATHERING_S = 0.1
"""Seconds that a request waits at most for others of its own call that are still being prepared or decoded, if a device
is idle. A request without such siblings never waits."""
MAX_SKIPPED = 32
"""Requests too large for the rest of a batch that are passed over in the search for smaller ones."""
MIN_SPLIT_TOKENS = 1024
"""Tokens up to which waiting requests are not divided among several devices."""


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A prepared request.

    Attributes:
        call: The call that it belongs to.
        prepared: The request and its prompt.
        num_tokens: Estimate of the tokens to compute: the prefix in common with the call's request before is not
            counted.
        window_tokens: What it counts in the windows; at most a full batch.
        tag: When it is its turn; see `fairness`.
        pixels: By media key, futures of its decoded media. All of them have results when the request is ready.
        features: By number of the replica and media key, features of its media that were in the cache.
        ready_at: Reading of `time.perf_counter` when it was ready to run, in seconds.
    """

    call: Call
    prepared: PreparedRequest
    num_tokens: int
    window_tokens: int
    tag: float
    pixels: dict[Hashable, Future[Tensor]] = field(default_factory=dict)
    features: list[dict[Hashable, VisionFeatures]] = field(default_factory=list)
    ready_at: float = 0.0

    @property
    def order(self) -> tuple[float, int, int]:
        """Key by which requests are sorted: tag, then call, then index."""
        return self.tag, self.call.number, self.prepared.request.index


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What has to be done next for the requests of a queue.

    Attributes:
        prepare: Requests to prepare, with their calls.
        decode: Requests whose media are to be decoded.
        ask: Calls that may submit further requests and wait for that.
    """

    prepare: Sequence[tuple[Call, Request]]
    decode: Sequence[QueuedRequest]
    ask: Sequence[Call]

    def __bool__(self) -> bool:
        return bool(self.prepare or self.decode or self.ask)


class RequestQueue:
    """Decides which requests are prepared, decoded and run next, within windows that bound the memory.

    A request passes four states: submitted, preparing, decoding (if it has media) and ready. Calls take turns with
    their submitted requests; prepared ones are ordered by their share of the device. Thread-safe.

    Args:
        budget: Tokens of a full batch.
        num_devices: Number of devices that take requests.
        num_threads: Number of threads that decode media.
    """

    def __init__(self, budget: TokenBudget, num_devices: int, num_threads: int) -> None:
        self._budget = budget
        self._num_devices = num_devices
        self._max_decoding = 2 * num_threads
        register_thread_owner(self)

    def start_threads(self) -> None:
        """Begin without requests; called again in each forked process, which has no part in its parent's calls."""
        # Reentrant: the garbage collector may close an abandoned stream on any thread and at any time, also while that
        # thread has the lock. Therefore `cancel` only takes a note.
        self._lock = threading.RLock()
        self._cancelled: deque[Call] = deque()
        self._entrance: deque[Call] = deque()
        self._undecoded: list[QueuedRequest] = []
        self._ready: list[QueuedRequest] = []
        self._num_preparing = 0
        self._num_decoding = 0
        self._num_tokens = 0
        self._decoded_tokens = 0
        self._buffered_bytes = 0

    def accepts(self, call: Call) -> bool:
        """Return whether a call may submit a request now. If not, it is asked for more later; see `NextSteps.ask`."""
        with self._lock:
            call.wants_requests = len(call.submitted) >= MAX_SUBMITTED
            return not call.wants_requests

    def submit(self, call: Call, request: Request) -> None:
        """Add a request of a call."""
        with self._lock:
            call.submitted.append(request)
            self._enter(call)

    def next_steps(self) -> NextSteps:
        """Return the requests to prepare and to decode now. They count as being prepared and decoded from here on."""
        with self._lock:
            self._drop_cancelled()
            prepare, ask = self._admit()
            return NextSteps(prepare, self._next_to_decode(), ask)

    def preparation_failed(self, call: Call) -> None:
        """Note that a request of a call could not be prepared, or is not needed any more."""
        with self._lock:
            self._leave_preparation(call)

    def prepared(self, call: Call, prepared: PreparedRequest) -> None:
        """Note that a request of a call was prepared. It is ready if it has no media; else these are decoded first."""
        ids = prepared.fitted.prompt.ids
        num_tokens = len(ids)
        if call.previous_ids is not None:
            num_tokens -= common_prefix_length(ids, call.previous_ids)
        with self._lock:
            self._leave_preparation(call)
            if call.cancelled:
                return
            call.previous_ids = ids
            tag = call.share.next_tag(num_tokens, self._budget.tokens)
            queued = QueuedRequest(call, prepared, num_tokens, min(len(ids), self._budget.tokens), tag)
            call.num_tokens += queued.window_tokens
            self._num_tokens += queued.window_tokens
            if prepared.fitted.media:
                call.num_decoding += 1
                self._buffered_bytes += _buffered_bytes(queued)
                insort(self._undecoded, queued, key=_order)
            else:
                self._add_ready(queued)

    def decoded(self, queued: QueuedRequest) -> None:
        """Note that the media of a request are decoded: it is ready."""
        with self._lock:
            self._num_decoding -= 1
            queued.call.num_decoding -= 1
            if queued.call.cancelled:
                self._release(queued)
            else:
                self._add_ready(queued)

    def decoding_failed(self, queued: QueuedRequest) -> None:
        """Note that the media of a request cannot be decoded: it is done."""
        with self._lock:
            self._num_decoding -= 1
            queued.call.num_decoding -= 1
            self._release(queued)

    def first_tag(self) -> tuple[float, float] | None:
        """Return the tag of the request whose turn it is, and how many seconds to wait before it is run.

        Returns:
            The tag and the seconds, usually 0; None if no request is ready.
        """
        with self._lock:
            self._drop_cancelled()
            if not self._ready:
                return None
            return self._ready[0].tag, self._gathering_s()

    def take(self) -> list[QueuedRequest]:
        """Take the requests whose turn it is, as many as fill a batch.

        Returns:
            The requests; none if none is ready.
        """
        with self._lock:
            self._drop_cancelled()
            max_tokens = self._budget.tokens
            if self._num_devices > 1:  # the other devices may be idle, too
                waiting = sum(queued.num_tokens for queued in self._ready)
                max_tokens = min(max_tokens, max(MIN_SPLIT_TOKENS, -(-waiting // self._num_devices)))
            taken, rest = _fill_batch(self._ready, max_tokens)
            self._ready = rest
            return taken

    def done(self, requests: Iterable[QueuedRequest]) -> None:
        """Note that requests that were taken are done."""
        with self._lock:
            for queued in requests:
                self._release(queued)

    def cancel(self, call: Call) -> None:
        """Drop the requests of a call that nobody needs any more. They are removed by the next call of a method."""
        call.cancelled = True
        self._cancelled.append(call)

    def _enter(self, call: Call) -> None:
        """Put a call in the queue of those whose requests may be prepared, if it is within its limits."""
        window = WINDOW_BATCHES * self._budget.tokens * self._num_devices
        if call.submitted and not call.in_entrance and call.num_preparing < MAX_PREPARING and call.num_tokens < window:
            call.in_entrance = True
            self._entrance.append(call)

    def _admit(self) -> tuple[list[tuple[Call, Request]], list[Call]]:
        """Choose the requests to prepare, one of each call in turn, and the calls that may submit further ones."""
        window = 2 * WINDOW_BATCHES * self._budget.tokens * self._num_devices
        admitted: list[tuple[Call, Request]] = []
        ask: list[Call] = []
        while (
            self._entrance
            and self._num_preparing < 2 * MAX_PREPARING
            and self._num_tokens < window
            and self._buffered_bytes < MAX_BUFFERED_BYTES
        ):
            call = self._entrance.popleft()
            call.in_entrance = False
            if not call.submitted:  # it was cancelled
                continue
            admitted.append((call, call.submitted.popleft()))
            call.num_preparing += 1
            self._num_preparing += 1
            self._enter(call)
            if call.wants_requests and len(call.submitted) <= MAX_SUBMITTED // 2:
                call.wants_requests = False
                ask.append(call)
        return admitted, ask

    def _next_to_decode(self) -> list[QueuedRequest]:
        """Choose the requests whose media are decoded next."""
        window = PREFETCH_BATCHES * self._budget.tokens * self._num_devices
        number = 0
        while (
            number < len(self._undecoded) and self._num_decoding < self._max_decoding and self._decoded_tokens < window
        ):
            self._num_decoding += 1
            self._decoded_tokens += self._undecoded[number].window_tokens
            number += 1
        chosen, self._undecoded = self._undecoded[:number], self._undecoded[number:]
        return chosen

    def _leave_preparation(self, call: Call) -> None:
        call.num_preparing -= 1
        self._num_preparing -= 1
        self._enter(call)

    def _add_ready(self, queued: QueuedRequest) -> None:
        queued.ready_at = time.perf_counter()
        insort(self._ready, queued, key=_order)

    def _gathering_s(self) -> float:
        """Return for how many seconds the requests that are ready should wait for others of their own calls."""
        total = 0
        oldest = self._ready[0].ready_at
        for queued in self._ready:
            total += queued.num_tokens
            if not queued.call.gathering or total >= self._budget.tokens:
                return 0.0
            oldest = min(oldest, queued.ready_at)
        return max(0.0, oldest + GATHERING_S - time.perf_counter())

    def _release(self, queued: QueuedRequest) -> None:
        """Take a prepared request out of the windows."""
        queued.call.num_tokens -= queued.window_tokens
        self._num_tokens -= queued.window_tokens
        if queued.prepared.fitted.media:
            self._decoded_tokens -= queued.window_tokens
            self._buffered_bytes -= _buffered_bytes(queued)
        self._enter(queued.call)

    def _drop_cancelled(self) -> None:
        """Remove the requests of cancelled calls, except those that are being prepared, decoded or run."""
        if not self._cancelled:
            return
        while self._cancelled:
            self._cancelled.popleft().submitted.clear()
        for queued in self._undecoded:
            if queued.call.cancelled:
                queued.call.num_decoding -= 1
                self._decoded_tokens += queued.window_tokens  # `_release` takes it off
        dropped = [queued for queued in (*self._undecoded, *self._ready) if queued.call.cancelled]
        self._undecoded = [queued for queued in self._undecoded if not queued.call.cancelled]
        self._ready = [queued for queued in self._ready if not queued.call.cancelled]
        for queued in dropped:
            self._release(queued)


def _order(queued: QueuedRequest) -> tuple[float, int, int]:
    return queued.order


def _buffered_bytes(queued: QueuedRequest) -> int:
    return sum(media.buffered_bytes for media in queued.prepared.fitted.media)


def _fill_batch(ready: list[QueuedRequest], max_tokens: int) -> tuple[list[QueuedRequest], list[QueuedRequest]]:
    """Divide requests into those that fill a batch, in order, and the rest. The first one is taken in any case."""
    taken: list[QueuedRequest] = []
    rest: list[QueuedRequest] = []
    calls: set[Call] = set()
    total = 0
    for position, queued in enumerate(ready):
        # The first request of a call in a batch shares no prefix with one before.
        num_tokens = queued.num_tokens if queued.call in calls else len(queued.prepared.fitted.prompt)
        if taken and total + num_tokens > max_tokens:
            rest.append(queued)
            if len(rest) > MAX_SKIPPED or total >= max_tokens:
                rest += ready[position + 1 :]
                break
            continue
        taken.append(queued)
        calls.add(queued.call)
        total += num_tokens
    return taken, rest
