"""What must not stop the engine for others: forks, threads that cannot be started, Ctrl-C, many pending calls."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qwen3vl import Embedder, Reranker
from qwen3vl.engine import engine as engine_module
from qwen3vl.engine import request_queue
from qwen3vl.engine.media_decoder import MediaDecoder, load_pixels
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.worker import DeviceWorker
from qwen3vl.media.images import image_size, read_image_header
from qwen3vl.processing import sizing
from qwen3vl.processing.fitting import fit
from qwen3vl.processing.sizing import SizedMedia
from tests.support.decoder_scripts import wait_until
from tests.support.engines import embedder_with, with_stages

FORK_WHILE_DECODING = """
import os, signal, sys, threading, time
from PIL import Image
from qwen3vl import Embedder
from qwen3vl.engine import Engine
from qwen3vl.engine.media_decoder import load_pixels

decoding = threading.Event()

def decode(media):
    decoding.set()
    time.sleep(1.0)
    return load_pixels(media)

embedder = Embedder("tiny", device="cpu")
engine = embedder.engine
embedder.backend.engine = Engine(engine.checkpoint, engine.settings, engine.limits, decode=decode)
image = Image.new("RGB", (64, 64), "red")
thread = threading.Thread(target=embedder.embed, args=([image],))
thread.start()
decoding.wait(30)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if embedder.embed([image, "a text"]).shape == (2, 128) else 3)
_, status = os.waitpid(child, 0)
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_decodes_an_image_that_its_parent_was_decoding() -> None:
    assert subprocess.run([sys.executable, "-c", FORK_WHILE_DECODING], timeout=120, check=False).returncode == 0


FORK_WHILE_LOADING = """
import os, signal, sys, threading, time
from qwen3vl import Embedder
from qwen3vl.engine.replica import Replica

loading = threading.Event()
load = Replica.load

def load_slowly(*arguments):
    loading.set()
    time.sleep(1.0)
    return load(*arguments)

Replica.load = load_slowly
thread = threading.Thread(target=Embedder, args=("tiny",), kwargs={"device": "cpu"})
thread.start()
loading.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if Embedder("tiny", device="cpu").embed("a text").shape == (1, 128) else 3)
_, status = os.waitpid(child, 0)
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_loads_a_model_that_its_parent_was_loading() -> None:
    assert subprocess.run([sys.executable, "-c", FORK_WHILE_LOADING], timeout=120, check=False).returncode == 0


def test_threads_that_cannot_be_started_are_an_error_and_cost_no_later_call(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = embedder_with(checkpoints / "embedding", stages={})
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("qwen3vl-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    for _ in range(70):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                embedder.embed(["a", {"image": Image.new("RGB", (40, 40))}])
    assert embedder.embed(["a", {"image": Image.new("RGB", (40, 40))}]).shape == (2, 96)


def test_pending_downloads_do_not_delay_texts(checkpoints: Path) -> None:
    """Of any number of calls: they have places of their own in the windows."""
    resume = threading.Event()

    def fit_slowly(parts: Any, *args: Any) -> Any:
        if "Unsized" in str(parts):
            resume.wait(60)
        return fit(parts, *args)

    embedder = embedder_with(checkpoints / "embedding", stages={"fit": fit_slowly}, threads=2)

    async def run() -> None:
        image = Image.new("RGB", (64, 64))
        pending = [asyncio.ensure_future(embedder.aembed({"image": image})) for _ in range(300)]
        await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(embedder.aembed("a text"), 30)).shape == (1, 96)
        assert not any(task.done() for task in pending)
        resume.set()
        await asyncio.gather(*pending)

    asyncio.run(run())


def test_texts_and_images_of_one_call_in_any_order(checkpoints: Path) -> None:
    """They are prepared by different threads, each of which sees only the call's next request."""
    embedder = Embedder(checkpoints / "embedding", device="cpu")
    image: Any = {"image": Image.new("RGB", (64, 64))}
    for _ in range(30):
        for inputs in (["a", image], [image, "a"], ["a", "b", image, "c", image, "d"]):
            assert len(embedder.embed(inputs)) == len(inputs)


