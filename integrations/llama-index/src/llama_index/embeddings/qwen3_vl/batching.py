"""Embedding in batches, with LlamaIndex's events and rate limiter around each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.embeddings.multi_modal_base import MultiModalEmbedding
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.embeddings.qwen3_vl.results import Embedding, EmbedResult

dispatcher = get_dispatcher(__name__)
InputType = Literal["query", "document"]


class BatchedEmbedding(MultiModalEmbedding):
    """Base class of an embedding model: splits inputs into batches, with events and the rate limiter for each.

    A subclass, such as `Qwen3VLEmbedding`, provides `_embed`, which blocks, and `_aembed`. Its public methods call
    `_embed_batches` or `_embed_or_raise`, or their async counterparts.

    Example:
        ```python
        from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

        handler = LlamaDebugHandler(print_trace_on_end=False)
        callbacks = CallbackManager([handler])
        embed_model = Qwen3VLEmbedding(model_name="tiny", embed_batch_size=2, callback_manager=callbacks)
        embed_model.get_text_embedding_batch(["one", "two", "three"])
        assert len(handler.get_event_pairs(CBEventType.EMBEDDING)) == 2
        ```
    """

    # Not an abstract method: LlamaIndex would wrap every implementation in a span of its own.
    def _embed(self, inputs: Sequence[Any], input_type: InputType, show_progress: bool = False) -> EmbedResult:
        """Embed one batch. Each input is of a type that `Embedder.embed` accepts; one that fails is in the result."""
        raise NotImplementedError

    async def _aembed(self, inputs: Sequence[Any], input_type: InputType, show_progress: bool = False) -> EmbedResult:
        """Embed one batch as `_embed` does, without blocking the event loop."""
        raise NotImplementedError

    def _embed_or_raise(
        self, inputs: Sequence[Any], names: Sequence[str], input_type: InputType, show_progress: bool = False
    ) -> list[Embedding]:
        return self._embed_batches(inputs, names, input_type, show_progress).vectors_or_raise()

    async def _aembed_or_raise(
        self, inputs: Sequence[Any], names: Sequence[str], input_type: InputType, show_progress: bool = False
    ) -> list[Embedding]:
        return (await self._aembed_batches(inputs, names, input_type, show_progress)).vectors_or_raise()

    def _embed_batches(
        self, inputs: Sequence[Any], names: Sequence[str], input_type: InputType, show_progress: bool
    ) -> EmbedResult:
        """Embed any number of inputs in batches; `names` has the text that stands for each of them in events."""
        results: list[EmbedResult] = []
        limiter = getattr(self, "rate_limiter", None)  # added to LlamaIndex in 0.14.16
        for start in range(0, len(inputs), self.embed_batch_size):
            batch = slice(start, start + self.embed_batch_size)
            if limiter is not None:
                limiter.acquire()
            with self._events(names[batch]) as report:
                results.append(self._embed(inputs[batch], input_type, show_progress))
                report(results[-1])
        return EmbedResult.concat(results)

    async def _aembed_batches(
        self, inputs: Sequence[Any], names: Sequence[str], input_type: InputType, show_progress: bool
    ) -> EmbedResult:
        results: list[EmbedResult] = []
        limiter = getattr(self, "rate_limiter", None)
        for start in range(0, len(inputs), self.embed_batch_size):
            batch = slice(start, start + self.embed_batch_size)
            if limiter is not None:
                await limiter.async_acquire()
            with self._events(names[batch]) as report:
                results.append(await self._aembed(inputs[batch], input_type, show_progress))
                report(results[-1])
        return EmbedResult.concat(results)

    @contextmanager
    def _events(self, names: Sequence[str]) -> Iterator[Callable[[EmbedResult], None]]:
        """Send the start event of a batch, and yield a function that sends the end event with its result.

        Both instrumentation systems of LlamaIndex get the events: the dispatcher and the callback manager. If an
        exception is raised, only the callback manager ends the event.
        """
        model = self.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=model))
        with self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: model}) as event:

            def report(result: EmbedResult) -> None:
                embedded = [
                    (name, vector) for name, vector in zip(names, result.vectors, strict=True) if vector is not None
                ]
                chunks, vectors = [name for name, _ in embedded], [vector for _, vector in embedded]
                event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: vectors})
                dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=vectors))

            yield report
