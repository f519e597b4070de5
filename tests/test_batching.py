"""Batching across calls: one queue for all callers, the same results, errors and cancellation that concern one call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen3vl import BatchError, Embedder, InputError, Reranker
from qwen3vl.engine import request_queue
from qwen3vl.engine.replica import Replica
from tests.conftest import CASES, REFERENCE, resolve
from tests.support.engines import GatedForward, busy_embedder, embedder_with, ready
from tests.test_golden import EMBED, RERANK, check


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def num_ready(embedder: Embedder) -> int:
    return len(ready(embedder.engine))


@pytest.fixture
def gated(checkpoints: Path) -> Iterator[tuple[Embedder, GatedForward]]:
    """An embedder whose device is busy with the text "first" until `resume` is set."""
    with busy_embedder(checkpoints / "embedding") as busy:
        yield busy


def test_texts_of_many_threads_share_a_batch(gated: tuple[Embedder, GatedForward], golden_embedder: Embedder) -> None:
    embedder, forward = gated
    texts = [f"text number {number}" for number in range(64)]
    with ThreadPoolExecutor(64) as pool:
        futures = [pool.submit(embedder.embed, [text]) for text in texts]
        wait_until(lambda: num_ready(embedder) == 64)
        forward.resume.set()
        vectors = np.vstack([future.result(60) for future in futures])
    assert forward.num_prompts == [1, 64]
    np.testing.assert_allclose(vectors, golden_embedder.embed(texts), atol=2e-6)
    stats = embedder.engine.stats
    assert (stats.calls, stats.packs, stats.call_packs) == (65, 2, 65)
    assert stats.tokens_shared_across_calls == stats.tokens_shared > 63 * 10  # all have the same instruction
    assert stats.seconds_queued > 0


def test_awaits_and_threads_share_a_batch(gated: tuple[Embedder, GatedForward], golden_embedder: Embedder) -> None:
    embedder, forward = gated
    texts = [f"text number {number}" for number in range(30)]
    in_thread: list[Any] = []
    thread = threading.Thread(target=lambda: in_thread.append(embedder.embed(texts)))
    thread.start()

    async def await_all() -> Any:
        tasks = [asyncio.ensure_future(embedder.aembed(text)) for text in texts]
        while num_ready(embedder) < 60:
            await asyncio.sleep(0.005)
        forward.resume.set()
        return np.vstack(await asyncio.gather(*tasks))

    awaited = asyncio.run(asyncio.wait_for(await_all(), 60))
    thread.join(60)
    assert forward.num_prompts == [1, 60]
    expected = golden_embedder.embed(texts)
    np.testing.assert_allclose(awaited, expected, atol=2e-6)
    np.testing.assert_allclose(in_thread[0], expected, atol=2e-6)


def test_golden_answers_from_threads_and_awaits_at_once(checkpoints: Path, media: dict[str, Path]) -> None:
    embedder = Embedder(checkpoints / "embedding", device="cpu", batch_tokens=900)
    reranker = Reranker(checkpoints / "reranker", device="cpu", batch_tokens=900)
    names = [name for name in RERANK if CASES["rerank"][name].get("checkpoint", "reranker") == "reranker"]

    def scoring(name: str) -> dict[str, Any]:
        case = CASES["rerank"][name]
        return {
            "query": resolve(case["query"], media),
            "documents": [resolve(document, media) for document in case["documents"]],
            "instruction": case.get("instruction"),
        }

    def score(name: str) -> Any:
        return reranker.score(**scoring(name))

    async def await_all() -> tuple[list[Any], list[Any]]:
        vectors = (embedder.aembed(resolve(CASES["embed"][name], media)) for name in EMBED)
        scores = (reranker.ascore(**scoring(name)) for name in names)
        return await asyncio.gather(*vectors), await asyncio.gather(*scores)

    with ThreadPoolExecutor(16) as pool:
        order = Random(3).sample(EMBED, len(EMBED))
        vectors = {name: pool.submit(embedder.embed, resolve(CASES["embed"][name], media)) for name in order}
        scores = {name: pool.submit(score, name) for name in names}
        awaited_vectors, awaited_scores = asyncio.run(await_all())
        for name, awaited in zip(EMBED, awaited_vectors, strict=True):
            check(name, vectors[name].result(120)[0])
            check(name, awaited[0])
        for name, awaited in zip(names, awaited_scores, strict=True):
            expected = REFERENCE["rerank"][name]["scores"]
            np.testing.assert_allclose(scores[name].result(120), expected, atol=1e-5, rtol=0)
            np.testing.assert_allclose(awaited, expected, atol=1e-5, rtol=0)


def test_query_is_in_the_next_batch_of_a_device_that_a_large_call_uses(checkpoints: Path) -> None:
    order: list[str] = []
    inside, resume = threading.Event(), threading.Event()

    def forward(replica: Replica, pack: Any, *args: Any, **options: Any) -> Any:
        if len(pack.prompt_indices) > 1 and not inside.is_set():
            inside.set()
            resume.wait(60)
        return replica.execute(pack, *args, **options)

    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward}, batch_tokens=500)

    def run_large_call() -> None:
        for index, _ in embedder.stream(f"text number {number} of a large call" for number in range(2000)):
            order.append(f"large {index}")

    large = threading.Thread(target=run_large_call)
    large.start()
    assert inside.wait(60)

    def run_query() -> None:
        embedder.embed("a query")
        order.append("query")

    query = threading.Thread(target=run_query)
    query.start()
    wait_until(lambda: "text 'a query'" in {queued.prepared.request.source for queued in ready(embedder.engine)})
    num_before = len(order)
    resume.set()
    query.join(60)
    batches_between = (order.index("query") - num_before) * 8 / 500  # each text adds 8 tokens at least
    large.join(120)
    assert batches_between <= 2.5
    assert len(order) == 2001


def test_request_that_fails_does_not_fail_other_callers(checkpoints: Path, golden_embedder: Embedder) -> None:
    """Whoever's batch it shares, and whatever the error is."""

    def forward(replica: Replica, pack: Any, *args: Any, **options: Any) -> Any:
        if pack.num_tokens and bad_token in pack.input_ids:
            raise RuntimeError("this kernel fails")
        return replica.execute(pack, *args, **options)

    bad_token = golden_embedder.engine.tokenizer.token_id("yes")
    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward})
    texts = [f"text number {number}" for number in range(10)]
    batch = embedder.embed([*texts[:5], "yes", *texts[5:]], on_error="collect")
    assert [error.index for error in batch.errors] == [5]
    assert "this kernel fails" in batch.errors[0].reason
    np.testing.assert_allclose(batch.values[batch.ok], golden_embedder.embed(texts), atol=2e-6)


