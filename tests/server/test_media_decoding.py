"""How many media are decoded for browsers at once."""

from __future__ import annotations

import asyncio
import threading
import time

from qwen3vl_server import ServerSettings
from qwen3vl_server.library.library import Library
from qwen3vl_server.library.rendering import Shown
from qwen3vl_server.service import ModelService

from qwen3vl import Document, Embedder, MediaPolicy, open_store
from tests.support.model_server import wait_until

MAX_DECODED = 4


async def test_media_of_requests_that_were_cancelled_count_until_they_are_decoded(tiny_embedder: Embedder) -> None:
    running, most, lock, resume = [0], [0], threading.Lock(), threading.Event()

    def render(_document: Document, _policy: MediaPolicy) -> Shown:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        assert resume.wait(60)
        with lock:
            running[0] -= 1
        return Shown(b"", "image/png")

    store, settings = open_store(":memory:"), ServerSettings()
    library = Library(ModelService({"embedder": tiny_embedder}, settings, {}), store, None, settings)
    document = Document("a.png", "picture", image="a.png")

    def show_all() -> list[asyncio.Task[Shown]]:
        return [asyncio.create_task(library.show(document, render)) for _ in range(MAX_DECODED + 2)]

    try:
        cancelled = show_all()
        await asyncio.to_thread(wait_until, lambda: running[0] == MAX_DECODED)
        for task in cancelled:
            task.cancel()
        await asyncio.wait(cancelled)
        assert all(task.cancelled() for task in cancelled)
        others = show_all()
        await asyncio.to_thread(time.sleep, 0.2)  # without a limit they would begin now
    finally:
        resume.set()
    assert len(await asyncio.gather(*others)) == MAX_DECODED + 2
    assert most == [MAX_DECODED]
    store.close()
