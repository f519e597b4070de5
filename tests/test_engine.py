"""The engine around the model: several devices, scheduling, cancellation, slow media, streams, forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qwen3vl import Embedder, Reranker
from qwen3vl.engine import Engine, request_queue
from qwen3vl.engine.devices import choose_devices, choose_dtype
from qwen3vl.engine.media_decoder import load_pixels
from qwen3vl.engine.memory import RECOVERY_BATCHES, TokenBudget, bytes_per_token, token_budget
from qwen3vl.engine.replica import Replica
from tests.conftest import CASES, REFERENCE, resolve
from tests.support.engines import embedder_with
from tests.test_golden import EMBED, RERANK, check

TWO_DEVICES = "cpu,cpu"


class RecordingForward:
    """Runs forward passes and records (replica, number of tokens) of each."""

    def __init__(self) -> None:
        self.passes: list[tuple[Replica, int]] = []

    def __call__(self, replica: Replica, pack: Any, *args: Any, **options: Any) -> Any:
        self.passes.append((replica, pack.num_tokens))
        return replica.execute(pack, *args, **options)


def test_golden_vectors_and_scores_on_two_devices(checkpoints: Path, media: dict[str, Path]) -> None:
    forward = RecordingForward()
    embedder = embedder_with(
        checkpoints / "embedding", stages={"forward": forward}, device=TWO_DEVICES, batch_tokens=700
    )
    names = Random(5).sample(EMBED, len(EMBED))
    vectors = embedder.embed([resolve(CASES["embed"][name], media) for name in names])
    for name, vector in zip(names, vectors, strict=True):
        check(name, vector)
    tokens = [sum(count for used, count in forward.passes if used is replica) for replica in embedder.engine.replicas]
    assert len(tokens) == 2
    assert min(tokens) > sum(tokens) / 8  # batches differ in size: that of a video has a third of all tokens
    reranker = Reranker(checkpoints / "reranker", device=TWO_DEVICES, batch_tokens=300)
    for name in RERANK:
        case = CASES["rerank"][name]
        if case.get("checkpoint", "reranker") == "reranker":
            documents = [resolve(document, media) for document in case["documents"]]
            scores = reranker.score(resolve(case["query"], media), documents, instruction=case.get("instruction"))
            np.testing.assert_allclose(scores, REFERENCE["rerank"][name]["scores"], atol=1e-5, rtol=0)


def test_devices_are_chosen_by_name_and_share_weights(checkpoints: Path, golden_embedder: Embedder) -> None:
    assert [device.type for device in choose_devices("cpu, cpu")] == ["cpu", "cpu"]
    with pytest.raises(ValueError, match="the device 'mars' cannot be used"):
        choose_devices("cpu,mars")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="the device 'cuda' cannot be used"):
            choose_devices("cuda:all")
    embedder = Embedder(checkpoints / "embedding", device=TWO_DEVICES)
    assert embedder.engine.replicas[0] is golden_embedder.engine.replicas[0]
    assert embedder.engine.replicas[1].model is golden_embedder.engine.model


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_auto_is_bfloat16_only_on_gpus_that_have_it(has_bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bfloat16, torch emulates it slowly. The question to the GPU is replaced: there may be none here."""
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16 or including_emulation
    )
    expected = torch.bfloat16 if has_bfloat16 else torch.float32
    gpu = torch.device("cuda", 0)
    assert [choose_dtype(name, gpu) for name in ("auto", "int8", "fp8")] == [
        (expected, None),
        (expected, "int8"),
        (expected, "fp8"),
    ]
    assert choose_dtype("bfloat16", gpu) == (torch.bfloat16, None)
    assert choose_dtype("auto", torch.device("cpu")) == (torch.float32, None)


