"""When weights are freed: closing of models, shared weights, calls that are running, the registry, forks."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen3vl import Embedder, Reranker
from qwen3vl.adapters import registry as registry_module
from qwen3vl.adapters.registry import MODELS, ModelRegistry
from tests.support.engines import embedder_with

CLOSED = "this model was closed"


@pytest.fixture(scope="module")
def folder(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints that no other test has loaded: equal files would share weights with session-wide models."""
    folder = shutil.copytree(checkpoints, tmp_path_factory.mktemp("own") / "checkpoints")
    for name in ("embedding", "reranker"):
        with (folder / name / "config.json").open("a", encoding="utf-8") as config:
            config.write("\n")
    return folder


def assert_is_freed_soon(reference: weakref.ref[Any]) -> None:
    """Wait up to 5 seconds for other threads to let go of an object."""
    deadline = time.monotonic() + 5
    while reference() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_the_last_user_frees_the_weights(folder: Path) -> None:
    embedder = Embedder(folder / "embedding", device="cpu")
    embedder.embed(["a text", {"image": Image.new("RGB", (64, 64), "red")}])
    model = weakref.ref(embedder.engine.model)
    weight = weakref.ref(embedder.engine.model.language_model.embed_tokens.weight)
    embedder.close()
    assert model() is None
    assert weight() is None


def test_weights_live_while_another_object_uses_them(folder: Path) -> None:
    first, second = (Embedder(folder / "embedding", device="cpu") for _ in range(2))
    model = weakref.ref(first.engine.model)
    expected = first.embed(["a text"])
    first.close()
    assert model() is not None
    np.testing.assert_array_equal(second.embed(["a text"]), expected)
    second.close()
    assert model() is None


def test_dropping_the_last_user_without_closing_frees_the_weights(folder: Path) -> None:
    embedder = Embedder(folder / "embedding", device="cpu")
    embedder.embed(["a text"])
    model = weakref.ref(embedder.engine.model)
    del embedder
    assert_is_freed_soon(model)  # the device's threads may still be returning from the call


def test_one_more_device_shares_weights_that_are_loaded(folder: Path) -> None:
    """Also if the object that loaded them for the first device is closed."""
    both = Embedder(folder / "embedding", device="cpu,cpu")
    assert both.engine.replicas[0] is not both.engine.replicas[1]
    second = both.engine.replicas[1]
    both.close()
    model = second.model
    embedder = Embedder(folder / "embedding", device="cpu")
    assert embedder.engine.model is model
    embedder.close()


def test_context_manager_closes(folder: Path) -> None:
    with Embedder(folder / "embedding", device="cpu") as embedder:
        assert embedder.embed(["a text"]).shape == (1, 96)
        assert not embedder.closed
    assert embedder.closed
    with Reranker(folder / "reranker", device="cpu") as reranker:
        assert reranker.score("a", ["b"]).shape == (1,)
        model = weakref.ref(reranker.engine.model)
    assert reranker.closed
    assert model() is None


def test_use_after_close_raises_and_closing_twice_does_not(folder: Path) -> None:
    embedder = Embedder(folder / "embedding", device="cpu")
    recipe, stats = embedder.recipe, embedder.engine.stats
    embedder.close()
    embedder.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        embedder.embed(["a text"])
    with pytest.raises(RuntimeError, match=CLOSED):
        next(embedder.stream(["a text"]))
    with pytest.raises(RuntimeError, match=CLOSED):
        _ = embedder.engine.model
    with pytest.raises(RuntimeError, match=CLOSED):
        _ = embedder.engine.tokenizer
    embedder.engine.clear_vision_cache()
    assert (embedder.recipe, embedder.engine.stats) == (recipe, stats)
    reranker = Reranker(folder / "reranker", device="cpu")
    reranker.close()
    with pytest.raises(RuntimeError, match=CLOSED):
        reranker.score("a query", ["a document"])


def run_in_thread(embedder: Embedder, inputs: Any) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def call() -> None:
        try:
            embedder.embed(inputs)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, errors


def assert_ends_with_closed_error(thread: threading.Thread, errors: list[BaseException]) -> None:
    thread.join(20)
    assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, RuntimeError)
    assert CLOSED in str(error)


def test_closing_stops_a_forward_pass_and_frees_the_weights(folder: Path) -> None:
    embedder = Embedder(folder / "embedding", device="cpu", batch_tokens=1)
    inside, resume = threading.Event(), threading.Event()
    model = embedder.engine.model
    reference = weakref.ref(model)

    def block(*_: Any) -> None:
        inside.set()
        resume.wait(20)

    model.language_model.layers[0].register_forward_pre_hook(block)
    del model
    thread, errors = run_in_thread(embedder, [f"text {number}" for number in range(10)])
    assert inside.wait(20)
    threading.Timer(0.2, resume.set).start()
    embedder.close()  # waits for the layer
    assert reference() is None
    assert_ends_with_closed_error(thread, errors)


