"""`Reranker`: how well documents answer a query."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine import Engine, EngineOwner, UnparsedRequest
from qwen3vl.errors import InputError, query_error
from qwen3vl.inputs import Input, Item, aparse, as_item, check_text
from qwen3vl.model.hub import resolve_checkpoint
from qwen3vl.model.kind import check_model_kind
from qwen3vl.model.weights import yes_no_weight
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import RERANK_INSTRUCTION, ControlToken, PromptContent, TextPart, rerank_prompt
from qwen3vl.results import (
    Batch,
    OnError,
    OutputCollector,
    RankedDocument,
    check_on_error,
    count_inputs,
    iterate_inputs,
    raise_errors,
    rank_scores,
)
from qwen3vl.settings import EngineArguments, EngineSettings, default_max_pixels

MAX_LENGTH = 10240
"""Maximum tokens of a prompt in the official reranking script."""
_SUFFIX_TOKENS = 5
"""Tokens that end a reranking prompt. The official script adds them after it has truncated to `max_length`."""


class Reranker(EngineOwner):
    """Scores documents against a query; both may be texts, images, videos and mixtures of them.

    One object may be used by many threads at once. Objects with the same model, device and dtype share its weights.

    Args:
        model: A hub id, a local folder, or `"tiny"` (the small model that comes with this package).
        instruction: What makes a document relevant.
        **settings: The fields of `EngineSettings`: revision, device, dtype, limits, media policy, caches.

    Raises:
        ModelError: The model cannot be found, downloaded or loaded, or its files say that it is an embedding model.
        ValueError: A setting is out of range, or the device cannot be used.

    Example:
        ```python
        with Reranker("tiny") as reranker:
            best = reranker.rank("a red circle", ["a blue star", {"image": "photo.jpg"}], top_n=1)
        ```
    """

    def __init__(
        self,
        model: str | Path = "Qwen/Qwen3-VL-Reranker-2B",
        *,
        instruction: str = RERANK_INSTRUCTION,
        **settings: Unpack[EngineArguments],
    ) -> None:
        engine_settings = EngineSettings(**settings)
        limits = engine_settings.limits(max_length=MAX_LENGTH, max_pixels=default_max_pixels(model))
        limits = replace(limits, max_length=limits.max_length + _SUFFIX_TOKENS)
        checkpoint = resolve_checkpoint(model, "reranker", engine_settings.revision)
        check_model_kind(checkpoint, "reranker", refuse=engine_settings.check_model)
        self.instruction = check_text(instruction or RERANK_INSTRUCTION, "the instruction")
        self.engine = Engine(checkpoint, engine_settings, limits)
        tokenizer = self.engine.tokenizer
        yes, no = tokenizer.token_id("yes"), tokenizer.token_id("no")
        weight = yes_no_weight(checkpoint.folder, self.engine.model, yes, no)
        self._yes_no_weight: NDArray[np.float32] = weight.float().cpu().numpy()

    @overload
    def score(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> NDArray[np.float32]: ...

    @overload
    def score(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["collect"],
    ) -> Batch: ...

    def score(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> NDArray[np.float32] | Batch:
        """Score documents, in their order.

        Args:
            query: An input as `Embedder.embed` accepts it. Its own instruction wins over `instruction`.
            documents: Inputs as `Embedder.embed` accepts them. Their own instructions are not used.
            instruction: What makes a document relevant; None is the object's.
            progress: Whether to show a progress bar.
            on_error: `"raise"` raises an exception after all other documents are done; `"collect"` returns a
                `Batch`.

        Returns:
            Probability of "yes" for each document, (n,) float32 between 0 and 1; with `on_error="collect"` a
            `Batch` of these with errors and notices.

        Raises:
            InputError: The query cannot be used.
            BatchError: Documents failed and `on_error` is `"raise"`. It has the scores of the others.
            ValueError: `on_error` has another value.
        """
        check_on_error(on_error)
        item = _parse_query(query)
        try:
            content = self.engine.read_headers(item)
        except Exception as error:
            raise _query_error(query, error) from error
        outputs = self.engine.run(self._requests(item, content, documents, instruction))
        batch = self._collector(documents, progress=progress).collect(outputs)
        raise_errors(batch, on_error)
        return batch if on_error == "collect" else batch.values

    @overload
    async def ascore(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> NDArray[np.float32]: ...

    @overload
    async def ascore(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: Literal["collect"],
    ) -> Batch: ...

    async def ascore(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> NDArray[np.float32] | Batch:
        """Score documents as `score` does, from an event loop. Waiting occupies no thread.

        Any number of calls may wait at once; their prompts are packed into common batches. Cancelling the awaiting task
        stops its work.

        Args:
            query: As for `score`.
            documents: As for `score`. Iterables are iterated on the event loop's thread.
            instruction: As for `score`.
            progress: As for `score`.
            on_error: As for `score`.

        Returns:
            As for `score`.

        Raises:
            InputError: The query cannot be used.
            BatchError: Documents failed and `on_error` is `"raise"`. It has the scores of the others.
            ValueError: `on_error` has another value.
        """
        check_on_error(on_error)
        item = await aparse(partial(_parse_query, query), query)
        async with self.engine.query_slot(item):
            try:
                content = await self.engine.aread_headers(item)
            except Exception as error:
                if self.closed:
                    raise
                raise _query_error(query, error) from error
            outputs = self.engine.arun(self._requests(item, content, documents, instruction))
            batch = await self._collector(documents, progress=progress).acollect(outputs)
        raise_errors(batch, on_error)
        return batch if on_error == "collect" else batch.values

    def rank(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> list[RankedDocument]:
        """Rank documents by score, highest first; equal scores keep their order.

        Args:
            query: As for `score`.
            documents: As for `score`.
            top_n: Maximum number of documents to return; None returns all.
            instruction: As for `score`.
            progress: Whether to show a progress bar.
            on_error: `"raise"` raises an exception if documents failed; `"collect"` returns failed documents last,
                with their error and no score.

        Returns:
            Documents as index, score and error. Each unpacks as the pair `(index, score)`.

        Raises:
            InputError: The query cannot be used.
            BatchError: Documents failed and `on_error` is `"raise"`.
            ValueError: `top_n` is negative, or `on_error` has another value.
        """
        check_on_error(on_error)
        _check_top_n(top_n)
        batch = self.score(query, documents, instruction=instruction, progress=progress, on_error="collect")
        raise_errors(batch, on_error)
        return rank_scores(batch)[:top_n]

    async def arank(
        self,
        query: Input,
        documents: Iterable[Input],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> list[RankedDocument]:
        """Rank documents as `rank` does, from an event loop; see `ascore`.

        Args:
            query: As for `score`.
            documents: As for `ascore`.
            top_n: As for `rank`.
            instruction: As for `score`.
            progress: As for `score`.
            on_error: As for `rank`.

        Returns:
            As for `rank`.

        Raises:
            InputError: The query cannot be used.
            BatchError: Documents failed and `on_error` is `"raise"`.
            ValueError: `top_n` is negative, or `on_error` has another value.
        """
        check_on_error(on_error)
        _check_top_n(top_n)
        batch = await self.ascore(query, documents, instruction=instruction, progress=progress, on_error="collect")
        raise_errors(batch, on_error)
        return rank_scores(batch)[:top_n]

    def _requests(
        self,
        query: Item,
        content: PromptContent[UnsizedMedia],
        documents: Iterable[Input],
        instruction: str | None,
    ) -> Iterator[UnparsedRequest]:
        own = query.instruction or check_text(instruction or "", "the instruction")
        to_prompt = partial(self._to_prompt, content, own.strip() or self.instruction)
        return (UnparsedRequest(index, value, to_prompt) for index, value in enumerate(iterate_inputs(documents)))

    def _collector(self, documents: Iterable[Input], *, progress: bool) -> OutputCollector:
        return OutputCollector(self._to_probability, (), total=count_inputs(documents), progress=progress)

    def _to_prompt(
        self, query: PromptContent[UnsizedMedia], instruction: str, item: Item
    ) -> list[ControlToken | TextPart | UnsizedMedia]:
        return rerank_prompt(query, self.engine.read_headers(item), instruction)

    def _to_probability(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return sigmoid of (logit of "yes" minus logit of "no"), as the official script does."""
        logit = np.float32(state @ self._yes_no_weight)
        return np.asarray(1 / (1 + np.exp(-logit)), dtype=np.float32)


def _parse_query(query: Input) -> Item:
    """Parse a query; raise `InputError` if it cannot be used."""
    try:
        return as_item(query)
    except Exception as error:  # objects of the caller may raise anything
        raise _query_error(query, error) from error


def _query_error(query: Input, error: Exception) -> InputError:
    return query_error(getattr(error, "source", None) or reprlib.repr(query), error)


def _check_top_n(top_n: int | None) -> None:
    if top_n is not None and top_n < 0:
        raise ValueError(f"top_n is {top_n}; it must be None, or 0 or more")
