"""Events of threads that an event loop receives."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from itertools import pairwise

import pytest

from qwen3vl.concurrency.loop_delivery import MAX_EVENTS, LoopDeliveries, LoopDelivery


def in_thread(deliver: threading.Thread) -> None:
    deliver.start()
    deliver.join()


def test_a_loop_receives_events_in_order_and_a_few_in_each_iteration() -> None:
    num_events = 10 * MAX_EVENTS + 1
    received: list[int] = []
    done = asyncio.Event()
    counts: list[int] = []

    def receive(event: int) -> None:
        received.append(event)
        if len(received) == num_events:
            done.set()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        delivery = LoopDeliveries[int]().of(loop)

        def deliver() -> None:
            for event in range(num_events):
                delivery.deliver(receive, event)

        def count() -> None:
            counts.append(len(received))
            if not done.is_set():
                loop.call_soon(count)

        in_thread(threading.Thread(target=deliver))  # the loop stands still meanwhile: all events wait for it
        loop.call_soon(count)
        await asyncio.wait_for(done.wait(), 60)

    asyncio.run(run())
    assert received == list(range(num_events))
    assert len(counts) >= 10
    assert max(later - earlier for earlier, later in pairwise(counts)) <= MAX_EVENTS


def test_events_of_several_threads_and_later_ones_arrive() -> None:
    received: list[int] = []

    async def run() -> None:
        delivery = LoopDelivery[int](asyncio.get_running_loop())

        def deliver() -> None:
            for event in range(100):
                delivery.deliver(received.append, event)

        for number in range(3):
            threads = [threading.Thread(target=deliver) for _ in range(4)]
            for thread in threads:
                thread.start()
            while len(received) < 400 * (number + 1):
                await asyncio.sleep(0.001)
            for thread in threads:
                thread.join()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert sorted(received) == sorted([*range(100)] * 12)


def test_events_that_a_closed_loop_did_not_receive_do_not_keep_it_for_long() -> None:
    deliveries = LoopDeliveries[int]()
    queues: list[asyncio.Queue[int]] = []

    async def leave() -> weakref.ref[asyncio.AbstractEventLoop]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 0.01)  # from now on the queue refers to the loop
        loop = asyncio.get_running_loop()
        queues.append(queue)
        for event in range(10 * MAX_EVENTS):
            deliveries.of(loop).deliver(queue.put_nowait, event)
        return weakref.ref(loop)

    gone = asyncio.run(leave())
    assert queues.pop().qsize() < 10 * MAX_EVENTS

    async def use() -> None:
        deliveries.of(asyncio.get_running_loop())

    asyncio.run(use())
    gc.collect()
    assert gone() is None


def test_a_loop_goes_on_after_a_callback_was_interrupted() -> None:
    loop = asyncio.new_event_loop()
    delivery = LoopDelivery[int](loop)
    received: list[int] = []

    def receive(event: int) -> None:
        if event == 1:
            raise KeyboardInterrupt
        received.append(event)

    for event in range(4):
        delivery.deliver(receive, event)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    delivery.deliver(receive, 4)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    loop.close()
    assert received == [0, 2, 3, 4]


def test_a_closed_loop_is_an_error_and_no_loop_is_kept() -> None:
    deliveries = LoopDeliveries[int]()
    loop = asyncio.new_event_loop()
    delivery = deliveries.of(loop)
    assert deliveries.of(loop) is delivery
    delivery.deliver(print, 1)  # it is closed before it receives this
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        delivery.deliver(print, 2)
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None
    with pytest.raises(RuntimeError, match="closed"):
        delivery.deliver(print, 3)
