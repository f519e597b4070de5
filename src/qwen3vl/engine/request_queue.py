"""The queue of a model: requests of all calls, from their submission until a device has run them."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from qwen3vl.concurrency.fork_safety import init_in_each_process
from qwen3vl.engine.calls import Admission, Call, QueuedRequest
from qwen3vl.engine.fairness import Turn
from qwen3vl.engine.memory import TokenBudget
from qwen3vl.engine.prefix_tree import shared_prefix_length
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.requests import Request

MAX_SUBMITTED = 16
"""Maximum number of a call's requests that wait until they are prepared. Its inputs are taken so far ahead."""
WINDOW_BATCHES = 4
"""A call's window, in full batches for each device: once its prepared and running requests fill it, no further ones of
this call are prepared."""
MAX_WINDOWS = 2
"""Windows that the prepared and running requests of all calls may fill, texts and media counted apart."""
MAX_WINDOWS_FOR_NEW_CALLS = 4
"""The same for a call that has no request prepared or running, so that it need not wait for large calls."""
PREFETCH_BATCHES = 3
"""Full batches for each device whose media may be in memory or being decoded, running requests included."""
MAX_BUFFERED_BYTES = 256 * 2**20
"""Bytes of encoded media files in memory from which on no further requests with media are prepared."""
MAX_BATCH_WAIT_S = 0.1
"""Maximum seconds that a request waits, while a device is idle, for others of its own call that are being prepared or
decoded. It never waits for those of other calls."""
MAX_SUBMIT_WAIT_S = 0.02
"""Maximum seconds that a request waits, while a device is idle, for its caller to submit the next one."""
MAX_SKIPPED = 32
"""Requests too large for the rest of a batch that are passed over in the search for smaller ones."""
MIN_SPLIT_TOKENS = 1024
"""Tokens up to which waiting requests are not divided among several devices."""

_turn = attrgetter("share.turn")
_index = attrgetter("index")


@dataclass(slots=True)
class _AdmissionQueue:
    """The calls whose next request is a text, or has media. There is one for each, so that neither waits for the other.

    Attributes:
        calls: The calls, which take turns: the first one has its next request prepared.
        num_tokens: Tokens of prepared requests of this kind that are not done.
    """

    calls: deque[Call] = field(default_factory=deque)
    num_tokens: int = 0