def test_token_budget_grows_with_free_memory(golden_embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    config = golden_embedder.engine.model.config
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    budgets = []
    for free in (2**20, 2**28, 2**40):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
        budgets.append(token_budget(config, device, torch.bfloat16, 0))
    assert budgets[0] == 1024
    assert budgets[0] < budgets[1] < budgets[2]
    assert budgets[1] * bytes_per_token(config, torch.bfloat16) < 2**28
    assert token_budget(config, torch.device("cpu"), torch.float32, 0) == 4096


def test_token_budget_shrinks_and_recovers() -> None:
    budget = TokenBudget(8000)
    budget.shrink(7000)
    assert budget.tokens == 3500
    for _ in range(10):
        budget.shrink(1100)
    assert budget.tokens == 1024
    for _ in range(RECOVERY_BATCHES):
        budget.record_success(100)
    assert budget.tokens == 1024  # small batches prove nothing
    for _ in range(3 * RECOVERY_BATCHES):
        budget.record_success(budget.tokens)
    assert budget.tokens == 8000
    small = TokenBudget(100)
    small.shrink(90)
    assert small.tokens == 100


def test_second_caller_gets_the_idle_device(checkpoints: Path) -> None:
    forward = RecordingForward()
    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward}, device=TWO_DEVICES)
    busy, resume = threading.Event(), threading.Event()
    layer: Any = embedder.engine.model.language_model.layers[0]

    def block_first(*_: Any) -> None:
        if not busy.is_set():
            busy.set()
            resume.wait(20)

    hook = layer.register_forward_pre_hook(block_first)
    first = threading.Thread(target=embedder.embed, args=(["one"],))
    try:
        first.start()
        assert busy.wait(20)
        embedder.embed(["two"])
    finally:
        resume.set()
        first.join(20)
        hook.remove()
    assert {replica for replica, _ in forward.passes} == set(embedder.engine.replicas)


def test_closing_a_stream_stops_the_model_at_its_next_layer(checkpoints: Path, golden_embedder: Embedder) -> None:
    """What was dispatched but did not run is not run, and the device goes on serving others."""
    forward = RecordingForward()
    embedder = embedder_with(checkpoints / "embedding", stages={"forward": forward}, batch_tokens=40)
    inside, resume = threading.Event(), threading.Event()
    layers: Any = embedder.engine.model.language_model.layers
    num_passes = 0
    later_layers_ran_after_closing: list[bool] = []

    def block_third_pass(*_: Any) -> None:
        nonlocal num_passes
        num_passes += 1
        if num_passes == 3:
            inside.set()
            resume.wait(20)

    hooks = [
        layers[1].register_forward_pre_hook(block_third_pass),
        layers[3].register_forward_pre_hook(lambda *_: later_layers_ran_after_closing.append(resume.is_set())),
    ]
    try:
        stream: Any = embedder.stream(f"text number {number} of many" for number in range(10_000))
        next(stream)
        assert inside.wait(20)
        stream.close()
        resume.set()
        num_layers_run = len(later_layers_ran_after_closing)
        vectors = embedder.embed(["again"])  # behind the work that was stopped
        assert not any(later_layers_ran_after_closing[:num_layers_run])
        assert later_layers_ran_after_closing[num_layers_run:] == [True]
        np.testing.assert_allclose(vectors, golden_embedder.embed(["again"]), atol=2e-6)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(forward.passes) < 12
    assert embedder.engine.stats.packs < 12


def test_slow_media_of_one_caller_do_not_delay_others(checkpoints: Path, media: dict[str, Path]) -> None:
    resume, inside = threading.Event(), threading.Event()

    def blocking_decode(sized: Any) -> Any:
        inside.set()
        resume.wait(60)
        return load_pixels(sized)

    embedder = embedder_with(checkpoints / "embedding", stages={"decode": blocking_decode}, vision_cache=0, threads=2)
    vectors: list[Any] = []
    waiting = threading.Thread(target=lambda: vectors.append(embedder.embed([{"image": media["odd"]}])))
    waiting.start()
    try:
        assert inside.wait(60)
        assert embedder.embed(["a text"]).shape == (1, 96)
        assert not vectors
    finally:
        resume.set()
        waiting.join(60)
    assert vectors[0].shape == (1, 96)


def test_inputs_are_taken_on_the_callers_thread(golden_embedder: Embedder) -> None:
    """Some iterators demand it, such as a cursor of sqlite3."""
    threads = set()

    def inputs() -> Iterator[str]:
        for number in range(100):
            threads.add(threading.current_thread())
            yield f"text {number}"

    assert len(golden_embedder.embed(inputs())) == 100
    assert threads == {threading.current_thread()}


def test_results_of_a_slow_source_come_before_its_end(golden_embedder: Embedder) -> None:
    num_taken = 0

    def inputs() -> Iterator[str]:
        nonlocal num_taken
        for num_taken in range(1, 6):
            yield f"text {num_taken}"
            time.sleep(0.3)

    taken_at_result = {index: num_taken for index, _ in golden_embedder.stream(inputs())}
    assert sorted(taken_at_result) == list(range(5))
    assert taken_at_result[0] < 5


