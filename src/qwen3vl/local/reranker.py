"""`LocalReranker`: the backend of a `Reranker` whose model runs in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine import Engine, UnparsedRequest
from qwen3vl.errors import query_error
from qwen3vl.inputs import Input, Item
from qwen3vl.local.backend import LocalBackend
from qwen3vl.model.hub import resolve_checkpoint
from qwen3vl.model.kind import check_model_kind
from qwen3vl.model.weights import yes_no_weight
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import (
    RERANK_INSTRUCTION,
    RERANK_MAX_LENGTH,
    RERANK_SUFFIX_TOKENS,
    ControlToken,
    PromptContent,
    TextPart,
    rerank_prompt,
)
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput
from qwen3vl.settings import EngineSettings, default_max_pixels


class LocalReranker(LocalBackend):
    """Scores documents with an engine of its own.

    Args:
        model: A hub id, a local folder, or `"tiny"`.
        settings: The engine's settings.
        instruction: What makes a document relevant; None is that of the official script.

    Raises:
        ModelError: The model or adapter cannot be found, downloaded or loaded, or its files say that it is an embedding
            model.
        ValueError: A setting is out of range, or the device cannot be used.
    """

    def __init__(self, model: str | Path, settings: EngineSettings, *, instruction: str | None) -> None:
        limits = settings.limits(max_length=RERANK_MAX_LENGTH, max_pixels=default_max_pixels(model))
        limits = replace(limits, max_length=limits.max_length + RERANK_SUFFIX_TOKENS)
        checkpoint = resolve_checkpoint(model, "reranker", settings.revision, settings.adapter)
        check_model_kind(checkpoint, "reranker", refuse=settings.check_model)
        super().__init__(Engine(checkpoint, settings, limits), instruction or RERANK_INSTRUCTION)
        tokenizer = self.engine.tokenizer
        yes, no = tokenizer.token_id("yes"), tokenizer.token_id("no")
        weight = yes_no_weight(checkpoint.folder, self.engine.model, yes, no, checkpoint.adapter_folder)
        self._yes_no_weight: NDArray[np.float32] = weight.float().cpu().numpy()

    @property
    def recipe(self) -> Recipe:
        """Everything that decides the scores, which count as vectors of one value."""
        max_length = self.engine.limits.max_length - RERANK_SUFFIX_TOKENS
        return self.recipe_of(max_length=max_length, dimensions=1, normalised=False)

    def score(self, query: Item, documents: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Score documents; see `RerankingBackend.score`."""
        try:
            content = self.engine.read_headers(query)
        except Exception as error:
            raise _query_error(query, error) from error
        yield from self.run(self._requests(content, documents, instruction))

    async def ascore(self, query: Item, documents: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Score documents; see `RerankingBackend.ascore`."""
        async with self.engine.query_slot(query):
            try:
                content = await self.engine.aread_headers(query)
            except Exception as error:
                if self.closed:
                    raise
                raise _query_error(query, error) from error
            async with aclosing(self.arun(self._requests(content, documents, instruction))) as outputs:
                async for output in outputs:
                    yield output

    def to_value(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return sigmoid of (logit of "yes" minus logit of "no"), as the official script does."""
        logit = np.float32(state @ self._yes_no_weight)
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)

    def _requests(
        self, query: PromptContent[UnsizedMedia], documents: Iterator[Input], instruction: str
    ) -> Iterator[UnparsedRequest]:
        to_prompt = partial(self._to_prompt, query, instruction)
        return (UnparsedRequest(index, value, to_prompt) for index, value in enumerate(documents))

    def _to_prompt(
        self, query: PromptContent[UnsizedMedia], instruction: str, item: Item
    ) -> list[ControlToken | TextPart | UnsizedMedia]:
        return rerank_prompt(query, self.engine.read_headers(item), instruction)


def _query_error(query: Item, error: Exception) -> Exception:
    return query_error(getattr(error, "source", None) or query.name, error)