def test_cancelled_await_drops_its_requests_and_no_others(
    gated: tuple[Embedder, GatedForward], golden_embedder: Embedder
) -> None:
    embedder, forward = gated

    async def run() -> Any:
        abandoned = asyncio.ensure_future(embedder.aembed([f"abandoned {number}" for number in range(20)]))
        other = asyncio.ensure_future(embedder.aembed("other"))
        while num_ready(embedder) < 21:
            await asyncio.sleep(0.005)
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        forward.resume.set()
        return await other

    vectors = asyncio.run(asyncio.wait_for(run(), 60))
    assert forward.num_prompts == [1, 1]
    np.testing.assert_allclose(vectors, golden_embedder.embed("other"), atol=2e-6)


def test_batch_of_several_calls_runs_on_while_one_of_them_needs_it(
    checkpoints: Path, golden_embedder: Embedder
) -> None:
    forward = GatedForward()
    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward})

    async def run() -> Any:
        abandoned = asyncio.ensure_future(embedder.aembed([f"abandoned {number}" for number in range(3)]))
        while not forward.started.is_set():
            await asyncio.sleep(0.005)
        tasks = [asyncio.ensure_future(embedder.aembed(text)) for text in ("one", "two")]
        while num_ready(embedder) < 2:
            await asyncio.sleep(0.005)
        abandoned.cancel()
        await asyncio.gather(abandoned, return_exceptions=True)
        forward.resume.set()
        return np.vstack(await asyncio.gather(*tasks))

    vectors = asyncio.run(asyncio.wait_for(run(), 60))
    np.testing.assert_allclose(vectors, golden_embedder.embed(["one", "two"]), atol=2e-6)
    assert embedder.engine.stats.items == 2  # the abandoned pass was stopped at its first layer


