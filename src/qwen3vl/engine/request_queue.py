"""The queue of a model: requests of all calls, from their submission until a device has run them."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from qwen3vl.concurrency.fork_safety import register_thread_owner
from qwen3vl.engine.calls import Call, QueuedRequest
from qwen3vl.engine.fairness import Turn
from qwen3vl.engine.memory import TokenBudget
from qwen3vl.engine.prefix_tree import shared_prefix_length
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.requests import Request

MAX_SUBMITTED = 16
"""Maximum number of a call's requests that wait until they are prepared. Its inputs are taken so far ahead."""
WINDOW_BATCHES = 4
"""Full batches for each device that a call's prepared requests may fill, those that run included. All calls together
may fill twice as many, or four times as many if those of the call that comes next are none."""
PREFETCH_BATCHES = 3
"""Full batches for each device whose media are being decoded or in memory, those that run included."""
MAX_BUFFERED_BYTES = 256 * 2**20
"""Bytes of encoded media files that prepared requests have in memory when no further ones are prepared."""
GATHERING_S = 0.1
"""Seconds that a request waits at most for others of its own call that are being prepared or decoded, if a device is
idle. A request without such siblings waits for no others, except as follows."""
SUBMITTING_S = 0.02
"""Seconds that a request waits at most, if a device is idle, for its caller to submit the next one."""
MAX_SKIPPED = 32
"""Requests too large for the rest of a batch that are passed over in the search for smaller ones."""
MIN_SPLIT_TOKENS = 1024
"""Tokens up to which waiting requests are not divided among several devices."""

_turn = attrgetter("share.turn")
_index = attrgetter("index")


@dataclass(slots=True)
class _Lane:
    """Requests without media, or those with media. Neither waits for the other.

    Attributes:
        entrance: Calls whose next request is of this kind. They take turns.
        num_tokens: Tokens of prepared requests that are not done.
    """

    entrance: deque[Call] = field(default_factory=deque)
    num_tokens: int = 0


