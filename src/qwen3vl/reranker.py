"""`Reranker`: how well documents answer a query."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Literal, Unpack, cast, overload

import numpy as np
from numpy.typing import NDArray

from qwen3vl.backends import BackendOwner, RerankingBackend, tokenizer_required, torch_required
from qwen3vl.errors import query_error
from qwen3vl.inputs import Input, Item, aparse, as_item, check_text
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
from qwen3vl.settings import BackendArguments, ModelName, client_settings, engine_settings, server_urls, vllm_urls


class Reranker(BackendOwner[RerankingBackend]):
    """Scores documents against a query; both may be texts, images, videos and mixtures of them.

    One object may be used by many threads and event loops at once. Objects with the same model, device and dtype share
    its weights.

    Args:
        model: A hub id, a local folder, or `"tiny"` (the small model that comes with this package), which run in this
            process; or the URL of a server, or URLs of several, as for `Embedder`.
        instruction: What makes a document relevant; None is the instruction of the official script, or of the server.
        **settings: The fields of `EngineSettings` (revision, adapter, device, dtype, limits, media policy, caches), or
            for a server those of `ClientSettings`, as for `Embedder`.

    Raises:
        ModelError: The model or adapter cannot be found, downloaded or loaded, its files say that it is an embedding
            model, or a server has no reranker.
        ServerError: No server can be reached, or one refuses the key.
        RecipeError: Several servers have different models or settings.
        ValueError: A setting is out of range, the device cannot be used, or a server has other limits.

    Example:
        ```python
        with Reranker("tiny") as reranker:
            best = reranker.rank("a red circle", ["a blue star", {"image": "photo.jpg"}], top_n=1)
        ```
    """

    def __init__(
        self,
        model: ModelName = "Qwen/Qwen3-VL-Reranker-2B",
        *,
        instruction: str | None = None,
        **settings: Unpack[BackendArguments],
    ) -> None:
        check_text(instruction or "", "the instruction")
        self.backend = _open_backend(model, instruction, settings)

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
        outputs = self.backend.score(item, iterate_inputs(documents), self._resolve(item, instruction))
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
        outputs = self.backend.ascore(item, iterate_inputs(documents), self._resolve(item, instruction))
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

    def _resolve(self, query: Item, instruction: str | None) -> str:
        own = query.instruction or check_text(instruction or "", "the instruction")
        return own.strip() or self.instruction

    def _collector(self, documents: Iterable[Input], *, progress: bool) -> OutputCollector:
        return OutputCollector((), total=count_inputs(documents), progress=progress)


def _open_backend(model: ModelName, instruction: str | None, settings: BackendArguments) -> RerankingBackend:
    if urls := server_urls(model):
        client = client_settings(urls, settings)
        if addresses := vllm_urls(urls):
            with tokenizer_required():
                from qwen3vl.vllm import VllmReranker
            return VllmReranker(addresses, client, settings, instruction=instruction)
        from qwen3vl.client import RemoteReranker  # httpx would delay the start of every process

        return RemoteReranker(urls, client, settings, instruction=instruction)
    engine = engine_settings(model, settings)
    with torch_required(model):
        from qwen3vl.local.reranker import LocalReranker
    return LocalReranker(cast("str | Path", model), engine, instruction=instruction)


def _parse_query(query: Input) -> Item:
    """Parse a query; raise `InputError` if it cannot be used."""
    try:
        return as_item(query)
    except Exception as error:  # objects of the caller may raise anything
        raise query_error(getattr(error, "source", None) or reprlib.repr(query), error) from error


def _check_top_n(top_n: int | None) -> None:
    if top_n is not None and top_n < 0:
        raise ValueError(f"top_n is {top_n}; it must be None, or 0 or more")
