"""Engines with other stages than the real ones, and devices that are busy until a test lets them go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from qwen3vl import Embedder, Reranker
from qwen3vl.engine import Engine
from qwen3vl.engine.calls import QueuedRequest
from qwen3vl.engine.replica import Replica

ModelT = TypeVar("ModelT", Embedder, Reranker)


def embedder_with(folder: Path, *, stages: dict[str, Any], **settings: Any) -> Embedder:
    """Return an embedder whose engine calls the given `fit`, `decode` or `forward`."""
    return with_stages(Embedder(folder, device=settings.pop("device", "cpu"), **settings), stages)


def with_stages(model: ModelT, stages: dict[str, Any]) -> ModelT:
    """Give a model an engine that calls the given `fit`, `decode` or `forward`."""
    engine, backend = model.engine, cast("Any", model.backend)
    backend.engine = Engine(engine.checkpoint, engine.settings, engine.limits, **stages)
    return model


def assert_close(vectors: Any, expected: Any) -> None:
    """Check that vectors or scores are equal, but for rounding, which depends on what else is in a batch."""
    np.testing.assert_allclose(vectors, expected, atol=5e-6, rtol=0)


class GatedForward:
    """Runs forward passes, the first of them only when `resume` is set, and records the prompts of each."""

    def __init__(self) -> None:
        self.num_prompts: list[int] = []
        self.started, self.resume = threading.Event(), threading.Event()

    def __call__(self, replica: Replica, pack: Any, *args: Any, **options: Any) -> Any:
        self.num_prompts.append(len(pack.prompt_indices))
        if not self.started.is_set():
            self.started.set()
            self.resume.wait(60)
        return replica.execute(pack, *args, **options)


@contextmanager
def busy_embedder(folder: Path) -> Iterator[tuple[Embedder, GatedForward]]:
    """Yield an embedder that keeps the CPU busy for all models with the text "first", until `resume` is set."""
    forward = GatedForward()
    embedder = embedder_with(folder, stages={"forward": forward})
    first = threading.Thread(target=embedder.embed, args=("first",))
    first.start()
    try:
        assert forward.started.wait(60)
        yield embedder, forward
    finally:
        forward.resume.set()
        first.join(60)


def ready(engine: Engine) -> list[QueuedRequest]:
    """Return the requests that wait only for a device."""
    return [queued for call in list(engine._scheduler._queue._ready_calls) for queued in list(call.ready)]


async def until_ready(engine: Engine, num_requests: int) -> None:
    """Wait until as many requests wait for a device."""
    async with asyncio.timeout(20):
        while len(ready(engine)) < num_requests:
            await asyncio.sleep(0.005)


async def await_while_busy(
    folder: Path, engine: Engine, calls: Sequence[Coroutine[Any, Any, Any]], num_requests: int
) -> tuple[list[Any], int]:
    """Await calls at once, which get the device only when all their requests are ready.

    Args:
        folder: The checkpoint of the model that keeps the device busy until then.
        engine: The engine that the calls use.
        calls: The calls.
        num_requests: Number of their requests.

    Returns:
        Their results, and the number of forward passes.
    """
    packs = engine.stats.packs
    with busy_embedder(folder) as (_, forward):
        tasks = [asyncio.ensure_future(call) for call in calls]
        try:
            await until_ready(engine, num_requests)
        finally:
            forward.resume.set()
        results = await asyncio.gather(*tasks)
    return results, engine.stats.packs - packs
