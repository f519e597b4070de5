"""The loop around the model: several devices, callers that leave, callers that wait for slow media, streams."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from qwen3vl import Embedder, MediaPolicy, Reranker
from qwen3vl.engine import engine as engine_module
from qwen3vl.engine.devices import choose_devices
from qwen3vl.engine.inflight import RunState
from qwen3vl.engine.memory import RECOVERY, Budget, token_budget, token_bytes
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.worker import OVERTAKING, DeviceWorker
from tests.conftest import CASES, REFERENCE, resolve
from tests.test_golden import EMBED, RERANK, check

TWO = "cpu,cpu"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Replica, int]]:
    """(replica, tokens) of the packs that were run."""
    found: list[tuple[Replica, int]] = []
    run = Replica.execute

    def noted(self: Replica, pack: Any, *given: Any, **options: Any) -> Any:
        found.append((self, pack.tokens))
        return run(self, pack, *given, **options)

    monkeypatch.setattr(Replica, "execute", noted)
    return found


def test_golden_answers_on_two_devices(
    checkpoints: Path, media: dict[str, Path], started: list[tuple[Replica, int]]
) -> None:
    embedder = Embedder(checkpoints / "embedding", device=TWO, batch_tokens=700)
    names = Random(5).sample(EMBED, len(EMBED))
    for name, vector in zip(
        names, embedder.embed([resolve(CASES["embed"][name], media) for name in names]), strict=True
    ):
        check(name, vector)
    tokens = {replica: sum(count for each, count in started if each is replica) for replica in embedder.engine.replicas}
    assert len(tokens) == 2
    assert min(tokens.values()) > sum(tokens.values()) / 8  # packs differ in length: a clip's is a third of all
    reranker = Reranker(checkpoints / "reranker", device=TWO, batch_tokens=300)
    for name in RERANK:
        case = CASES["rerank"][name]
        if case.get("checkpoint", "reranker") == "reranker":
            documents = [resolve(document, media) for document in case["documents"]]
            scores = reranker.score(resolve(case["query"], media), documents, instruction=case.get("instruction"))
            np.testing.assert_allclose(scores, REFERENCE["rerank"][name]["scores"], atol=1e-5, rtol=0)


def test_devices(checkpoints: Path, golden_embedder: Embedder) -> None:
    assert [device.type for device in choose_devices("cpu, cpu")] == ["cpu", "cpu"]
    with pytest.raises(ValueError, match="the device 'mars' cannot be used"):
        choose_devices("cpu,mars")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="the device 'cuda' cannot be used"):
            choose_devices("cuda:all")
    two = Embedder(checkpoints / "embedding", device=TWO)
    assert two.engine.replicas[0] is golden_embedder.engine.replicas[0]
    assert two.engine.replicas[1].model is golden_embedder.engine.model


def test_a_budget_for_the_memory(golden_embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert budgets[1] * token_bytes(config, torch.bfloat16) < 2**28
    assert token_budget(config, torch.device("cpu"), torch.float32, 0) == 4096


def test_a_budget_that_shrinks_and_recovers() -> None:
    budget = Budget(8000)
    budget.shrink(7000)
    assert budget.tokens == 3500
    for _ in range(10):
        budget.shrink(1100)
    assert budget.tokens == 1024
    for _ in range(RECOVERY):
        budget.fitted(100)
    assert budget.tokens == 1024  # small packs prove nothing
    for _ in range(3 * RECOVERY):
        budget.fitted(budget.tokens)
    assert budget.tokens == 8000
    small = Budget(100)
    small.shrink(90)
    assert small.tokens == 100


def test_callers_share_the_devices(
    checkpoints: Path, started: list[tuple[Replica, int]], media: dict[str, Path]
) -> None:
    """While one caller's pack runs on the first device, another caller's goes to the second."""
    embedder = Embedder(checkpoints / "embedding", device=TWO)
    busy, go = threading.Event(), threading.Event()
    layer: Any = embedder.engine.model.language_model.layers[0]

    def hold(*_: Any) -> None:
        if not busy.is_set():
            busy.set()
            go.wait(20)

    hook = layer.register_forward_pre_hook(hold)
    first = threading.Thread(target=embedder.embed, args=(["one"],))
    try:
        first.start()
        assert busy.wait(20)
        embedder.embed(["two"])
    finally:
        go.set()
        first.join(20)
        hook.remove()
    assert {replica for replica, _ in started} == set(embedder.engine.replicas)
    assert [replica.worker.tokens for replica in embedder.engine.replicas] == [0, 0]


def test_a_query_does_not_wait_for_a_collection() -> None:
    """Small work goes first, and even the largest is not overtaken for ever."""
    worker = DeviceWorker(torch.device("cpu"))
    stop, gate = threading.Event(), threading.Event()
    order: list[Any] = []
    threads = torch.get_num_threads()
    futures: list[Any] = [worker.submit(lambda: gate.wait(20), stop, 0, threads)]
    futures += [worker.submit(partial(order.append, name), stop, 1 << 20, threads) for name in ("large", "larger")]
    futures += [worker.submit(partial(order.append, number), stop, 20, threads) for number in range(3 * OVERTAKING)]
    gate.set()
    for future in futures:
        future.result(20)
    assert [each for each in order if isinstance(each, int)] == list(range(3 * OVERTAKING))
    assert OVERTAKING - 2 <= order.index("large") < order.index("larger") <= OVERTAKING + 1


def test_a_caller_that_leaves(
    checkpoints: Path, golden_embedder: Embedder, started: list[tuple[Replica, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is closed stops the model at its next layer, and what it would have run is not run."""
    embedder = Embedder(checkpoints / "embedding", device="cpu", batch_tokens=40)
    inside = threading.Event()
    go = threading.Event()
    layers: Any = embedder.engine.model.language_model.layers
    passed: list[int] = []
    beyond: list[bool] = []

    def slow(*_: Any) -> None:
        passed.append(1)
        if len(passed) == 3:
            inside.set()
            go.wait(20)

    hooks = [layers[1].register_forward_pre_hook(slow)]
    hooks.append(layers[3].register_forward_pre_hook(lambda *_: beyond.append(go.is_set())))
    try:
        stream: Any = embedder.stream(f"text number {number} of many" for number in range(10_000))
        next(stream)
        assert inside.wait(20)
        stream.close()
        go.set()
        worker = embedder.engine.replicas[0].worker
        worker.submit(lambda: None, threading.Event(), 1 << 20, 1).result(20)  # behind what was stopped
        assert not any(beyond)
        assert worker.tokens == 0
        np.testing.assert_allclose(embedder.embed(["again"]), golden_embedder.embed(["again"]), atol=2e-6)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(started) < 12
    assert embedder.engine.stats.packs < 12