class RequestQueue:
    """Decides which requests are prepared, decoded and run next, within windows that bound the memory.

    A request is submitted, prepared, decoded (if it has media), ready, taken and done. Calls take turns with their
    submitted requests; whose media are decoded and whose requests are run next is decided by the calls' shares of the
    devices. Thread-safe.

    Args:
        budget: Tokens of a full batch.
        num_devices: Number of devices that take requests.

    Attributes:
        epoch: Another object in each forked process, which has no part in its parent's calls.
    """

    def __init__(self, budget: TokenBudget, num_devices: int) -> None:
        self._budget = budget
        self._num_devices = num_devices
        register_thread_owner(self)

    def start_threads(self) -> None:
        """Begin without requests; called again in each forked process."""
        # Reentrant: the garbage collector may close an abandoned stream on any thread and at any time, also while that
        # thread has the lock. Therefore `cancel` only takes a note.
        self._lock = threading.RLock()
        self.epoch = object()
        self._cancelled: deque[Call] = deque()
        self._text_lane, self._media_lane = _Lane(), _Lane()
        self._undecoded_calls: set[Call] = set()
        self._ready_calls: set[Call] = set()
        self._ready_tokens = 0
        self._decoded_tokens = 0
        self._buffered_bytes = 0

    def submit(self, call: Call, request: Request) -> None:
        """Add a request of a call."""
        with self._lock:
            call.submitted.append(request)
            self._enter(call)

    def end_source(self, call: Call) -> None:
        """Note that a call has submitted all its requests."""
        call.source_ended = True

    def accept_or_ask_later(self, call: Call) -> bool:
        """Return whether a call may submit a request now. If not, it is asked for more as soon as it may."""
        with self._lock:
            call.wants_requests = len(call.submitted) >= MAX_SUBMITTED
            return not call.wants_requests

    def admit(self, *, has_media: bool) -> tuple[Call, Request, bool, bool | None] | None:
        """Take a request that is to be prepared, of the call whose turn it is.

        Args:
            has_media: Whether to take a request with media, or one without.

        Returns:
            The call, the request, whether the call is to be asked for further requests, and whether its next request
            has media (None if it has none); None if there is no request, or no room for it.
        """
        with self._lock:
            lane = self._media_lane if has_media else self._text_lane
            if not self._is_open(lane, 4):
                return None
            for _ in range(len(lane.entrance)):
                call = lane.entrance.popleft()
                if not call.submitted:  # it was cancelled
                    call.in_entrance = False
                elif self._has_room(call, lane):
                    call.in_entrance = False
                    request = call.submitted.popleft()
                    call.num_preparing += 1
                    self._enter(call)
                    ask = call.wants_requests and len(call.submitted) <= MAX_SUBMITTED // 2
                    call.wants_requests &= not ask
                    return call, request, ask, call.submitted[0].has_media if call.submitted else None
                else:
                    lane.entrance.append(call)
            return None

    def preparation_failed(self, call: Call) -> None:
        """Note that a request could not be prepared, or is not needed any more."""
        with self._lock:
            call.num_preparing -= 1

    def prepared(self, call: Call, prepared: PreparedRequest) -> None:
        """Note that a request was prepared. It is ready if it has no media; else these are decoded first."""
        prompt = prepared.fitted.prompt
        with self._lock:
            call.num_preparing -= 1
            if call.cancelled:
                return
            num_tokens = len(prompt)
            if call.previous is not None:
                num_tokens = max(1, num_tokens - shared_prefix_length(prompt, call.previous))
            call.previous = prompt
            queued = QueuedRequest(call, prepared, num_tokens, min(num_tokens, self._budget.tokens))
            call.num_tokens += queued.window_tokens
            self._lane(queued).num_tokens += queued.window_tokens
            self._buffered_bytes += queued.buffered_bytes
            if not call.num_prepared:
                call.share.begin()
            call.num_prepared += 1
            if queued.has_media:
                call.undecoded.append(queued)
                self._undecoded_calls.add(call)
            else:
                self._add_ready(queued)

    def next_to_decode(self) -> QueuedRequest | None:
        """Take a request whose media are to be decoded, of the call whose turn it is; None if there is no room."""
        with self._lock:
            if self._decoded_tokens >= PREFETCH_BATCHES * self._budget.tokens * self._num_devices:
                return None
            call = min(self._undecoded_calls, key=_turn, default=None)
            if call is None:
                return None
            queued = call.undecoded.popleft()
            if not call.undecoded:
                self._undecoded_calls.discard(call)
            queued.decoding = True
            call.num_decoding += 1
            self._decoded_tokens += queued.window_tokens
            return queued

    def decoded(self, queued: QueuedRequest) -> None:
        """Note that the media of a request are decoded: it is ready."""
        with self._lock:
            queued.call.num_decoding -= 1
            if queued.call.cancelled:
                self._release(queued)
            else:
                self._add_ready(queued)

    def decoding_failed(self, queued: QueuedRequest) -> None:
        """Note that the media of a request cannot be decoded: it is done."""
        with self._lock:
            queued.call.num_decoding -= 1
            self._release(queued)

    def next_turn(self) -> tuple[Turn, float] | None:
        """Return the turn of the next call with a request that is ready, and how many seconds to wait before it is run.

        Returns:
            The turn and the seconds, usually 0; None if no request is ready.
        """
        with self._lock:
            if not self._ready_calls:
                return None
            return min(map(_turn, self._ready_calls)), self._gathering_s()

    def take(self) -> list[QueuedRequest]:
        """Take the requests whose turn it is, as many as fill a batch.

        Returns:
            The requests; none if none is ready.
        """
        with self._lock:
            calls = sorted(self._ready_calls, key=_turn)
            if not calls:
                return []
            calls[0].share.lead()
            max_tokens = self._budget.tokens
            if self._num_devices > 1:  # the other devices may be idle, too
                share = -(-self._ready_tokens // self._num_devices)
                max_tokens = min(max_tokens, max(MIN_SPLIT_TOKENS, share))
            return self._fill_batch(calls, max_tokens)

    def done(self, requests: Iterable[QueuedRequest]) -> None:
        """Note that requests that were taken are done."""
        with self._lock:
            for queued in requests:
                self._release(queued)

    def cancel(self, call: Call) -> None:
        """Note that nobody needs the outputs of a call any more; see `drop_cancelled`. Takes no lock."""
        call.cancelled = True
        if call.epoch is self.epoch:
            self._cancelled.append(call)

    def _enter(self, call: Call) -> None:
        """Put a call in the entrance for its next request, if it has one."""
        if call.submitted and not call.in_entrance:
            call.in_entrance = True
            lane = self._media_lane if call.submitted[0].has_media else self._text_lane
            lane.entrance.append(call)

    def _has_room(self, call: Call, lane: _Lane) -> bool:
        """Return whether a request of a call may be prepared now."""
        if not (call.num_preparing or call.num_prepared):
            return self._is_open(lane, 4)
        window = WINDOW_BATCHES * self._budget.tokens * self._num_devices
        return call.num_tokens < window and self._is_open(lane, 2)

    def _is_open(self, lane: _Lane, num_windows: int) -> bool:
        if lane is self._media_lane and self._buffered_bytes >= MAX_BUFFERED_BYTES:
            return False
        return lane.num_tokens < num_windows * WINDOW_BATCHES * self._budget.tokens * self._num_devices

    def _lane(self, queued: QueuedRequest) -> _Lane:
        return self._media_lane if queued.has_media else self._text_lane

    def _add_ready(self, queued: QueuedRequest) -> None:
        queued.ready_at = time.perf_counter()
        insort(queued.call.ready, queued, key=_index)
        self._ready_calls.add(queued.call)
        self._ready_tokens += queued.num_tokens

    def _gathering_s(self) -> float:
        """Return for how many seconds the requests that are ready should wait for others of their own calls."""
        if self._ready_tokens >= self._budget.tokens:
            return 0.0
        limits_s = [self._gathering_limit_s(call) for call in self._ready_calls]
        if not all(limits_s):
            return 0.0
        times = [queued.ready_at for call in self._ready_calls for queued in call.ready]
        return max(0.0, min(min(times) + GATHERING_S, max(times) + min(limits_s)) - time.perf_counter())

    def _gathering_limit_s(self, call: Call) -> float:
        """Return for how many seconds at most to wait for further requests of a call; 0 if none will come soon."""
        if call.num_preparing or call.num_decoding:
            return GATHERING_S
        if call.submitted:
            lane = self._media_lane if call.submitted[0].has_media else self._text_lane
            return GATHERING_S if self._has_room(call, lane) else 0.0
        return 0.0 if call.source_ended else SUBMITTING_S

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
                self._ready_tokens -= sum(queued.num_tokens for queued in taken)
                call.ready = [queued for queued in call.ready if queued not in chosen]
                if not call.ready:
                    self._ready_calls.discard(call)
                call.share.charge(num_taken_tokens, self._budget.tokens)
                batch += taken
            if num_skipped > MAX_SKIPPED or num_tokens >= max_tokens:
                break
        return batch

    def _release(self, queued: QueuedRequest) -> None:
        """Take a prepared request out of the windows."""
        call = queued.call
        call.num_tokens -= queued.window_tokens
        self._lane(queued).num_tokens -= queued.window_tokens
        self._buffered_bytes -= queued.buffered_bytes
        if queued.decoding:
            self._decoded_tokens -= queued.window_tokens
        call.num_prepared -= 1
        if not call.num_prepared:
            call.share.end()

    def drop_cancelled(self) -> bool:
        """Remove the requests of cancelled calls, except those that are being prepared, decoded or run.

        Returns:
            Whether there may be room for others now.
        """
        if not self._cancelled:
            return False
        with self._lock:
            while self._cancelled:
                call = self._cancelled.popleft()
                call.submitted.clear()
                dropped = [*call.undecoded, *call.ready]
                self._ready_tokens -= sum(queued.num_tokens for queued in call.ready)
                call.undecoded.clear()
                call.ready.clear()
                self._undecoded_calls.discard(call)
                self._ready_calls.discard(call)
                for queued in dropped:
                    self._release(queued)
        return True