class RequestQueue:
    """Decides which requests are prepared, decoded and run next, within windows that bound the memory.

    A request is submitted, admitted, prepared, decoded (if it has media), ready, taken and done. Calls take turns when
    their requests are admitted; which call's media are decoded next, and which call's requests are taken next, depends
    on the calls' shares of the devices. Thread-safe.

    Args:
        budget: Tokens of a full batch.
        num_devices: Number of devices that take requests.

    Attributes:
        epoch: An object that each forked process replaces, to tell its own calls from those of its parent.
    """

    def __init__(self, budget: TokenBudget, num_devices: int) -> None:
        self._budget = budget
        self._num_devices = num_devices
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Begin without requests."""
        # Reentrant: the garbage collector may close an abandoned stream on any thread and at any time, also while that
        # thread has the lock. Therefore `cancel` only takes a note.
        self._lock = threading.RLock()
        self.epoch = object()
        self._cancelled: deque[Call] = deque()
        self._text_queue, self._media_queue = _AdmissionQueue(), _AdmissionQueue()
        self._undecoded_calls: set[Call] = set()
        self._ready_calls: set[Call] = set()
        self._ready_tokens = 0
        self._decoded_tokens = 0
        self._buffered_bytes = 0

    def submit(self, call: Call, request: Request) -> None:
        """Add a request of a call."""
        with self._lock:
            call.submitted.append(request)
            self._await_admission(call)

    def end_source(self, call: Call) -> None:
        """Note that a call has submitted all its requests."""
        call.source_ended = True

    def may_submit(self, call: Call) -> bool:
        """Return whether a call may submit a request now. If not, note that it waits: it is asked as soon as it may."""
        with self._lock:
            call.wants_requests = len(call.submitted) >= MAX_SUBMITTED
            return not call.wants_requests

    def admit(self, *, has_media: bool) -> Admission | None:
        """Take the next request to prepare, of the call whose turn it is.

        Args:
            has_media: Whether to take a request with media, or one without.

        Returns:
            The request; None if there is none, or no room for it.
        """
        with self._lock:
            queue = self._admission_queue(has_media=has_media)
            if not self._has_room(queue, MAX_WINDOWS_FOR_NEW_CALLS):
                return None
            for _ in range(len(queue.calls)):
                call = queue.calls.popleft()
                if not call.submitted:  # it was cancelled
                    call.awaits_admission = False
                elif self._may_prepare(call, queue):
                    call.awaits_admission = False
                    request = call.submitted.popleft()
                    call.num_preparing += 1
                    self._await_admission(call)
                    ask_for_more = call.wants_requests and len(call.submitted) <= MAX_SUBMITTED // 2
                    call.wants_requests &= not ask_for_more
                    next_has_media = call.submitted[0].has_media if call.submitted else None
                    return Admission(call, request, ask_for_more, next_has_media)
                else:
                    queue.calls.append(call)
            return None

    def mark_unprepared(self, call: Call) -> None:
        """Note that an admitted request was not prepared: it failed, or is not needed any more."""
        with self._lock:
            call.num_preparing -= 1

    def mark_prepared(self, call: Call, prepared: PreparedRequest) -> None:
        """Note that a request was prepared. It is ready if it has no media; else these are decoded first."""
        prompt = prepared.fitted.prompt
        with self._lock:
            call.num_preparing -= 1
            if call.cancelled:
                return
            num_tokens = len(prompt)
            if call.last_prompt is not None:
                num_tokens = max(1, num_tokens - shared_prefix_length(prompt, call.last_prompt))
            call.last_prompt = prompt
            queued = QueuedRequest(call, prepared, num_tokens, min(num_tokens, self._budget.tokens))
            call.num_tokens += queued.window_tokens
            self._admission_queue(has_media=queued.has_media).num_tokens += queued.window_tokens
            self._buffered_bytes += queued.buffered_bytes
            if not call.num_prepared:
                call.share.activate()
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

    def mark_decoded(self, queued: QueuedRequest) -> None:
        """Note that the media of a request are decoded: it is ready."""
        with self._lock:
            queued.call.num_decoding -= 1
            if queued.call.cancelled:
                self._release(queued)
            else:
                self._add_ready(queued)

    def mark_undecodable(self, queued: QueuedRequest) -> None:
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
            return min(map(_turn, self._ready_calls)), self._batch_wait_s()

    def take(self) -> list[QueuedRequest]:
        """Take the requests whose turn it is, as many as fill a batch.

        Returns:
            The requests; none if none is ready.
        """
        with self._lock:
            calls = sorted(self._ready_calls, key=_turn)
            if not calls:
                return []
            calls[0].share.advance_clock()
            max_tokens = self._budget.tokens
            if self._num_devices > 1:  # the other devices may be idle, too
                share = -(-self._ready_tokens // self._num_devices)
                max_tokens = min(max_tokens, max(MIN_SPLIT_TOKENS, share))
            return self._fill_batch(calls, max_tokens)

    def mark_done(self, requests: Iterable[QueuedRequest]) -> None:
        """Note that requests that were taken are done."""
        with self._lock:
            for queued in requests:
                self._release(queued)

    def cancel(self, call: Call) -> None:
        """Note that nobody needs the outputs of a call any more; see `drop_cancelled`. Takes no lock."""
        call.cancelled = True
        if call.epoch is self.epoch:
            self._cancelled.append(call)

    def _await_admission(self, call: Call) -> None:
        """Put a call in the queue for the admission of its next request, if it has one."""
        if call.submitted and not call.awaits_admission:
            call.awaits_admission = True
            self._admission_queue(has_media=call.submitted[0].has_media).calls.append(call)

    def _may_prepare(self, call: Call, queue: _AdmissionQueue) -> bool:
        """Return whether the windows have room for a request of a call."""
        if not (call.num_preparing or call.num_prepared):
            return self._has_room(queue, MAX_WINDOWS_FOR_NEW_CALLS)
        window = WINDOW_BATCHES * self._budget.tokens * self._num_devices
        return call.num_tokens < window and self._has_room(queue, MAX_WINDOWS)

    def _has_room(self, queue: _AdmissionQueue, num_windows: int) -> bool:
        if queue is self._media_queue and self._buffered_bytes >= MAX_BUFFERED_BYTES:
            return False
        return queue.num_tokens < num_windows * WINDOW_BATCHES * self._budget.tokens * self._num_devices

    def _admission_queue(self, *, has_media: bool) -> _AdmissionQueue:
        return self._media_queue if has_media else self._text_queue

    def _add_ready(self, queued: QueuedRequest) -> None:
        queued.ready_at = time.perf_counter()
        insort(queued.call.ready, queued, key=_index)
        self._ready_calls.add(queued.call)
        self._ready_tokens += queued.num_tokens

    def _batch_wait_s(self) -> float:
        """Return for how many seconds the requests that are ready should wait for others of their own calls."""
        if self._ready_tokens >= self._budget.tokens:
            return 0.0
        limits_s = [self._max_wait_s(call) for call in self._ready_calls]
        if not all(limits_s):
            return 0.0
        times = [queued.ready_at for call in self._ready_calls for queued in call.ready]
        return max(0.0, min(min(times) + MAX_BATCH_WAIT_S, max(times) + min(limits_s)) - time.perf_counter())

    def _max_wait_s(self, call: Call) -> float:
        """Return for how many seconds at most to wait for further requests of a call; 0 if none will come soon."""
        if call.num_preparing or call.num_decoding:
            return MAX_BATCH_WAIT_S
        if call.submitted:
            queue = self._admission_queue(has_media=call.submitted[0].has_media)
            return MAX_BATCH_WAIT_S if self._may_prepare(call, queue) else 0.0
        return 0.0 if call.source_ended else MAX_SUBMIT_WAIT_S

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
        self._admission_queue(has_media=queued.has_media).num_tokens -= queued.window_tokens
        self._buffered_bytes -= queued.buffered_bytes
        if queued.decoding:
            self._decoded_tokens -= queued.window_tokens
        call.num_prepared -= 1
        if not call.num_prepared:
            call.share.deactivate()

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