@pytest.mark.parametrize("stage", ["decode", "fit"])
def test_closing_wakes_a_call_that_waits_for_media_threads(folder: Path, stage: str) -> None:
    inside, resume = threading.Event(), threading.Event()

    def block(*_: Any) -> Any:
        inside.set()
        resume.wait(60)
        raise AssertionError("nobody takes the result")

    embedder = embedder_with(folder / "embedding", stages={stage: block}, vision_cache=0, threads=1)
    reference = weakref.ref(embedder.engine.model)
    images = [Image.new("RGB", (64, 64), (number, 0, 0)) for number in range(40)]
    thread, errors = run_in_thread(embedder, images)
    try:
        assert inside.wait(20)
        began = time.monotonic()
        embedder.close()
        assert_ends_with_closed_error(thread, errors)
        assert time.monotonic() - began < 10
    finally:
        resume.set()
    assert_is_freed_soon(reference)  # the blocked thread still refers to the batch


def test_closing_ends_a_suspended_stream_and_frees_the_weights(folder: Path) -> None:
    embedder = Embedder(folder / "embedding", device="cpu", batch_tokens=1)
    reference = weakref.ref(embedder.engine.model)

    def inputs() -> Iterator[str]:
        yield from (f"text {number}" for number in range(1000))

    stream = embedder.stream(inputs())
    next(stream)
    embedder.close()
    assert reference() is None
    with pytest.raises(RuntimeError, match=CLOSED):
        list(stream)


def test_closing_one_of_two_users_leaves_the_others_calls_alone(folder: Path) -> None:
    first, second = (Embedder(folder / "embedding", device="cpu", batch_tokens=1) for _ in range(2))
    texts = [f"text {number}" for number in range(30)]
    expected = second.embed(texts)
    stream = first.stream(texts * 10)
    next(stream)
    vectors: list[Any] = []
    other = threading.Thread(target=lambda: vectors.append(second.embed(texts)))
    other.start()
    first.close()
    other.join(60)
    np.testing.assert_allclose(vectors[0], expected, atol=2e-6)
    second.close()


def test_registry_loads_anew_after_release(folder: Path) -> None:
    arguments: dict[str, Any] = {"model": str(folder / "embedding"), "device": "cpu"}
    first = MODELS.embedder(keep=True, **arguments)
    assert MODELS.embedder(**arguments) is first
    expected = first.embed(["a text"])
    model = weakref.ref(first.engine.model)
    MODELS.release()
    assert first.closed
    assert model() is None
    second = MODELS.embedder(**arguments)
    assert second is not first
    np.testing.assert_array_equal(second.embed(["a text"]), expected)
    second.close()


async def test_registry_returns_a_loaded_model_at_once_and_waits_for_others_off_the_loop(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry()
    arguments: dict[str, Any] = {"model": str(folder / "embedding"), "device": "cpu"}
    loading, resume = threading.Event(), threading.Event()
    initialize = Embedder.__init__

    def load_slowly(*args: Any, **kwargs: Any) -> None:
        loading.set()
        assert resume.wait(60)
        initialize(*args, **kwargs)

    monkeypatch.setattr(Embedder, "__init__", load_slowly)
    with ThreadPoolExecutor(1) as pool:
        in_thread = pool.submit(registry.embedder, **arguments)
        assert await asyncio.to_thread(loading.wait, 60)
        awaited = [asyncio.ensure_future(registry.aembedder(**arguments)) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in awaited)
        resume.set()
        model = in_thread.result(60)
        assert all(other is model for other in await asyncio.gather(*awaited))
    monkeypatch.setattr(registry_module, "run_in_executor", None)
    assert await registry.aembedder(**arguments) is model
    monkeypatch.undo()
    model.close()
    again = await registry.aembedder(keep=True, **arguments)
    assert again is not model
    assert registry.embedder(**arguments) is again
    registry.release()
    assert again.closed


FORK = """
import os, sys
from qwen3vl import Embedder

closed, open_ = (Embedder("tiny", device="cpu") for _ in range(2))
expected = open_.embed(["a red circle"])
closed.close()
child = os.fork()
if child == 0:
    code = 3
    try:
        closed.embed(["a red circle"])
    except RuntimeError as error:
        code = 0 if "this model was closed" in str(error) else 4
    if (open_.embed(["a red circle"]) != expected).any():
        code = 5
    open_.close()
    os._exit(code)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_closed_model_stays_closed_in_a_forked_process() -> None:
    assert subprocess.run([sys.executable, "-c", FORK], timeout=120, check=False).returncode == 0


FORK_WHILE_LOADING = """
import os, signal, sys, threading
import qwen3vl.embedder
from qwen3vl.adapters.registry import ModelRegistry

loading, may_load = threading.Event(), threading.Event()
parent = os.getpid()


class Embedder(qwen3vl.embedder.Embedder):
    def __init__(self, *args, **options):
        if os.getpid() == parent:
            loading.set()
            may_load.wait()
        super().__init__(*args, **options)


qwen3vl.embedder.Embedder = Embedder
registry = ModelRegistry()
thread = threading.Thread(target=registry.embedder, kwargs={"model": "tiny", "device": "cpu"})
thread.start()
loading.wait()
child = os.fork()
if child == 0:
    signal.alarm(100)  # ends a process that waits for the thread, which it does not have
    os._exit(0 if registry.embedder(model="tiny", device="cpu").embed(["a red circle"]).size else 3)
_, status = os.waitpid(child, 0)
may_load.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_process_that_is_forked_while_a_model_loads_loads_it_itself() -> None:
    command = [sys.executable, "-c", FORK_WHILE_LOADING]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0