def test_errors_of_awaited_items(golden_embedder: Embedder, golden_reranker: Reranker) -> None:
    async def run() -> None:
        with pytest.raises(BatchError, match="1 of 2") as raised:
            await golden_embedder.aembed(["good", {"image": "/nonexistent.png"}])
        assert np.isfinite(raised.value.results[0]).all()
        batch = await golden_embedder.aembed(["", "good"], on_error="collect")
        assert batch.ok.tolist() == [False, True]
        with pytest.raises(InputError, match="the query"):
            await golden_reranker.ascore({"image": "/nonexistent.png"}, ["a"])
        with pytest.raises(ValueError, match="top_n"):
            await golden_reranker.arank("a", ["b"], top_n=-1)
        with pytest.raises(ValueError, match="on_error"):
            await golden_embedder.aembed("a", on_error="ignore")  # type: ignore[call-overload]
        assert (await golden_embedder.aembed([])).shape == (0, 96)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_awaited_results_equal_those_of_threads(
    golden_embedder: Embedder, golden_reranker: Reranker, media: dict[str, Path]
) -> None:
    inputs: list[Any] = ["a text", {"image": media["odd"]}, {"video": media["clip"], "text": "a clip"}]
    query: Any = {"image": media["photo"]}

    async def run() -> tuple[Any, Any, Any]:
        return (
            await golden_embedder.aembed(inputs, instruction="Find it."),
            await golden_reranker.ascore(query, inputs),
            await golden_reranker.arank(query, inputs, top_n=2),
        )

    vectors, scores, ranked = asyncio.run(asyncio.wait_for(run(), 120))
    np.testing.assert_allclose(vectors, golden_embedder.embed(inputs, instruction="Find it."), atol=2e-6)
    np.testing.assert_allclose(scores, golden_reranker.score(query, inputs), atol=1e-6)
    expected = golden_reranker.rank(query, inputs, top_n=2)
    assert [document.index for document in ranked] == [document.index for document in expected]


def test_closing_ends_awaits(checkpoints: Path) -> None:
    forward = GatedForward()
    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward})

    async def run() -> None:
        tasks = [asyncio.ensure_future(embedder.aembed(f"text {number}")) for number in range(100)]
        while not forward.started.is_set():
            await asyncio.sleep(0.005)
        forward.resume.set()
        embedder.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert any(isinstance(result, RuntimeError) and "was closed" in str(result) for result in results)
        with pytest.raises(RuntimeError, match="was closed"):
            await embedder.aembed("later")

    asyncio.run(asyncio.wait_for(run(), 60))


def test_awaits_occupy_no_threads_and_are_prepared_within_a_window(checkpoints: Path) -> None:
    forward = GatedForward()
    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward}, batch_tokens=200)

    async def run() -> None:
        num_threads = threading.active_count()
        tasks = [asyncio.ensure_future(embedder.aembed(f"text {number}")) for number in range(2000)]
        while not forward.started.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert threading.active_count() <= num_threads + 8  # of the engine
        tokens = sum(queued.window_tokens for queued in ready(embedder.engine))
        most = request_queue.MAX_WINDOWS_FOR_NEW_CALLS * request_queue.WINDOW_BATCHES * 200 + 30
        assert 200 < tokens < most
        forward.resume.set()
        vectors = await asyncio.gather(*tasks)
        assert len(vectors) == 2000

    asyncio.run(asyncio.wait_for(run(), 120))


def test_stream_that_nobody_reads_does_not_block_other_callers(golden_embedder: Embedder) -> None:
    streams = [golden_embedder.stream(f"text {number} of stream {i}" for number in range(5000)) for i in range(6)]
    for stream in streams:
        next(stream)
    assert golden_embedder.embed(["a", "b"]).shape == (2, 96)
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


def test_texts_do_not_wait_for_threads_that_read_media(checkpoints: Path) -> None:
    inside, resume = threading.Event(), threading.Event()

    def fit_slowly(parts: Any, *args: Any) -> Any:
        from qwen3vl.processing.fitting import fit

        if "UnsizedImage" in str(parts):
            inside.set()
            resume.wait(60)
        return fit(parts, *args)

    embedder = embedder_with(checkpoints / "embedding", stages={"fit": fit_slowly}, threads=1)
    waiting = threading.Thread(target=embedder.embed, args=({"image": Image.new("RGB", (64, 64))},))
    waiting.start()
    try:
        assert inside.wait(60)
        assert embedder.embed(["a text"]).shape == (1, 96)
    finally:
        resume.set()
        waiting.join(60)


def test_event_loop_that_is_closed_does_not_stop_the_device(gated: tuple[Embedder, GatedForward]) -> None:
    embedder, forward = gated
    loop = asyncio.new_event_loop()
    outputs: Any = embedder.backend.aembed(iter([f"text {number}" for number in range(5)]), embedder.instruction)

    async def leave() -> None:
        first = asyncio.ensure_future(anext(outputs))
        while num_ready(embedder) < 5:
            await asyncio.sleep(0.005)
        first.cancel()

    loop.run_until_complete(leave())
    loop.close()
    forward.resume.set()
    assert embedder.embed(["a text"]).shape == (1, 96)