def test_large_mixed_call_keeps_order_and_isolates_errors(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    random = Random(7)
    images = [media["odd"], media["photo"], media["photo-jpeg"]]
    inputs: list[Any] = []
    for number in range(1200):
        kind = random.randrange(10)
        text = f"item {number} of many"
        inputs.append("" if kind == 0 else {"image": random.choice(images), "text": text} if kind == 1 else text)
    batch = golden_embedder.embed(inputs, on_error="collect")
    assert [error.index for error in batch.errors] == [index for index, value in enumerate(inputs) if value == ""]
    for index in random.sample(range(len(inputs)), 20):
        if batch.ok[index]:
            np.testing.assert_allclose(batch.values[index], golden_embedder.embed([inputs[index]])[0], atol=2e-6)


def test_number_of_batches_in_flight_is_bounded(checkpoints: Path) -> None:
    """While the device is busy, media of `PREFETCH_BATCHES` batches are decoded, and of no more."""
    resume = threading.Event()
    decoded: list[str] = []
    most_in_flight = request_queue.PREFETCH_BATCHES

    def counting_decode(sized: Any) -> Any:
        decoded.append(sized.name)
        return load_pixels(sized)

    def blocking_forward(replica: Replica, *args: Any, **options: Any) -> Any:
        resume.wait(60)
        return replica.execute(*args, **options)

    embedder = embedder_with(
        checkpoints / "embedding",
        stages={"decode": counting_decode, "forward": blocking_forward},
        vision_cache=0,
        batch_tokens=1,  # a batch for each input
    )
    images = [{"image": Image.new("RGB", (64, 64), (20 * number, 0, 0))} for number in range(12)]
    caller = threading.Thread(target=embedder.embed, args=(images,))
    caller.start()
    try:
        deadline = time.monotonic() + 30
        while len(decoded) < most_in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(decoded) == most_in_flight
    finally:
        resume.set()
        caller.join(60)
    assert len(decoded) == len(images)


def test_waiting_for_media_is_counted(checkpoints: Path, media: dict[str, Path]) -> None:
    def slow_decode(sized: Any) -> Any:
        time.sleep(0.2)
        return load_pixels(sized)

    embedder = embedder_with(checkpoints / "embedding", stages={"decode": slow_decode}, vision_cache=0)
    embedder.embed([{"image": media["odd"]}])
    assert embedder.engine.stats.seconds_waiting >= 0.2


def test_error_of_the_tokenizer_is_an_item_error(checkpoints: Path) -> None:
    from qwen3vl.processing.fitting import fit

    def failing_fit(parts: Any, *args: Any) -> Any:
        if "bad" in str(parts):
            raise RuntimeError("the tokenizer failed")
        return fit(parts, *args)

    embedder = embedder_with(checkpoints / "embedding", stages={"fit": failing_fit})
    batch = embedder.embed(["good", "bad"], on_error="collect")
    assert batch.ok.tolist() == [True, False]
    assert batch.errors[0].reason == "RuntimeError: the tokenizer failed"


def test_engine_is_not_copied(golden_embedder: Embedder) -> None:
    """Frameworks deep-copy objects that hold a model; the copy must not load it again."""
    import copy

    engine: Engine = golden_embedder.engine
    assert copy.deepcopy(engine) is engine


FORK = """
import asyncio, os, sys
from qwen3vl import Embedder
from qwen3vl.concurrency.executor import run_in_executor

embedder = Embedder("tiny", device="cpu")
before = embedder.embed(["a red circle", "a blue square"])
child = os.fork()
if child == 0:
    again = embedder.embed(["a red circle", "a blue square"])
    awaited = asyncio.run(run_in_executor(embedder.embed, ["a red circle", "a blue square"]))
    os._exit(0 if max(abs(again - before).max(), abs(awaited - before).max()) < 1e-5 else 3)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_uses_the_model_with_threads_of_its_own() -> None:
    """As workers of web servers and process pools do."""
    assert subprocess.run([sys.executable, "-c", FORK], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("name", ["batch_tokens", "threads"])
@pytest.mark.parametrize("value", [0, -1])
def test_batches_and_threads_that_do_nothing_are_refused(name: str, value: int) -> None:
    """With a negative `batch_tokens`, no request would ever be admitted."""
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least 1, or None"):
        Embedder("tiny", device="cpu", **settings)