def test_documents_with_a_long_query_share_batches(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query is computed once for each batch, so windows count it once."""
    # Requests wait for each other, however slow this machine is at present.
    monkeypatch.setattr(request_queue, "MAX_BATCH_WAIT_S", 60.0)
    monkeypatch.setattr(request_queue, "MAX_SUBMIT_WAIT_S", 60.0)
    reranker = Reranker(checkpoints / "reranker", device="cpu", batch_tokens=2048)
    query = "which ship is this? " * 80
    reranker.score(query, [f"document {number}" for number in range(150)])
    stats = reranker.engine.stats
    assert stats.packs <= 3
    assert stats.tokens_computed < 0.1 * stats.tokens_requested


def test_queries_with_images_that_are_awaited_are_read_within_a_limit(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_MEDIA_QUERIES", 5)
    most = 0
    reranker = with_stages(Reranker(checkpoints / "reranker", device="cpu"), {})
    read_headers = reranker.engine.read_headers
    reading: set[int] = set()

    def count(item: Any) -> Any:
        nonlocal most
        if item.images:
            reading.add(id(item))
            most = max(most, len(reading))
        return read_headers(item)

    monkeypatch.setattr(reranker.engine, "read_headers", count)

    async def run() -> list[Any]:
        async def score(number: int) -> Any:
            scores = await reranker.ascore({"image": Image.new("RGB", (64, 64), (number, 0, 0))}, ["a"])
            reading.clear()
            return scores

        return await asyncio.gather(*(score(number) for number in range(20)))

    assert np.isfinite(asyncio.run(asyncio.wait_for(run(), 60))).all()
    assert most <= 5


def test_headers_of_an_item_that_nobody_needs_are_not_read(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = embedder_with(checkpoints / "embedding", stages={}, threads=1)
    reading, cancelled, num_read = threading.Event(), threading.Event(), 0

    def read(*arguments: Any, **options: Any) -> Any:
        nonlocal num_read
        num_read += 1
        reading.set()
        assert cancelled.wait(60)
        return read_image_header(*arguments, **options)

    async def cancel_while_reading(value: Any) -> None:
        task = asyncio.create_task(embedder.aembed([value]))
        await asyncio.to_thread(reading.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()

    monkeypatch.setattr(sizing, "read_image_header", read)
    images = [Image.new("RGB", (64, 64), (number, 0, 0)) for number in range(4)]
    asyncio.run(cancel_while_reading({"image": images}))
    embedder.embed([{"image": images[0]}])  # on the one thread for media, after the cancelled item
    assert num_read == 2


@pytest.mark.parametrize("is_second_intact", [True, False])
def test_file_with_the_content_of_one_that_is_gone_is_decoded_itself(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_second_intact: bool
) -> None:
    """Files with equal content are decoded once, but the error of one is not that of the other."""
    names = ["first.png", "second.png"]
    for name in names:
        # Of another colour in each case: engines of one process share the cache of features.
        Image.new("RGB", (64, 64), "teal" if is_second_intact else "olive").save(tmp_path / name)
    num_started = 0
    decoded: list[str] = []
    start = MediaDecoder.start

    def count(decoder: MediaDecoder, queued: Any) -> None:
        nonlocal num_started
        start(decoder, queued)
        num_started += 1

    def decode(media: SizedMedia) -> torch.Tensor:
        decoded.append(Path(media.name).name)
        wait_until(lambda: num_started == 2)
        if len(decoded) == 1 or not is_second_intact:
            Path(media.name).unlink()
        return load_pixels(media)

    monkeypatch.setattr(MediaDecoder, "start", count)
    embedder = embedder_with(checkpoints / "embedding", stages={"decode": decode}, threads=2)
    batch = embedder.embed([{"image": tmp_path / name} for name in names], on_error="collect")
    assert sorted(decoded) == names
    failed = [Path(str(error.source)).name for error in batch.errors]
    assert sorted(failed) == (decoded[:1] if is_second_intact else names)
    assert [names[error.index] for error in batch.errors] == failed


def test_interrupt_of_a_caller_does_not_stop_others(checkpoints: Path) -> None:
    """Whatever line it is interrupted at: callers only submit, and the engine's threads do the rest."""
    embedder = embedder_with(checkpoints / "embedding", stages={}, batch_tokens=200)
    stop = threading.Event()
    vectors: list[Any] = []

    def embed_on_and_on() -> None:
        while not stop.is_set():
            vectors.append(embedder.embed(["a", "b"]))

    other = threading.Thread(target=embed_on_and_on)
    other.start()
    try:
        for delay_ms in range(1, 25):
            timer = threading.Timer(delay_ms / 1000, interrupt_main)
            try:
                timer.start()
                embedder.embed([f"text {number}" for number in range(300)])
                time.sleep(1)
            except KeyboardInterrupt:
                pass
            timer.join()
        num_vectors = len(vectors)
        deadline = time.monotonic() + 30
        while len(vectors) < num_vectors + 3:
            assert time.monotonic() < deadline, "the other caller waits for ever"
            time.sleep(0.01)
    finally:
        stop.set()
        other.join(30)
    assert embedder.embed(["again"]).shape == (1, 96)


def interrupt_main() -> None:
    import _thread

    _thread.interrupt_main()


def test_loop_is_not_blocked_while_many_inputs_are_submitted(checkpoints: Path) -> None:
    embedder = Embedder(checkpoints / "embedding", device="cpu")

    async def run() -> int:
        num_turns = 0

        async def count_turns() -> None:
            nonlocal num_turns
            while True:
                num_turns += 1
                await asyncio.sleep(0)

        counter = asyncio.ensure_future(count_turns())
        await embedder.aembed([f"text {number}" for number in range(500)])
        counter.cancel()
        return num_turns

    assert asyncio.run(run()) > 500


def test_number_of_torch_threads_of_the_caller_is_used(checkpoints: Path) -> None:
    seen: list[int] = []

    def forward(replica: Replica, *args: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return replica.execute(*args, **options)

    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward})

    def embed_with_threads(count: int) -> None:
        torch.set_num_threads(count)
        embedder.embed("a")

    for count in (1, 2):
        thread = threading.Thread(target=embed_with_threads, args=(count,))
        thread.start()
        thread.join(60)
    assert seen == [1, 2]


