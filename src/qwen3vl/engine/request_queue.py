"""The queue of a model: requests of all calls, from their submission until a device has run them."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qwen3vl.concurrency.fork_safety import register_thread_owner
from qwen3vl.engine.calls import AdmittedRequest, Call, QueuedRequest
from qwen3vl.engine.fairness import Turn
from qwen3vl.engine.memory import TokenBudget
from qwen3vl.engine.prefix_tree import common_prefix_length
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.requests import Request

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
MAX_UNKNOWN = 8
"""Maximum number of a call's requests that are prepared at once while the size of none is known."""
MAX_SKIPPED = 32
"""Requests too large for the rest of a batch that are passed over in the search for smaller ones."""
MIN_SPLIT_TOKENS = 1024
"""Tokens up to which waiting requests are not divided among several devices."""


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What has to be done next for the requests of a queue.

    Attributes:
        prepare: Requests to prepare.
        decode: Requests whose media are to be decoded.
        ask: Calls that may submit further requests and wait for that.
    """

    prepare: Sequence[AdmittedRequest]
    decode: Sequence[QueuedRequest]
    ask: Sequence[Call]

    def __bool__(self) -> bool:
        return bool(self.prepare or self.decode or self.ask)


class RequestQueue:
    """Decides which requests are prepared, decoded and run next, within windows that bound the memory.

    A request passes four states: submitted, preparing, decoding (if it has media) and ready. Calls take turns with
    their submitted requests; whose media are decoded and whose requests are run next is decided by the calls' shares of
    the device. Thread-safe.

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
        self._prepared: set[Call] = set()  # calls with requests whose media wait to be decoded, or that are ready
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

    def preparation_failed(self, admitted: AdmittedRequest) -> None:
        """Note that a request could not be prepared, or is not needed any more."""
        with self._lock:
            self._leave_preparation(admitted)

    def prepared(self, admitted: AdmittedRequest, prepared: PreparedRequest) -> None:
        """Note that a request was prepared. It is ready if it has no media; else these are decoded first."""
        call = admitted.call
        ids = prepared.fitted.prompt.ids
        num_tokens = len(ids)
        if call.previous_ids is not None:
            num_tokens -= common_prefix_length(ids, call.previous_ids)
        with self._lock:
            call.expected_tokens = min(len(ids), self._budget.tokens)
            self._leave_preparation(admitted)
            if call.cancelled:
                return
            call.previous_ids = ids
            queued = QueuedRequest(call, prepared, num_tokens, call.expected_tokens)
            call.num_tokens += queued.window_tokens
            self._num_tokens += queued.window_tokens
            if prepared.fitted.media:
                call.num_decoding += 1
                self._buffered_bytes += queued.buffered_bytes
                self._begin_share(call)
                call.undecoded.append(queued)
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

    def next_turn(self) -> tuple[Turn, float] | None:
        """Return the turn of the next call with a request that is ready, and how many seconds to wait before it is run.

        Returns:
            The turn and the seconds, usually 0; None if no request is ready.
        """
        with self._lock:
            self._drop_cancelled()
            calls = [call for call in self._prepared if call.ready]
            if not calls:
                return None
            return min(call.share.turn for call in calls), self._gathering_s(calls)

    def take(self) -> list[QueuedRequest]:
        """Take the requests whose turn it is, as many as fill a batch.

        Returns:
            The requests; none if none is ready.
        """
        with self._lock:
            self._drop_cancelled()
            calls = sorted((call for call in self._prepared if call.ready), key=_turn)
            if not calls:
                return []
            calls[0].share.lead()
            max_tokens = self._budget.tokens
            if self._num_devices > 1:  # the other devices may be idle, too
                waiting = sum(queued.num_tokens for call in calls for queued in call.ready)
                max_tokens = min(max_tokens, max(MIN_SPLIT_TOKENS, -(-waiting // self._num_devices)))
            return self._fill_batch(calls, max_tokens)

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
        max_preparing = MAX_UNKNOWN if call.expected_tokens is None else MAX_PREPARING
        if call.submitted and not call.in_entrance and call.num_preparing < max_preparing and call.num_tokens < window:
            call.in_entrance = True
            self._entrance.append(call)

    def _admit(self) -> tuple[list[AdmittedRequest], list[Call]]:
        """Choose the requests to prepare, one of each call in turn, and the calls that may submit further ones."""
        window = 2 * WINDOW_BATCHES * self._budget.tokens * self._num_devices
        admitted: list[AdmittedRequest] = []
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
            admitted.append(AdmittedRequest(call, call.submitted.popleft(), call.expected_tokens or 0))
            call.num_preparing += 1
            self._num_preparing += 1
            call.num_tokens += admitted[-1].expected_tokens
            self._num_tokens += admitted[-1].expected_tokens
            self._enter(call)
            if call.wants_requests and len(call.submitted) <= MAX_SUBMITTED // 2:
                call.wants_requests = False
                ask.append(call)
        return admitted, ask

    def _next_to_decode(self) -> list[QueuedRequest]:
        """Choose the requests whose media are decoded next: those of the call whose turn it is."""
        window = PREFETCH_BATCHES * self._budget.tokens * self._num_devices
        chosen: list[QueuedRequest] = []
        calls = sorted((call for call in self._prepared if call.undecoded), key=_turn, reverse=True)
        while calls and self._num_decoding < self._max_decoding and self._decoded_tokens < window:
            queued = calls[-1].undecoded.popleft()
            if not calls[-1].undecoded:
                calls.pop()
            self._num_decoding += 1
            self._decoded_tokens += queued.window_tokens
            chosen.append(queued)
        return chosen

    def _leave_preparation(self, admitted: AdmittedRequest) -> None:
        admitted.call.num_preparing -= 1
        self._num_preparing -= 1
        admitted.call.num_tokens -= admitted.expected_tokens
        self._num_tokens -= admitted.expected_tokens
        self._enter(admitted.call)

    def _add_ready(self, queued: QueuedRequest) -> None:
        queued.ready_at = time.perf_counter()
        self._begin_share(queued.call)
        insort(queued.call.ready, queued, key=_index)

    def _begin_share(self, call: Call) -> None:
        if call not in self._prepared:
            self._prepared.add(call)
            call.share.begin()

    def _gathering_s(self, calls: Sequence[Call]) -> float:
        """Return for how many seconds the requests that are ready should wait for others of their own calls."""
        if not all(call.gathering for call in calls):
            return 0.0
        ready = [queued for call in calls for queued in call.ready]
        if sum(queued.num_tokens for queued in ready) >= self._budget.tokens:
            return 0.0
        oldest = min(queued.ready_at for queued in ready)
        return max(0.0, oldest + GATHERING_S - time.perf_counter())

    def _fill_batch(self, calls: Sequence[Call], max_tokens: int) -> list[QueuedRequest]:
        """Take ready requests of calls, in this order, that fill a batch. The first one is taken in any case."""
        batch: list[QueuedRequest] = []
        num_tokens = num_skipped = 0
        for call in calls:
            taken: list[QueuedRequest] = []
            num_taken_tokens = 0
            for queued in call.ready:
                # The first request of a call in a batch shares no prefix with one before.
                count = queued.num_tokens if taken else len(queued.prepared.fitted.prompt)
                if (not batch and not taken) or num_tokens + count <= max_tokens:
                    taken.append(queued)
                    num_tokens += count
                    num_taken_tokens += count
                else:
                    num_skipped += 1
                    if num_skipped > MAX_SKIPPED:
                        break
            if taken:
                chosen = set(taken)
                call.ready = [queued for queued in call.ready if queued not in chosen]
                call.share.charge(num_taken_tokens, self._budget.tokens)
                self._forget_if_empty(call)
                batch += taken
            if num_skipped > MAX_SKIPPED or num_tokens >= max_tokens:
                break
        return batch

    def _forget_if_empty(self, call: Call) -> None:
        if not call.ready and not call.undecoded:
            self._prepared.discard(call)

    def _release(self, queued: QueuedRequest) -> None:
        """Take a prepared request out of the windows."""
        queued.call.num_tokens -= queued.window_tokens
        self._num_tokens -= queued.window_tokens
        if queued.prepared.fitted.media:
            self._decoded_tokens -= queued.window_tokens
            self._buffered_bytes -= queued.buffered_bytes
        self._enter(queued.call)

    def _drop_cancelled(self) -> None:
        """Remove the requests of cancelled calls, except those that are being prepared, decoded or run."""
        while self._cancelled:
            call = self._cancelled.popleft()
            call.submitted.clear()
            for queued in call.undecoded:
                call.num_decoding -= 1
                self._decoded_tokens += queued.window_tokens  # `_release` takes it off
            dropped = [*call.undecoded, *call.ready]
            call.undecoded.clear()
            call.ready.clear()
            self._prepared.discard(call)
            for queued in dropped:
                self._release(queued)


def _turn(call: Call) -> Turn:
    return call.share.turn


def _index(queued: QueuedRequest) -> int:
    return queued.index
