"""The order in which requests of many calls are run: equal shares, no caller starved, bounded windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from qwen3vl.engine.calls import Call, CallEvent, QueuedRequest, next_call_number
from qwen3vl.engine.fairness import FairClock, FairShare, Turn
from qwen3vl.engine.memory import TokenBudget
from qwen3vl.engine.preparation import PreparedRequest
from qwen3vl.engine.request_queue import PREFETCH_BATCHES, WINDOW_BATCHES, RequestQueue
from qwen3vl.engine.requests import Request
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.fitting import FittedPrompt
from qwen3vl.processing.sizing import SizedMedia
from qwen3vl.processing.templates import VisionPart

BATCH = 100
"""Tokens of a full batch."""


def prepare(request: Request, num_tokens: int) -> PreparedRequest:
    """Return a prompt that shares nothing with others."""
    ids = np.arange(num_tokens) + 1000 * request.index + 7
    return PreparedRequest(request, FittedPrompt(EncodedPrompt(ids, np.zeros((3, num_tokens), np.int64)), ()))


class Device:
    """A device in virtual time: requests are prepared at once, and run when they are taken."""

    def __init__(self) -> None:
        self.clock = FairClock()
        self.queue = RequestQueue(TokenBudget(BATCH), 1)
        self._sizes: dict[Call, int] = {}

    def begin(self, num_tokens: int) -> Call:
        def ignore(_: CallEvent) -> None: ...

        number = next_call_number()
        call = Call(number, ignore, FairShare(self.clock, number), self.queue.epoch)
        self._sizes[call] = num_tokens
        return call

    def submit(self, call: Call, count: int) -> None:
        for index in range(count):
            self.queue.submit(call, Request(index, "a text", Sequence))
        self.queue.end_source(call)
        self.prepare_all()

    def prepare_all(self) -> None:
        self.queue.drop_cancelled()
        while admitted := self.queue.admit(has_media=False):
            self.queue.mark_prepared(admitted.call, prepare(admitted.request, self._sizes[admitted.call]))

    def run_batch(self) -> list[QueuedRequest]:
        self.queue.drop_cancelled()
        batch = self.queue.take()
        self.clock.advance(sum(queued.num_tokens for queued in batch))
        self.queue.mark_done(batch)
        self.prepare_all()
        return batch

    def end(self, call: Call) -> None:
        self.queue.cancel(call)


def ready(device: Device) -> list[QueuedRequest]:
    return [queued for call in device.queue._ready_calls for queued in call.ready]


def calls(batch: Sequence[QueuedRequest]) -> list[Call]:
    return [queued.call for queued in batch]


def test_batches_are_filled_and_nothing_is_lost() -> None:
    device = Device()
    call = device.begin(num_tokens=30)
    device.submit(call, 10)
    batches = [[queued.prepared.request.index for queued in device.run_batch()] for _ in range(5)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9], []]


def test_new_call_goes_before_the_rest_of_a_large_one() -> None:
    device = Device()
    large = device.begin(num_tokens=20)
    device.submit(large, 1000)
    for _ in range(7):
        assert set(calls(device.run_batch())) == {large}
    query = device.begin(num_tokens=10)
    device.submit(query, 1)
    batch = calls(device.run_batch())
    assert batch[0] is query
    assert batch[1:] == [large] * 4  # the rest of the batch is not left empty


def test_large_call_is_not_starved_by_small_ones() -> None:
    """Small calls fill every batch: there are always ten of them, and the large one gets its eleventh part."""
    device = Device()
    large = device.begin(num_tokens=20)
    device.submit(large, 1000)
    small = [device.begin(num_tokens=10) for _ in range(10)]
    for call in small:
        device.submit(call, 1)
    tokens_of_large = 0
    gaps, gap = [], 0
    for _ in range(600):
        batch = device.run_batch()
        tokens = sum(queued.num_tokens for queued in batch if queued.call is large)
        tokens_of_large += tokens
        gap = 0 if tokens else gap + 1
        gaps.append(gap)
        for queued in batch:
            if queued.call is not large:
                device.end(queued.call)
                again = device.begin(num_tokens=10)
                device.submit(again, 1)
    share = tokens_of_large / (600 * BATCH)
    assert 0.5 / 11 < share < 2 / 11
    assert max(gaps[50:]) < 60


def test_two_large_calls_share_the_device_equally() -> None:
    device = Device()
    first = device.begin(num_tokens=50)
    device.submit(first, 400)
    for _ in range(20):
        device.run_batch()
    second = device.begin(num_tokens=10)
    device.submit(second, 2000)
    tokens = {first: 0, second: 0}
    for _ in range(100):
        for queued in device.run_batch():
            tokens[queued.call] += queued.num_tokens
    assert abs(tokens[first] - tokens[second]) <= 4 * BATCH


def test_requests_of_a_call_are_run_together() -> None:
    """So that they share prefixes: a batch for each call, instead of parts of each call in every batch."""
    device = Device()
    four = [device.begin(num_tokens=10) for _ in range(4)]
    for call in four:
        device.submit(call, 10)
    for call in four:
        assert set(calls(device.run_batch())) == {call}


def test_device_that_was_used_alone_is_no_debt() -> None:
    """A call that had the device for itself gets its share soon after others come."""
    device = Device()
    large = device.begin(num_tokens=20)
    for _ in range(200):
        device.submit(large, 5)
        device.run_batch()
    device.submit(large, 100)
    other = device.begin(num_tokens=20)
    device.submit(other, 100)
    turns = [large in calls(device.run_batch()) for _ in range(2 * WINDOW_BATCHES + 2)]
    assert any(turns)
    assert not all(turns)


def test_windows_bound_what_is_prepared() -> None:
    device = Device()
    call = device.begin(num_tokens=10)
    device.submit(call, 10_000)
    window = WINDOW_BATCHES * BATCH
    assert window <= call.num_tokens < window + 10
    for number in range(50):
        device.submit(device.begin(num_tokens=10), 10 + number)
    total = sum(queued.window_tokens for queued in ready(device))
    assert 2 * window <= total < 4 * window + 10
    num_run = 0
    while batch := device.run_batch():
        num_run += len(batch)
    assert num_run == 10_000 + sum(10 + number for number in range(50))


def test_cancelled_calls_free_the_windows() -> None:
    device = Device()
    many = [device.begin(num_tokens=10) for _ in range(2 * WINDOW_BATCHES * BATCH)]
    for call in many:
        device.submit(call, 3)
    waiting = device.begin(num_tokens=10)
    device.submit(waiting, 1)
    assert waiting.submitted
    for call in many:
        device.end(call)
    assert device.queue.drop_cancelled()
    device.prepare_all()
    assert calls(device.run_batch()) == [waiting]
    assert_empty(device.queue)


def test_smaller_requests_fill_a_batch_behind_one_that_does_not_fit() -> None:
    device = Device()
    sizes = {device.begin(num_tokens=size): size for size in (60, 70, 30)}
    for call in sizes:
        device.submit(call, 1)
    assert [sizes[queued.call] for queued in device.run_batch()] == [60, 30]
    assert [sizes[queued.call] for queued in device.run_batch()] == [70]


def assert_empty(queue: RequestQueue) -> None:
    """Check that nothing is counted that is not there."""
    assert (queue._text_queue.num_tokens, queue._media_queue.num_tokens) == (0, 0)
    assert (queue._ready_tokens, queue._decoded_tokens, queue._buffered_bytes) == (0, 0, 0)
    assert not queue._ready_calls
    assert not queue._undecoded_calls


def submit_images(device: Device, call: Call, count: int) -> None:
    """Submit and prepare requests with an image each."""
    for index in range(count):
        device.queue.submit(call, Request(index, "an image", Sequence, has_media=True))
    while admitted := device.queue.admit(has_media=True):
        request = admitted.request
        media = (SizedMedia("an image", VisionPart(request.index, (1, 2, 2)), lambda: np.zeros(0, np.uint8), 5),)
        prompt = prepare(request, 10).fitted.prompt
        device.queue.mark_prepared(admitted.call, PreparedRequest(request, FittedPrompt(prompt, media)))


def test_request_that_is_decoded_after_others_of_its_call_were_taken_is_run() -> None:
    device = Device()
    call = device.begin(num_tokens=10)
    submit_images(device, call, 2)
    first, second = device.queue.next_to_decode(), device.queue.next_to_decode()
    assert first is not None
    assert second is not None
    device.queue.mark_decoded(first)
    assert device.run_batch() == [first]
    device.queue.mark_decoded(second)
    assert device.run_batch() == [second]
    assert_empty(device.queue)


@pytest.mark.parametrize("num_decoding", range(5))
def test_nothing_is_counted_of_calls_that_were_cancelled_or_failed(num_decoding: int) -> None:
    """Whether their media wait, are being decoded, are broken or are ready."""
    device = Device()
    call = device.begin(num_tokens=10)
    submit_images(device, call, 4)
    decoding = [device.queue.next_to_decode() for _ in range(min(num_decoding, 3))]
    queued = [request for request in decoding if request is not None]
    if num_decoding > 1:
        device.queue.mark_decoded(queued.pop())
    if num_decoding > 3:
        device.queue.mark_undecodable(queued.pop())
    device.end(call)
    device.queue.drop_cancelled()
    for request in queued:
        device.queue.mark_decoded(request)
    assert_empty(device.queue)
    assert not device.clock._calls


def test_texts_do_not_wait_for_media() -> None:
    """However many calls have images that wait to be prepared or decoded."""
    device = Device()
    for _ in range(200):
        submit_images(device, device.begin(num_tokens=10), 50)
    call = device.begin(num_tokens=10)
    device.submit(call, 1)
    assert calls(device.run_batch()) == [call]


def test_media_in_memory_are_bounded() -> None:
    device = Device()
    for _ in range(20):
        submit_images(device, device.begin(num_tokens=10), 50)
    decoding = []
    while (queued := device.queue.next_to_decode()) is not None:
        decoding.append(queued)
    assert sum(queued.window_tokens for queued in decoding) == PREFETCH_BATCHES * BATCH


def test_image_of_a_new_call_is_decoded_next() -> None:
    device = Device()
    large = device.begin(num_tokens=10)
    submit_images(device, large, 100)
    for _ in range(3):
        queued = device.queue.next_to_decode()
        assert queued is not None
        device.queue.mark_decoded(queued)
    assert set(calls(device.run_batch())) == {large}
    new = device.begin(num_tokens=10)
    submit_images(device, new, 1)
    queued = device.queue.next_to_decode()
    assert queued is not None
    assert queued.call is new


def test_shared_prefixes_count_once_in_the_windows() -> None:
    """Of a query of 90 tokens against many documents: else a batch would hold only one of them."""
    device = Device()
    call = device.begin(num_tokens=0)
    query = np.arange(90)
    for index in range(50):
        device.queue.submit(call, Request(index, "a text", Sequence))
    while admitted := device.queue.admit(has_media=False):
        ids = np.concatenate([query, [1000 + admitted.request.index]])
        prompt = EncodedPrompt(ids, np.zeros((3, 91), np.int64))
        device.queue.mark_prepared(call, PreparedRequest(admitted.request, FittedPrompt(prompt, ())))
    assert len(ready(device)) == 50
    assert len(device.queue.take()) == 10  # the whole first prompt, and a token of each of the others


def test_request_waits_only_for_others_of_its_own_call() -> None:
    device = Device()
    call = device.begin(num_tokens=10)
    for index in range(2):
        device.queue.submit(call, Request(index, "a text", Sequence))
    first, second = device.queue.admit(has_media=False), device.queue.admit(has_media=False)
    assert first is not None
    assert second is not None
    device.queue.mark_prepared(call, prepare(first.request, 10))
    _, wait_s = expect(device.queue.next_turn)
    assert 0 < wait_s <= 0.1
    other = device.begin(num_tokens=10)
    device.submit(other, 1)
    assert expect(device.queue.next_turn)[1] == 0.0
    device.end(other)
    device.queue.drop_cancelled()
    assert expect(device.queue.next_turn)[1] > 0.0
    device.queue.mark_prepared(call, prepare(second.request, 10))
    assert 0.0 < expect(device.queue.next_turn)[1] <= 0.02  # the caller may have more
    device.queue.end_source(call)
    assert expect(device.queue.next_turn)[1] == 0.0


def expect(function: Callable[[], tuple[Turn, float] | None]) -> tuple[Turn, float]:
    value = function()
    assert value is not None
    return value
