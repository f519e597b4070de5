"""LlamaIndex's events and rate limiter around each batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

from qwen3vl import BatchError, MediaPolicy


class EmbeddingEvents(BaseEventHandler):
    """Keeps the embedding events it receives."""

    events: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    def handle(self, event: Any, **_: Any) -> None:
        if isinstance(event, (EmbeddingStartEvent, EmbeddingEndEvent)):
            self.events.append(event)


@pytest.fixture
def handler() -> Iterator[EmbeddingEvents]:
    received = EmbeddingEvents()
    root = get_dispatcher()
    root.add_event_handler(received)
    yield received
    root.event_handlers.remove(received)


async def test_every_method_sends_start_and_end_events(
    policy: MediaPolicy, library_folder: Path, handler: EmbeddingEvents
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=policy, callback_manager=CallbackManager([debug]))
    star, mover = str(library_folder / "star.png"), str(library_folder / "mover.mp4")
    cases: list[tuple[Any, Any, list[str]]] = [
        (embed_model.get_query_embedding, embed_model.aget_query_embedding, ["a"]),
        (embed_model.get_text_embedding, embed_model.aget_text_embedding, ["a"]),
        (embed_model.get_text_embedding_batch, embed_model.aget_text_embedding_batch, ["a", "b"]),
        (embed_model.get_image_embedding, embed_model.aget_image_embedding, [star]),
        (embed_model.get_image_embedding_batch, embed_model.aget_image_embedding_batch, [star, star]),
        (embed_model.get_video_embedding, embed_model.aget_video_embedding, [mover]),
    ]
    for blocking, awaited, chunks in cases:
        is_batch = "batch" in blocking.__name__
        argument: Any = chunks if is_batch else chunks[0]
        for method in (blocking, awaited):
            handler.events.clear()
            debug.flush_event_logs()
            result = method(argument)
            value = await result if asyncio.iscoroutine(result) else result
            start, end = handler.events
            assert start.model_dict["model_name"] == "tiny"
            assert (end.chunks, end.embeddings) == (chunks, value if is_batch else [value])
            ((_, callback_end),) = debug.get_event_pairs(CBEventType.EMBEDDING)
            assert callback_end.payload is not None
            assert callback_end.payload["chunks"] == chunks


def test_failed_call_ends_its_callback_event(policy: MediaPolicy) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=policy, callback_manager=CallbackManager([debug]))
    with pytest.raises(BatchError):
        embed_model.get_text_embedding("")
    pairs = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert [len(pair) for pair in pairs] == [2]


def test_events_describe_images_without_copying_them(
    embed_model: Qwen3VLEmbedding, library_folder: Path, handler: EmbeddingEvents
) -> None:
    embed_model.get_image_embedding(BytesIO((library_folder / "star.png").read_bytes()))
    assert "image of" in handler.events[1].chunks[0]


async def test_rate_limiter_is_asked_once_for_each_batch() -> None:
    rate_limiter = pytest.importorskip("llama_index.core.rate_limiter", reason="this LlamaIndex has no rate limiters")

    class CountingLimiter(rate_limiter.TokenBucketRateLimiter):  # type: ignore[name-defined,misc]
        blocking: int = 0
        awaited: int = 0

        def acquire(self, *args: Any, **kwargs: Any) -> None:
            self.blocking += 1
            super().acquire(*args, **kwargs)

        async def async_acquire(self, *args: Any, **kwargs: Any) -> None:
            self.awaited += 1
            await super().async_acquire(*args, **kwargs)

    limiter = CountingLimiter(requests_per_minute=600_000)
    embed_model = Qwen3VLEmbedding(model_name="tiny", rate_limiter=limiter, embed_batch_size=2)
    embed_model.get_text_embedding_batch(["a", "b", "c"])
    assert (limiter.blocking, limiter.awaited) == (2, 0)
    await embed_model.aget_text_embedding_batch(["a", "b", "c"])
    assert (limiter.blocking, limiter.awaited) == (2, 2)