class IdleQueue:
    """A queue without work, which notes that a worker has looked at it."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def next_turn(self) -> None:
        self.asked.set()

    def take_work(self, _: DeviceWorker) -> None:
        return None


def test_queues_that_are_attached_at_once_are_all_served() -> None:
    """Models that are created side by side share the worker of their device: none may be forgotten."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            worker, queues = DeviceWorker(torch.device("cpu")), [IdleQueue() for _ in range(16)]
            barrier = threading.Barrier(len(queues))

            def attach(queue: IdleQueue, worker: DeviceWorker = worker, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                worker.attach(queue)

            with ThreadPoolExecutor(len(queues)) as pool:
                list(pool.map(attach, queues))
            worker.notify()
            assert all(queue.asked.wait(20) for queue in queues)
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_thread_that_opens_an_image_leaves_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    """They are those of the whole program, and other threads change them meanwhile."""
    pipe, encoded = tmp_path / "a.png", BytesIO()
    os.mkfifo(pipe)
    Image.new("RGB", (3, 2)).save(encoded, "PNG")
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as pool:
        opening = pool.submit(image_size, pipe, False)
        with pipe.open("wb") as stream:  # returns when the thread has opened it
            warnings.filterwarnings("ignore", message="of the application")
            stream.write(encoded.getvalue())
        assert opening.result(30) == (3, 2)
        message = warnings.filters[0][1]
    assert message is not None
    assert "of the application" in str(message)