def test_slow_media_hold_nobody_up(checkpoints: Path, media: dict[str, Path]) -> None:
    """While one caller waits for a picture, the device serves others."""
    gate, inside = threading.Event(), threading.Event()
    embedder = Embedder(checkpoints / "embedding", device="cpu", policy=MediaPolicy(), vision_cache=0, threads=2)
    decode = embedder.engine._decode

    def held(planned: Any) -> Any:
        inside.set()
        gate.wait(60)
        return decode(planned)

    embedder.engine._decode = held  # type: ignore[assignment,method-assign]
    seen: list[Any] = []
    waiting = threading.Thread(target=lambda: seen.append(embedder.embed([{"image": media["odd"]}])))
    waiting.start()
    try:
        assert inside.wait(60)
        assert embedder.embed(["a text"]).shape == (1, 96)
        assert not seen
    finally:
        gate.set()
        waiting.join(60)
    assert seen[0].shape == (1, 96)


def test_inputs_are_taken_on_the_callers_thread(golden_embedder: Embedder) -> None:
    """As a cursor of SQLite, say, has to be."""
    threads = set()

    def inputs() -> Iterator[str]:
        for number in range(100):
            threads.add(threading.current_thread())
            yield f"text {number}"

    assert len(golden_embedder.embed(inputs())) == 100
    assert threads == {threading.current_thread()}


def test_a_slow_source_is_not_waited_for(golden_embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result comes while the source is still at the next inputs."""
    monkeypatch.setattr(engine_module, "MAX_BATCH_WAIT_S", 0.0)
    taken = 0

    def inputs() -> Iterator[str]:
        nonlocal taken
        for taken in range(1, 6):
            yield f"text {taken}"
            time.sleep(0.3)

    found = {index: taken for index, _ in golden_embedder.stream(inputs())}
    assert sorted(found) == list(range(5))
    assert found[0] < 5


def test_a_thousand_mixed(golden_embedder: Embedder, media: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One call: order kept, a failing item costs only itself, and no more packs wait than are allowed."""
    waiting: list[int] = []
    land = RunState.wait_any

    def noted(self: RunState) -> Any:
        waiting.append(len(self.in_flight))
        return land(self)

    monkeypatch.setattr(RunState, "wait_any", noted)
    random = Random(7)
    shown = [media["odd"], media["photo"], media["photo-jpeg"]]
    inputs: list[Any] = []
    for number in range(1200):
        kind = random.randrange(10)
        text = f"item {number} of many"
        inputs.append("" if kind == 0 else {"image": random.choice(shown), "text": text} if kind == 1 else text)
    batch = golden_embedder.embed(inputs, on_error="collect")
    assert [error.index for error in batch.errors] == [index for index, value in enumerate(inputs) if value == ""]
    assert 1 < max(waiting) <= engine_module.PREFETCH_BATCHES + 2
    for index in random.sample(range(len(inputs)), 20):
        if batch.ok[index]:
            np.testing.assert_allclose(batch.values[index], golden_embedder.embed([inputs[index]])[0], atol=2e-6)


def test_waiting_is_counted(checkpoints: Path, media: dict[str, Path]) -> None:
    embedder = Embedder(checkpoints / "embedding", device="cpu", vision_cache=0)
    decode = embedder.engine._decode

    def slow(planned: Any) -> Any:
        time.sleep(0.2)
        return decode(planned)

    embedder.engine._decode = slow  # type: ignore[assignment,method-assign]
    embedder.embed([{"image": media["odd"]}])
    assert embedder.engine.stats.seconds_waiting >= 0.2


FORKING = """
import asyncio, os, sys
from qwen3vl import Embedder
from qwen3vl.concurrency.executor import run_in_executor

embedder = Embedder("tiny", device="cpu")
before = embedder.embed(["a red circle", "a blue square"])
child = os.fork()
if child == 0:
    again = embedder.embed(["a red circle", "a blue square"])
    awaited = asyncio.run(run_in_executor(embedder.embed, ["a red circle", "a blue square"]))
    os._exit(0 if (again == before).all() and (awaited == before).all() else 3)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_goes_on() -> None:
    """As workers of web servers and of process pools are: with the parent's model, by threads of their own."""
    assert subprocess.run([sys.executable, "-c", FORKING], timeout=120, check=False).returncode == 0
